"""The simulated controllers hold to the contract as a real one must."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from commands.writer.engine import Engine
from commands.writer.gateway import Answer
from domain.host import KIND as HOST
from domain.invariants import violations
from domain.operation import KIND as OPERATION
from domain.vm import KIND as VM
from eventlog.components import Health
from eventlog.read import LogReader
from eventlog.tasks import end_tasks
from messaging import dispatch, subjects
from messaging.dispatch import Dispatcher
from messaging.reports import serve_reports
from tests.conftest import Database
from tests.messaging.stage import NatsProcess, a_site, a_vm, an_engine, send, until
from workers.controllers.simulator import Simulator

AN_OPERATION = "00000000-0000-7000-8000-000000000001"


@pytest.fixture
def nats_process(data: Path) -> Any:
    data.mkdir()
    process = NatsProcess(data)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def reader(database: Database) -> Any:
    found = LogReader(database.service)
    yield found
    found.close()


@asynccontextmanager
async def simulated(client: Client, *, delay_ms: int = 0, fail_rate: float = 0.0) -> AsyncIterator[Simulator]:
    simulator = Simulator(client, "vm", delay_ms=delay_ms, fail_rate=fail_rate)
    task = asyncio.create_task(simulator.run())
    try:
        yield simulator
    finally:
        await end_tasks(task)


@asynccontextmanager
async def a_platform(
    nats_process: NatsProcess, reader: LogReader, conninfo: str, *, delay_ms: int = 0, fail_rate: float = 0.0
) -> AsyncIterator[Engine]:
    """Engine, dispatcher and one controller, without HTTP."""
    async with (
        an_engine(conninfo) as engine,
        nats_process.user("engine") as reports,
        nats_process.user("dispatcher") as work,
        nats_process.user("controller-vm") as controller,
    ):
        await a_site(engine)
        await serve_reports(reports, engine)
        dispatching = asyncio.create_task(
            dispatch.run(work, reader, conninfo, controllers=("vm",), health=Health("dispatcher"))
        )
        async with simulated(controller, delay_ms=delay_ms, fail_rate=fail_rate):
            try:
                yield engine
            finally:
                await end_tasks(dispatching)


class Berth:
    """The engine's side of the reports, as the test wants it to be: it notes them and gives the prepared answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.reports: list[dict[str, Any]] = []
        self.refused: set[tuple[str, str]] = set()  # (step, outcome) that are over
        self.silent_for = 0

    async def listen(self) -> None:
        await self._client.subscribe("berth.reports.vm", cb=self._answer)

    async def _answer(self, message: Msg) -> None:
        report = msgspec.json.decode(message.data)
        self.reports.append(report)
        if self.silent_for:
            self.silent_for -= 1
            await message.respond(b'{"code": "unavailable", "status": 503}')
            return
        if (report["step"], report["outcome"]) in self.refused:
            await message.respond(b'{"code": "conflict", "status": 409}')
            return
        step = {"name": report["step"], "controller": "vm", "state": "started", "attempt": report["attempt"]}
        await message.respond(msgspec.json.encode({"resource": {"steps": [step]}}))

    def outcomes(self, step: str = "vm.create") -> list[str]:
        return [report["outcome"] for report in self.reports if report["step"] == step]


@asynccontextmanager
async def a_queue(nats_process: NatsProcess, reader: LogReader) -> AsyncIterator[tuple[Client, Client, Berth]]:
    """The work stream with its consumer: clients of the dispatcher and of the controller, and who hears reports."""
    async with (
        nats_process.user("dispatcher") as work,
        nats_process.user("controller-vm") as controller,
        nats_process.user("engine") as reports,
    ):
        await Dispatcher(work, reader, controllers=("vm",)).open()
        berth = Berth(reports)
        await berth.listen()
        yield work, controller, berth


async def put(client: Client, step: str, *, uid: str = "u-1", attempt: int = 1) -> None:
    work = {"operation": AN_OPERATION, "step": step, "attempt": attempt, "timeout_s": 600, "input": {"uid": uid}}
    await client.jetstream().publish(subjects.of_work(step), msgspec.json.encode(work))


async def is_empty(client: Client) -> bool:
    return (await client.jetstream().stream_info(subjects.WORK)).state.messages == 0


