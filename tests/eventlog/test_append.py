import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from domain.vm import VmFailed
from eventlog.append import (
    Collision,
    CommitsAreNotDurable,
    DataRefused,
    LogConnection,
    OutcomeUnknown,
    terminate_backend,
)
from eventlog.codec import Row
from eventlog.read import LogReader
from tests.conftest import Database
from tests.eventlog.rows import a_command_row, a_leader, a_row, an_open_log, rows_after, the_first_row
from tests.proxy import Proxy


def proxy_to(database: Database) -> Proxy:
    server = conninfo_to_dict(database.service)
    return Proxy(str(server["host"]), int(str(server["port"])))


def through(proxy: Proxy, database: Database) -> str:
    return make_conninfo(database.service, host="127.0.0.1", port=proxy.port)


async def test_what_was_appended_stands_in_order(database: Database) -> None:
    leader = await an_open_log(database.service)
    await leader.append(1, rows_after(1, 300))
    await leader.append(301, [a_command_row(302, "k-1")])
    assert await leader.end() == 302
    assert await leader.read_after(0, 1000) == [the_first_row(), *rows_after(1, 300), a_command_row(302, "k-1")]
    await leader.close()


async def test_a_taken_position_collides(database: Database) -> None:
    deposed = await an_open_log(database.service)
    successor = await LogConnection.connect(database.service)
    await successor.append(1, [a_row(2, "host/r1-h2")])
    with pytest.raises(Collision) as lost:
        await deposed.append(1, [a_row(2, "host/r1-h1"), a_row(3)])
    assert lost.value.reason == "position"
    # The same stream at the same position violates both indexes, and is still a matter of the position.
    with pytest.raises(Collision) as lost:
        await deposed.append(1, [a_row(2, "host/r1-h2")])
    assert lost.value.reason == "position"
    assert await deposed.end() == 2
    await deposed.close()
    await successor.close()


async def test_a_batch_whose_predecessor_is_missing_collides(database: Database) -> None:
    leader = await an_open_log(database.service)
    with pytest.raises(Collision) as lost:
        await leader.append(5, rows_after(5, 3))
    assert lost.value.reason == "base"
    assert await leader.end() == 1
    await leader.close()


async def test_a_used_key_collides_and_is_named(database: Database) -> None:
    leader = await an_open_log(database.service)
    await leader.append(1, [a_row(2), a_command_row(3, "k-1")])
    with pytest.raises(Collision) as lost:
        await leader.append(3, [a_row(4), a_command_row(5, "k-2"), a_row(6), a_command_row(7, "k-1")])
    assert lost.value.reason == "key"
    assert lost.value.streams == ("command/ann/k-1",)
    assert await leader.end() == 3
    await leader.append(3, [a_row(4), a_command_row(5, "k-2")])
    await leader.close()


async def test_a_log_is_opened_once(database: Database) -> None:
    leader = await a_leader(database.service)
    assert await leader.end() == 0
    with pytest.raises(AssertionError):
        await leader.append(0, [a_row(1)])
    await leader.append(0, [the_first_row()])
    with pytest.raises(Collision) as lost:
        await leader.append(0, [the_first_row()])
    assert lost.value.reason == "position"
    await leader.close()


async def test_rows_must_follow_their_base_without_a_gap(database: Database) -> None:
    leader = await an_open_log(database.service)
    for rows in ([], [a_row(3)], [a_row(2), a_row(4)]):
        with pytest.raises(AssertionError):
            await leader.append(1, rows)
    await leader.close()


@pytest.mark.parametrize(
    "stream",
    ["host/a\0b", "host/" + "".join(chr(0x4E00 + n) for n in range(4000)), "host/\ud800"],
    ids=["a NUL", "too long for the index", "half a surrogate pair"],
)
async def test_a_row_that_cannot_be_stored_is_refused_and_the_connection_goes_on(
    database: Database, stream: str
) -> None:
    leader = await an_open_log(database.service)
    with pytest.raises(DataRefused):
        await leader.append(1, [a_row(2), a_row(3, stream)])
    await leader.append(1, [a_row(2), a_row(3)])
    assert await leader.end() == 3
    await leader.close()


async def test_a_batch_of_many_megabytes_is_appended(database: Database) -> None:
    leader = await an_open_log(database.service)
    large = [a_row(position, event=VmFailed(reason="租" * 85_000)) for position in range(2, 42)]
    await leader.append(1, large)
    assert await leader.read_after(1, 100) == large
    await leader.close()


async def test_one_connection_at_a_time_holds_the_lock(database: Database) -> None:
    leader = await a_leader(database.service)
    standby = await LogConnection.connect(database.service)
    assert not await standby.try_lock()
    assert await leader.try_lock()  # asked again, it still does
    assert await standby.lock_holder() == leader.backend_pid
    await leader.close()
    assert await regained(standby)
    await standby.close()


