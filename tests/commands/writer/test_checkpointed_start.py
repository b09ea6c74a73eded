"""An engine that starts from a checkpoint decides as one that folded the whole log."""

import asyncio
from typing import Any

import psycopg
import pytest

from domain.vm import KIND as VM
from eventlog import checkpoints
from eventlog.checkpoints import snapshot
from tests.checkpointing import MARK, marked
from tests.commands.writer.test_engine import Client, a_vm, an_engine, folded, rows_of
from tests.commands.writer.test_standby import a_standby, until
from tests.conftest import Database
from tests.deciding import HOUR_US, Site, a_site
from tests.projections.logs import write


def a_history(database: Database, *, mark: bool = False) -> tuple[Site, dict[str, int]]:
    """Keys used more than an hour before a checkpoint, shortly before it, and after it; with the position of each."""
    site = a_site(hosts=4, cpu=16)
    used = {}
    for key in ("older", "before"):
        answer = site.given("vm.provision", key=key, **a_vm(key))
        used[key] = answer.position
        used[f"{key} started"] = site.report(answer.operation, "started", key=_key(answer.operation)).position
        site.now += 2 * HOUR_US if key == "older" else HOUR_US // 4
    used["refused"] = site.when("tenant.create", key="refused", name="acme").position
    checkpoint = site.fleet.position
    taken = marked(site.fleet) if mark else snapshot(site.fleet)
    site.now += HOUR_US // 4
    used["after"] = site.given("vm.provision", key="after", **a_vm("after")).position
    write(database.service, site.rows)
    checkpoints.write(database.service, taken)
    assert used["refused"] <= checkpoint < used["after"]
    return site, used


def _key(operation: str | None) -> str:
    return f"{operation}:vm.create:1:started"


def operation_of(client: Client, vm: str) -> str:
    operation: str = client.engine.fleet.get(VM, "payments", vm).operation
    return operation


async def test_it_begins_there_and_folds_the_rest(database: Database) -> None:
    site, used = a_history(database, mark=True)
    async with an_engine(database.service) as client:
        fleet = client.engine.fleet
        assert fleet.entry(MARK) is not None
        assert fleet.get(VM, "payments", "after") == site.fleet.get(VM, "payments", "after")
        entries = {stream: entry for stream, entry in fleet.entries() if stream != MARK}
    assert entries == dict(folded(rows_of(database)).entries())
    assert used["after"] < fleet.position


@pytest.mark.parametrize("key", ["older", "before", "after"])
async def test_a_key_used_before_or_after_the_checkpoint_is_a_repeat(database: Database, key: str) -> None:
    _, used = a_history(database)
    async with an_engine(database.service) as client:
        position = client.engine.fleet.position
        again = await client.send("vm.provision", key=key, **a_vm(key))
        assert (again.status, again.replayed, again.position) == (202, True, used[key])
        assert client.engine.fleet.position == position


async def test_a_key_that_was_refused_before_the_checkpoint_is_a_repeat(database: Database) -> None:
    _, used = a_history(database)
    async with an_engine(database.service) as client:
        again = await client.send("tenant.create", key="refused", name="acme")
        assert (again.status, again.replayed, again.position) == (409, True, used["refused"])


@pytest.mark.parametrize("vm", ["older", "before"])
async def test_a_report_from_before_the_checkpoint_is_a_repeat(database: Database, vm: str) -> None:
    """Its operation still runs, so it is in the fleet; that it was told is only in the log."""
    _, used = a_history(database)
    async with an_engine(database.service) as client:
        position = client.engine.fleet.position
        again = await client.report(operation_of(client, vm), "started")
        assert (again.replayed, again.position) == (True, used[f"{vm} started"])
        assert client.engine.fleet.position == position
        assert (await client.report(operation_of(client, vm), "succeeded")).problem is None


async def test_a_standby_begins_there_and_leads_from_there(database: Database) -> None:
    _, used = a_history(database, mark=True)
    async with an_engine(database.service) as leader, a_standby(database.service) as standby:
        await until(lambda: standby.engine.fleet.position == leader.engine.fleet.position)
        assert standby.engine.fleet.entry(MARK) is not None
        await leader.engine.stop()
        await until(lambda: standby.engine.is_leading)
        again = await standby.send("vm.provision", key="before", **a_vm("before"))
        assert (again.replayed, again.position) == (True, used["before"])


async def test_it_decides_the_same_with_and_without(database: Database) -> None:
    a_history(database)
    told: list[Any] = []
    for n in range(2):
        async with an_engine(database.service) as client:
            asked = [client.send("vm.provision", dry_run=True, **a_vm(f"asked-{n}", cpu=cpu)) for cpu in (1, 8, 13, 99)]
            told.append([(a.status, a.problem, (a.resource or {}).get("host")) for a in await asyncio.gather(*asked)])
        with psycopg.connect(database.service) as connection:
            assert (connection.execute("DELETE FROM berth.checkpoints").rowcount > 0) == (n == 0)
    assert told[0] == told[1]
    assert {status for status, _, _ in told[0]} == {202, 409}


async def test_a_damaged_checkpoint_stops_nobody(database: Database) -> None:
    a_history(database, mark=True)
    with psycopg.connect(database.owner) as owner:
        owner.execute("UPDATE berth.checkpoints SET data = 'nonsense'")
    async with an_engine(database.service) as client:
        fleet = client.engine.fleet
        assert (await client.send("vm.provision", key="before", **a_vm("before"))).replayed
    assert fleet.living == folded(rows_of(database)).living
