"""How a component stands is as well as the best of its instances, and a moment's trouble is none."""

import asyncio
from typing import Any

import psycopg
import pytest

from eventlog.components import GRACE_S, Health, InstanceReport, read, reporting, status_of
from tests.conftest import Database

AGES = {"now": 0.5, "long ago": GRACE_S + 5.0}


def told(state: Any, *, age: str = "now", ok: str | None = "now", reason: str = "because") -> InstanceReport:
    return InstanceReport("relay", state, reason, AGES[age], AGES[ok] if ok is not None else None)


@pytest.mark.parametrize(
    ("instances", "state", "is_ready"),
    [
        pytest.param([], "silent", False, id="never came"),
        pytest.param([told("ok")], "ok", True, id="well"),
        pytest.param([told("troubled")], "troubled", True, id="a moment's trouble"),
        pytest.param([told("troubled", ok="long ago")], "troubled", False, id="lasting trouble"),
        pytest.param([told("troubled", ok=None)], "troubled", False, id="never was well"),
        pytest.param([told("stopped")], "stopped", False, id="needs a person"),
        pytest.param([told("stopped", age="long ago")], "stopped", False, id="ended as it needs a person"),
        pytest.param([told("ok", age="long ago", ok="long ago")], "silent", False, id="hangs or is gone"),
        pytest.param([told("stopped"), told("ok")], "ok", True, id="another instance does it"),
        pytest.param([told("ok", age="long ago", ok="long ago"), told("ok")], "ok", True, id="one of two is gone"),
    ],
)
def test_a_component_is_as_well_as_its_best_instance(
    instances: list[InstanceReport], state: str, is_ready: bool
) -> None:
    found = status_of("relay", instances)
    assert (found.state, found.is_ready) == (state, is_ready)
    assert bool(found.reason) is (state != "ok")
    assert status_of("past", instances).state == "silent"


async def test_what_is_told_is_what_the_instance_says_now(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.service, autocommit=True) as connection:

        async def says(state: str) -> InstanceReport:
            async with asyncio.timeout(20):
                while not (found := await read(connection)) or found[0].state != state:
                    await asyncio.sleep(0.02)
            return found[0]

        health = Health("relay")
        async with reporting(database.service, health):
            assert await read(connection) == []  # it has said nothing
            health.troubled("NATS is full")
            assert (await says("troubled")).ok_s is None
            health.ok()
            assert (await says("ok")).reason == ""
            health.troubled("NATS is full")
            assert (await says("troubled")).ok_s is not None
            health.stopped("berth relay rebuild\0")
        (last,) = await read(connection)  # an end for good is told before it is one
        assert (last.state, last.reason) == ("stopped", "berth relay rebuild")