async def test_a_vm_becomes_active_with_an_address_and_goes_again(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with a_platform(nats_process, reader, database.service) as engine:
        vms = await asyncio.gather(*(a_vm(engine, f"vm-{n}", wait_s=30.0) for n in range(40)))
        assert {(vm.status, vm.resource["state"]) for vm in vms if vm.resource} == {(201, "active")}
        assert all(vm.resource["addresses"][0].startswith("10.") for vm in vms if vm.resource)
        deleted = await send(engine, "vm.delete", tenant="acme", vm="vm-0", wait_s=30.0)
        assert deleted.status == 200
        assert engine.fleet.get(VM, "acme", "vm-0") is None
        assert violations(engine.fleet) == []


async def test_every_failed_creation_is_cleaned_up(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with a_platform(nats_process, reader, database.service, fail_rate=1.0) as engine:
        vms: list[Answer] = await asyncio.gather(*(a_vm(engine, f"vm-{n}", wait_s=30.0) for n in range(10)))
        assert {vm.status for vm in vms} == {424}
        host = engine.fleet.get(HOST, "h1")
        assert host is not None
        assert host.used == {}
        assert {engine.fleet.get(VM, "acme", f"vm-{n}").state for n in range(10)} == {"failed"}


async def test_a_vm_deleted_while_it_is_created_does_not_stand_later(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with a_platform(nats_process, reader, database.service, delay_ms=100) as engine:
        vm = await a_vm(engine, "web-1")
        await until(lambda: vm.operation not in engine.fleet.outstanding)  # it was begun
        deleted = await send(engine, "vm.delete", tenant="acme", vm="web-1", wait_s=30.0)
        assert deleted.status == 200
        assert violations(engine.fleet) == []
        again = await a_vm(engine, "web-1", wait_s=30.0)
        assert again.resource is not None
        assert vm.resource is not None
        assert again.resource["state"] == "active"
        assert again.resource["uid"] != vm.resource["uid"]


async def test_work_that_outlives_a_kill_of_nats_ends_once(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    async with a_platform(nats_process, reader, database.service, delay_ms=300) as engine:
        vms = await asyncio.gather(*(a_vm(engine, f"vm-{n}") for n in range(20)))
        await until(lambda: not engine.fleet.outstanding)
        nats_process.kill()
        nats_process.start()
        await until(lambda: not engine.fleet.streams(OPERATION), within_s=60.0)
        states = {engine.fleet.get(VM, "acme", f"vm-{n}").state for n in range(len(vms))}
        assert states == {"active"}


async def test_it_acts_only_when_its_start_was_accepted(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        berth.refused = {("vm.create", "started")}
        async with simulated(controller):
            await put(work, "vm.create")
            await until(lambda: is_empty(work))
        assert berth.outcomes() == ["started"]


async def test_it_reports_the_same_until_it_is_answered(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        berth.silent_for = 3
        async with simulated(controller):
            await put(work, "vm.create")
            await until(lambda: is_empty(work))
        assert berth.outcomes() == ["started"] * 4 + ["succeeded"]
        assert all(report == berth.reports[0] for report in berth.reports[:4])


async def test_work_that_was_sent_twice_is_done_once(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        await put(work, "vm.create")
        await put(work, "vm.create")
        async with simulated(controller, delay_ms=200):
            await until(lambda: is_empty(work))
        assert sorted(berth.outcomes()) == ["progress", "started", "succeeded"]


async def test_what_is_no_work_is_put_aside(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        await work.jetstream().publish("berth.work.vm.create", b"junk")
        async with simulated(controller):
            await until(lambda: is_empty(work))
        assert berth.reports == []


async def test_it_tells_half_way_of_what_takes_long(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        async with simulated(controller, delay_ms=250):
            await put(work, "vm.create")
            await until(lambda: is_empty(work))
        assert berth.outcomes() == ["started", "progress", "succeeded"]
        assert berth.reports[1]["percent"] == 50


async def test_what_was_deleted_is_not_created_any_more(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        async with simulated(controller):
            await put(work, "vm.delete")
            await until(lambda: is_empty(work))
            await put(work, "vm.create")
            await until(lambda: is_empty(work))
        assert berth.outcomes("vm.delete") == ["started", "succeeded"]
        assert berth.outcomes() == ["started", "failed"]


async def test_a_failure_is_the_same_when_the_work_is_given_again(reader: LogReader, nats_process: NatsProcess) -> None:
    async with a_queue(nats_process, reader) as (work, controller, berth):
        async with simulated(controller, fail_rate=0.5):
            for _ in range(2):
                for attempt in range(1, 21):
                    await put(work, "vm.start", attempt=attempt)
                await until(lambda: is_empty(work))
        ends = [(report["attempt"], report["outcome"]) for report in berth.reports if report["outcome"] != "started"]
        assert len(ends) == 40
        assert len(set(ends)) == 20
        assert {outcome for _, outcome in ends} == {"succeeded", "failed"}
