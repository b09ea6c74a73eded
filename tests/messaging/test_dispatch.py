"""The dispatcher's promise: on BERTH_WORK is what a controller must still begin, and nothing that has begun."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client

from commands.writer.engine import Engine
from commands.writer.gateway import Answer
from eventlog import checkpoints
from eventlog.components import Health
from eventlog.read import LogReader
from eventlog.tasks import end_tasks
from messaging import dispatch, subjects
from messaging.dispatch import Dispatcher
from tests.checkpointing import marked
from tests.conftest import Database
from tests.losing import lose
from tests.messaging.stage import VM, NatsProcess, a_site, a_vm, an_engine, messages, send, until


@asynccontextmanager
async def dispatching(nats_process: NatsProcess, reader: LogReader, conninfo: str) -> AsyncIterator[None]:
    """The whole process, in a task."""
    async with nats_process.user("dispatcher") as client:
        task = asyncio.create_task(
            dispatch.run(client, reader, conninfo, controllers=("vm",), health=Health("dispatcher"))
        )
        try:
            yield
        finally:
            await end_tasks(task)


async def report(engine: Engine, vm: Answer, outcome: str, *, step: str = "vm.create", attempt: int = 1) -> None:
    answer = await send(
        engine, "operation.report", actor=VM, operation=vm.operation, step=step, attempt=attempt, outcome=outcome
    )
    assert answer.problem is None


async def queued(client: Client) -> list[dict[str, Any]]:
    return [msgspec.json.decode(found.data or b"") for found in await messages(client, subjects.WORK)]


async def test_work_says_all_that_its_controller_needs(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service, step_timeout_s=60) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        assert vm.resource is not None
        dispatcher = Dispatcher(client, reader, controllers=("vm",))
        await dispatcher.open()
        await dispatcher.follow()
        (work,) = await queued(client)
    assert work == {
        "operation": vm.operation,
        "step": "vm.create",
        "attempt": 1,
        "timeout_s": 60,
        "input": {
            "uid": vm.resource["uid"],
            "tenant": "acme",
            "name": "web-1",
            "group": "std",
            "host": "h1",
            "resources": {"cpu": 1},
            "image": None,
        },
    }


async def test_only_what_is_still_to_be_begun_is_sent(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        waiting, begun, done, failed = [await a_vm(engine, f"vm-{n}") for n in range(4)]
        for vm in (begun, done, failed):
            await report(engine, vm, "started")
        await report(engine, done, "succeeded")
        await report(engine, failed, "failed")
        dispatcher = Dispatcher(client, reader, controllers=("vm",))
        await dispatcher.open()
        await dispatcher.follow()
        found = {(work["operation"], work["step"]) for work in await queued(client)}
    assert found == {(waiting.operation, "vm.create"), (failed.operation, "vm.delete")}


async def test_it_begins_with_the_operations_of_the_last_checkpoint(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        waiting, begun, begun_later, cancelled = [await a_vm(engine, f"vm-{n}") for n in range(4)]
        await report(engine, begun, "started")
        checkpoints.write(database.service, marked(engine.fleet))
        await report(engine, begun_later, "started")
        await send(engine, "vm.delete", tenant="acme", vm="vm-3")
        new = await a_vm(engine, "vm-4")
        dispatcher = Dispatcher(client, reader, controllers=("vm",))
        await dispatcher.restore(database.service)
        from_checkpoint = dispatcher.position
        await dispatcher.open()
        await dispatcher.follow()
        found = {(work["operation"], work["step"]) for work in await queued(client)}
        outstanding = {(id, step.name) for id, step in engine.fleet.outstanding.items()}
        end = engine.fleet.position
    assert 0 < from_checkpoint < dispatcher.position == end
    assert found == outstanding
    assert {(waiting.operation, "vm.create"), (new.operation, "vm.create")} < found
    assert not {begun.operation, begun_later.operation, cancelled.operation} & {operation for operation, _ in found}


async def test_a_change_is_dispatched_when_it_happens_and_once(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        async with dispatching(nats_process, reader, database.service):
            vms = await asyncio.gather(*(a_vm(engine, f"vm-{n}") for n in range(20)))
            await until(lambda: _holds(client, 20))
            await report(engine, vms[0], "started")
            await report(engine, vms[0], "failed")
            await until(lambda: _holds(client, 21))
            steps = [(work["operation"], work["step"]) for work in await queued(client)]
    assert sorted(steps[:20]) == sorted((vm.operation, "vm.create") for vm in vms)
    assert steps[20] == (vms[0].operation, "vm.delete")


async def test_a_restarted_dispatcher_does_not_double_what_is_queued(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        await a_vm(engine, "web-1")
        for _ in range(2):
            dispatcher = Dispatcher(client, reader, controllers=("vm",))
            await dispatcher.open()
            await dispatcher.follow()
        assert len(await queued(client)) == 1


async def test_work_that_was_taken_and_not_begun_is_sent_again(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("dispatcher") as client,
        nats_process.user("controller-vm") as controller,
    ):
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        dispatcher = Dispatcher(client, reader, controllers=("vm",), again_s=0.0)
        await dispatcher.open()
        await dispatcher.follow()
        consumer = await controller.jetstream().pull_subscribe_bind("vm", stream=subjects.WORK)
        (message,) = await consumer.fetch(1, timeout=10)
        await message.ack_sync(timeout=10)
        await dispatcher.follow()
        (again,) = await consumer.fetch(1, timeout=10)
        assert again.data == message.data
        await report(engine, vm, "started")
        await again.ack_sync(timeout=10)
        await dispatcher.follow()
        assert await queued(client) == []
        assert (dispatcher.sent, dispatcher.due) == ({}, {})


async def test_an_attempt_that_may_not_begin_yet_is_sent_when_its_time_has_come(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        await report(engine, vm, "started")
        await report(engine, vm, "succeeded")
        deletion = await send(engine, "vm.delete", tenant="acme", vm="web-1")
        dispatcher = Dispatcher(client, reader, controllers=("vm",))
        await dispatcher.open()
        await report(engine, deletion, "failed", step="vm.delete")
        not_before = engine.fleet.outstanding[deletion.operation or ""].not_before
        await dispatcher.follow()
        if time.time_ns() // 1000 < not_before:  # else this machine was busy for seconds
            assert await queued(client) == []

        async def sent() -> list[dict[str, Any]]:
            await dispatcher.follow()
            return await queued(client)

        (work,) = await until(sent)
        assert time.time_ns() // 1000 >= not_before
        assert (work["step"], work["attempt"]) == ("vm.delete", 2)


async def test_work_that_still_waits_in_the_queue_gets_no_copies(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine, nats_process.user("dispatcher") as client:
        await a_site(engine)
        await a_vm(engine, "web-1")
        dispatcher = Dispatcher(client, reader, controllers=("vm",), again_s=0.0)
        await dispatcher.open()
        for _ in range(3):
            await dispatcher.follow()
        assert len(await queued(client)) == 1


async def test_a_wiped_nats_gets_exactly_what_is_still_to_be_begun(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine:
        await a_site(engine)
        async with dispatching(nats_process, reader, database.service):
            waiting, begun = await a_vm(engine, "web-1"), await a_vm(engine, "web-2")
            async with nats_process.user("dispatcher") as client:
                await until(lambda: _holds(client, 2))
            await report(engine, begun, "started")
            nats_process.wipe()
            async with nats_process.user("dispatcher") as client:
                await until(lambda: _holds(client, 1))
                (work,) = await queued(client)
                assert work["operation"] == waiting.operation
                consumer = await client.jetstream().consumer_info(subjects.WORK, "vm")
                assert consumer.num_pending == 1


async def _holds(client: Client, count: int) -> bool:
    with suppress(nats.errors.Error):
        return bool((await client.jetstream().stream_info(subjects.WORK)).state.messages >= count)
    return False


async def test_work_of_a_log_that_lost_its_end_is_folded_anew(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with an_engine(database.service) as engine:
        await a_site(engine)
        await a_vm(engine, "web-1")
        kept = await asyncio.to_thread(reader.end)
        await a_vm(engine, "web-2")
        ended = await asyncio.to_thread(reader.end)
    async with dispatching(nats_process, reader, database.service), nats_process.user("dispatcher") as client:

        async def has_both() -> bool:
            with suppress(nats.errors.Error):
                return len(await queued(client)) == 2
            return False

        await until(has_both)
        lose(database.owner, after=kept)
        async with an_engine(database.service) as engine:
            while await asyncio.to_thread(reader.end) <= ended:
                last = await a_vm(engine, f"new-{await asyncio.to_thread(reader.end)}")

        async def has_the_new() -> bool:
            return last.operation in [work["operation"] for work in await queued(client)]

        await until(has_the_new)
