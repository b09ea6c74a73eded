"""Two writers on one log: one leads, the other follows, and whoever was deposed can do nothing more."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from commands.writer.engine import Engine, LogLost
from commands.writer.gateway import Envelope
from domain.errors import Unavailable
from domain.invariants import violations
from projections.resources import resource
from tests.commands.writer.test_engine import ADMIN, Client, a_stocked_engine, a_vm, an_engine, folded, rows_of
from tests.conftest import Database
from tests.eventlog.rows import a_command_row
from tests.losing import lose
from tests.projections.logs import write
from tests.proxy import Proxy


@asynccontextmanager
async def a_standby(conninfo: str) -> AsyncIterator[Client]:
    engine = Engine(conninfo, resource=resource)
    await engine.start()
    try:
        yield Client(engine)
    finally:
        await engine.stop()


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> float:
    """Wait until it is so; how long that took, in seconds."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_a_standby_follows_and_decides_nothing(database: Database) -> None:
    async with an_engine(database.service) as leader, a_standby(database.service) as standby:
        await a_stocked_engine(leader)
        await leader.send("vm.provision", **a_vm("web-1"))
        await until(lambda: standby.engine.fleet.position == leader.engine.fleet.position)
        assert standby.engine.fleet.living == leader.engine.fleet.living
        assert not standby.engine.is_leading
        with pytest.raises(Unavailable):
            await standby.send("vm.provision", **a_vm("web-2"))


async def test_a_standby_leads_as_soon_as_the_leader_is_gone(database: Database) -> None:
    async with a_standby(database.service) as leader:
        await until(lambda: leader.engine.is_leading)
        await a_stocked_engine(leader)
        first = await leader.send("vm.provision", key="k-1", **a_vm("web-1"))
        async with a_standby(database.service) as standby:
            await until(lambda: standby.engine.fleet.position == first.position)
            await leader.engine.stop()
            await until(lambda: standby.engine.is_leading)
            again = await standby.send("vm.provision", key="k-1", **a_vm("web-1"))
            assert (again.replayed, again.position) == (True, first.position)
            assert (await standby.send("vm.provision", **a_vm("web-2"))).status == 202
    assert [row.topic for row in rows_of(database)].count("leader.took_over") == 1


@pytest.mark.parametrize("held", ["requests", "answers"])
async def test_a_leader_that_is_silent_is_deposed_and_answers_truly(database: Database, held: str) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        through = make_conninfo(database.service, host="127.0.0.1", port=proxy.port)
        async with an_engine(through) as paused, a_standby(database.service) as standby:
            await a_stocked_engine(paused)
            # As one that was stopped: nothing of it arrives, or nothing arrives at it.
            proxy.hold_requests() if held == "requests" else proxy.hold_answers()
            asked = asyncio.create_task(paused.send("vm.provision", **a_vm("web-1")))
            await until(lambda: standby.engine.is_leading)
            after = await standby.send("vm.provision", **a_vm("web-2"))
            assert after.status == 202
            proxy.release()
            answer = (await asyncio.gather(asked, return_exceptions=True))[0]
            await until(lambda: not paused.engine.is_leading)
            with pytest.raises(Unavailable):
                await paused.send("vm.provision", **a_vm("web-3"))
            await until(lambda: paused.engine.fleet.position == standby.engine.fleet.position)
            assert paused.engine.fleet.living == standby.engine.fleet.living
    rows = rows_of(database)
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    stands = any(row.topic == "vm.scheduled" and row.stream == "vm/payments/web-1" for row in rows)
    assert stands == (held == "answers")
    if stands:
        assert getattr(answer, "status", None) == 202
    else:
        assert isinstance(answer, Unavailable)
    assert violations(folded(rows)) == []


async def test_a_leader_whose_last_command_had_expired_steps_down_all_the_same(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        through = make_conninfo(database.service, host="127.0.0.1", port=proxy.port)
        async with an_engine(through) as paused, a_standby(database.service) as standby:
            await a_stocked_engine(paused)
            item = Client.item("vm.provision", a_vm("too-late"))
            with pytest.raises(Unavailable):
                await paused.engine.submit(Envelope(ADMIN, (item,), time.time() - 0.1))
            proxy.hold_answers()
            await until(lambda: standby.engine.is_leading)
            proxy.release()
            await until(lambda: not paused.engine.is_leading)
            await until(lambda: paused.engine.fleet.position == standby.engine.fleet.position)


async def test_a_leader_with_a_sound_connection_is_not_displaced(database: Database) -> None:
    async with an_engine(database.service) as leader, a_standby(database.service) as standby:
        await a_stocked_engine(leader)
        ends_at = time.monotonic() + 3.0
        n = 0
        while time.monotonic() < ends_at:
            n += 1
            assert (await leader.send("tenant.create", name=f"t{n}")).status == 201
        assert not standby.engine.is_leading
    assert "leader.took_over" not in [row.topic for row in rows_of(database)]


async def test_a_standby_does_not_lead_with_what_the_log_has_lost(database: Database) -> None:
    """Others stand there now, at the same positions: the fleet that it has folded never was."""
    async with an_engine(database.service) as leader:
        await a_stocked_engine(leader)
        async with a_standby(database.service) as standby:
            await leader.send("tenant.create", name="lost")
            end = leader.engine.fleet.position
            await until(lambda: standby.engine.fleet.position == end)
            lose(database.owner, after=end - 1)
            write(database.service, [a_command_row(end, "k-1", at=leader.engine.fleet.at + 1)])
            async with asyncio.timeout(10):
                with pytest.raises(LogLost):
                    await standby.engine.ended()
            assert not standby.engine.is_leading
