"""A clock that is set back under a running engine: the log's time rises all the same, and no deadline is early."""

import asyncio
import time
from itertools import pairwise

import pytest

from commands.writer.deadlines import INTERVAL_S
from domain.invariants import violations
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from eventlog.codec import decode
from tests.commands.writer.test_engine import a_stocked_engine, a_vm, an_engine, folded, rows_of
from tests.commands.writer.test_standby import until
from tests.conftest import Database

HOUR_S = 3600


class Clock:
    """The machine's clock, as everything in this process reads it; somebody may set it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wrong_by_s = 0
        seconds, nanoseconds = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: seconds() + self.wrong_by_s)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + self.wrong_by_s * 1_000_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def times_of_commands(database: Database) -> list[int]:
    """One for each command, in the log's order."""
    by_command = {(recorded := decode(row)).command: recorded.at for row in rows_of(database)}
    return list(by_command.values())


async def test_a_clock_that_is_set_back_loses_nothing_and_the_logs_time_rises(database: Database, clock: Clock) -> None:
    async with an_engine(database.service, expiry_grace_s=0.0) as client:
        await a_stocked_engine(client)
        asked = [asyncio.create_task(client.send("vm.provision", key=f"k-{n}", **a_vm(f"vm-{n}"))) for n in range(30)]
        await until(lambda: bool(client.engine.fleet.streams(OPERATION)))
        clock.wrong_by_s = -HOUR_S
        asked += [asyncio.create_task(client.send("vm.provision", key=f"k-{n}", **a_vm(f"vm-{n}"))) for n in range(60)]
        answers = await asyncio.gather(*asked)
        assert [answer.status for answer in answers] == [202] * 90
        assert [answer.position for answer in answers[30:60]] == [answer.position for answer in answers[:30]]
        await asyncio.sleep(2 * INTERVAL_S)  # in which deadlines are looked at
        assert {operation.state for operation in client.engine.fleet.each(OPERATION)} == {"running"}
    async with an_engine(database.service) as client:  # and under one that begins to lead with the wrong clock
        assert (await client.send("vm.provision", **a_vm("later"))).status == 202
    assert all(later > earlier for earlier, later in pairwise(times_of_commands(database)))
    topics = [row.topic for row in rows_of(database)]
    assert (topics.count("vm.scheduled"), topics.count("operation.step_failed")) == (61, 0)
    assert violations(folded(rows_of(database))) == []


async def test_a_deadline_is_never_early_when_the_clock_is_set_back_and_comes_with_the_logs_time(
    database: Database, clock: Clock
) -> None:
    async with an_engine(database.service, step_timeout_s=1, expiry_grace_s=0.0) as client:
        await a_stocked_engine(client)
        clock.wrong_by_s = -HOUR_S
        answer = await client.send("vm.provision", **a_vm("web-1"))
        assert answer.operation is not None
        await client.report(answer.operation, "started")
        operation = client.engine.fleet.get(OPERATION, answer.operation)
        await asyncio.sleep(1.0 + 2 * INTERVAL_S)
        # The log's time has not come to it: late by as much as the clock is behind, which frees nothing early.
        assert client.engine.fleet.get(OPERATION, answer.operation) == operation
        clock.wrong_by_s = 0
        await until(lambda: client.engine.fleet.get(OPERATION, answer.operation).is_undoing)  # type: ignore[index]
        assert client.engine.fleet.get(QUOTA, "std", "payments").used == {"cpu": 1, "vms": 1}
