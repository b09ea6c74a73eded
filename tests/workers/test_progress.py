"""What controllers tell of work under way is kept beside the log while it is under way, and no longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from commands.writer import ids
from commands.writer.gateway import Answer
from tests.commands.writer.test_engine import VM_CONTROLLER, Client, a_stocked_engine, a_vm, an_engine
from tests.conftest import Database
from workers.progress import ProgressTable


@asynccontextmanager
async def an_engine_that_keeps_progress(database: Database) -> AsyncIterator[Client]:
    async with ProgressTable(database.service) as progress, an_engine(database.service, progress=progress) as client:
        yield client


async def tell(client: Client, vm: Answer, percent: int) -> Answer:
    body = {"operation": vm.operation, "step": "vm.create", "attempt": 1, "outcome": "progress", "percent": percent}
    return await client.send("operation.report", actor=VM_CONTROLLER, **body)


async def kept(database: Database, rows: dict[str | None, int]) -> None:
    """Wait until exactly these are kept: percent by operation."""
    async with await psycopg.AsyncConnection.connect(database.service, autocommit=True) as connection:
        async with asyncio.timeout(20):
            while True:
                cursor = await connection.execute("SELECT operation, percent FROM berth.progress")
                found = dict(await cursor.fetchall())
                if found == rows:
                    return
                await asyncio.sleep(0.02)


async def test_progress_goes_with_the_operation_that_it_is_of(database: Database) -> None:
    async with an_engine_that_keeps_progress(database) as client:
        await a_stocked_engine(client)
        one, other = [await client.send("vm.provision", **a_vm(name)) for name in ("web-1", "web-2")]
        for vm in (one, other):
            await client.report(vm.operation, "started")
            assert (await tell(client, vm, 10)).status == 200
        await kept(database, {one.operation: 10, other.operation: 10})
        await tell(client, one, 90)
        await client.report(one.operation, "succeeded")
        await kept(database, {other.operation: 10})
        late = await tell(client, one, 99)
        assert late.problem is not None
        assert late.problem["code"] == "conflict"
        await tell(client, other, 50)
        await kept(database, {other.operation: 50})


async def test_progress_of_what_ended_while_nobody_led_goes_when_somebody_does(database: Database) -> None:
    async with an_engine_that_keeps_progress(database) as client:
        await a_stocked_engine(client)
        vm = await client.send("vm.provision", **a_vm("web-1"))
        await client.report(vm.operation, "started")
        await tell(client, vm, 10)
        await kept(database, {vm.operation: 10})
    with psycopg.connect(database.service) as connection:
        row = "INSERT INTO berth.progress (operation, step, attempt, percent) VALUES (%s, 'vm.create', 1, 70)"
        connection.execute(row, (ids.uuid7(),))
    async with an_engine_that_keeps_progress(database) as client:
        await kept(database, {vm.operation: 10})
        # Told before this engine led, it goes all the same.
        await client.report(vm.operation, "succeeded")
        await kept(database, {})
