"""A log that was written before kinds declared themselves is read, folded and shown as it was then.

`former_log.json.gz` was recorded from a running platform of that time: its rows, and what its API answered when all of
them were shown. It is never made anew.
"""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.fleet import Fleet
from domain.invariants import violations
from eventlog.codec import FORMER, Row, decode, encode
from eventlog.read import LogReader
from projections.projector import catch_up
from projections.queries import ReadModel, decoded
from projections.resources import resource
from tests.projections.logs import write

RECORDED: dict[str, Any] = msgspec.json.decode(
    gzip.decompress((Path(__file__).parent / "former_log.json.gz").read_bytes())
)
ROWS = [
    Row(stream, version, position, topic, state.encode())
    for position, stream, version, topic, state in RECORDED["rows"]
]


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = Fleet()
    for row in ROWS:
        fleet.fold(decode(row))
    return fleet


@pytest.fixture
async def model(database: Any) -> AsyncIterator[ReadModel]:
    write(database.service, ROWS)
    catch_up(database.service, LogReader(database.service))
    async with ReadModel(database.service) as model:
        await model.wait_for(RECORDED["position"])
        yield model


def test_it_is_written_again_in_the_same_bytes() -> None:
    for row in ROWS:
        if row.topic not in FORMER:
            assert encode(decode(row)) == row


def test_its_accounts_are_right(fleet: Fleet) -> None:
    assert fleet.position == RECORDED["position"]
    assert violations(fleet) == []


@pytest.mark.parametrize("kind", RECORDED["resources"])
def test_each_resource_is_what_it_was(fleet: Fleet, kind: str) -> None:
    for shown in RECORDED["resources"][kind]:
        if kind == "operation":
            continue  # all of them are over, and have left the fleet
        name = f"{shown['tenant']}/{shown['name']}" if kind == "vm" else shown["name"]
        assert resource(fleet, f"{kind}/{name}") == shown


async def test_its_lists_capacity_and_audit_are_what_they_were(model: ReadModel) -> None:
    for kind, items in RECORDED["resources"].items():
        assert decoded(await model.list_(kind, limit=1_000))["items"] == items
    for by, items in RECORDED["capacity"].items():
        assert decoded(await model.capacity(by))["items"] == items
    assert decoded(await model.audit(limit=1_000))["items"] == RECORDED["audit"]