async def test_a_terminated_holder_has_lost_lock_and_log(database: Database) -> None:
    paused = await an_open_log(database.service)
    standby = await LogConnection.connect(database.service)
    holder = await standby.lock_holder()
    assert holder is not None
    assert await terminate_backend(database.service, holder)
    assert await standby.try_lock()
    with pytest.raises(OutcomeUnknown):
        await paused.append(1, [a_row(2)])
    assert not paused.is_open
    assert await standby.end() == 1
    await standby.close()


async def test_a_backend_that_is_no_log_connection_is_left_alone(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.service, autocommit=True) as other:
        assert await terminate_backend(database.service, other.info.backend_pid)
        await other.execute("SELECT 1")


async def test_a_batch_stands_though_its_answer_was_lost(database: Database, eventually: Callable[..., Any]) -> None:
    reader = LogReader(database.service)
    with proxy_to(database) as proxy:
        leader = await an_open_log(through(proxy, database))
        proxy.hold_answers()
        append = asyncio.create_task(leader.append(1, rows_after(1, 2)))
        await asyncio.to_thread(eventually, lambda: reader.end() == 3)
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await append
    reader.close()
    assert await settled(database, leader) == rows_after(1, 2)


async def test_a_batch_that_never_reached_the_server_does_not_stand(database: Database) -> None:
    with proxy_to(database) as proxy:
        leader = await an_open_log(through(proxy, database))
        proxy.hold_requests()
        append = asyncio.create_task(leader.append(1, rows_after(1, 2)))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(OutcomeUnknown):
            await append
    assert await settled(database, leader) == []


async def test_a_batch_may_not_stand_yet_and_ending_its_backend_makes_that_final(
    database: Database, eventually: Callable[..., Any]
) -> None:
    with proxy_to(database) as proxy, psycopg.connect(database.owner) as owner:
        leader = await an_open_log(through(proxy, database))
        await lose_in_the_append(proxy, leader, owner, eventually)
        assert await settled(database, leader) == []


async def test_a_lost_batch_keeps_the_lock_until_it_stands(database: Database, eventually: Callable[..., Any]) -> None:
    with proxy_to(database) as proxy, psycopg.connect(database.owner) as owner:
        leader = await an_open_log(through(proxy, database))
        await lose_in_the_append(proxy, leader, owner, eventually)
        successor = await LogConnection.connect(database.service)
        # Whoever read now would see the old end, and be wrong a moment later: only the lock tells.
        assert await successor.end() == 1
        assert not await successor.try_lock()
        owner.rollback()
        assert await regained(successor)
        assert await successor.read_after(1, 10) == rows_after(1, 2)
        await successor.close()


async def lose_in_the_append(
    proxy: Proxy, leader: LogConnection, owner: psycopg.Connection, eventually: Callable[..., Any]
) -> None:
    """Cut the leader's connection while its append waits in the server, for as long as `owner` keeps the table."""
    owner.execute("LOCK TABLE berth.events IN SHARE MODE")
    append = asyncio.create_task(leader.append(1, rows_after(1, 2)))

    def waits() -> bool:
        waiting = owner.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", (leader.backend_pid,))
        return waiting.fetchone() is not None

    await asyncio.to_thread(eventually, waits)
    proxy.cut()
    with pytest.raises(OutcomeUnknown):
        await append


async def settled(database: Database, lost: LogConnection) -> list[Row]:
    """What stands after position 1, found as a leader finds it: end the old backend, regain the lock, read."""
    assert await terminate_backend(database.service, lost.backend_pid)
    successor = await LogConnection.connect(database.service)
    assert await regained(successor)
    rows = await successor.read_after(1, 10)
    await successor.close()
    return rows


async def regained(connection: LogConnection) -> bool:
    async with asyncio.timeout(10):
        while not await connection.try_lock():
            await asyncio.sleep(0.01)
    return True


async def test_what_fails_in_the_commit_is_never_taken_for_appended(database: Database) -> None:
    leader = await an_open_log(database.service)
    with psycopg.connect(database.owner, autocommit=True) as owner:
        # The rows are there, and told, before a deferred trigger raises.
        owner.execute("CREATE FUNCTION berth.fails() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''full''; END'")
        owner.execute(
            "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON berth.events"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION berth.fails()"
        )
    with pytest.raises(OutcomeUnknown, match="full"):
        await leader.append(1, rows_after(1, 2))
    assert await leader.end() == 1
    await leader.close()


async def test_a_server_that_does_not_wait_for_the_disk_is_refused(database: Database) -> None:
    with psycopg.connect(database.owner, autocommit=True) as owner:
        name = Identifier(owner.info.dbname)
        owner.execute(SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    with pytest.raises(CommitsAreNotDurable):
        await LogConnection.connect(database.service)
