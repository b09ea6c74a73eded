"""The relay's promise: a message's stream sequence is its event's position, whatever was killed, lost or restored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import nats.errors
import nats.js.errors
import pytest

from domain.command import CommandAccepted
from domain.recorded import LogOpened, Recorded
from eventlog import codec
from eventlog.append import LogConnection
from eventlog.codec import Row
from eventlog.components import Health
from eventlog.read import LogReader
from eventlog.tasks import end_tasks
from messaging import relay, subjects
from messaging.event_json import body, document, message
from messaging.relay import NotOurStream, Relay
from tests.conftest import Database
from tests.eventlog.rows import a_leader, a_row, an_open_log, rows_after
from tests.losing import lose
from tests.messaging.stage import NatsProcess, messages, until
from tests.projections.logs import write


def a_command(position: int, command: str) -> Row:
    accepted = CommandAccepted(id=f"c-{position}", command=command, role="operator", request={})
    return codec.encode(Recorded(f"command/ann/k-{position}", 1, position, position, "ann", f"c-{position}", accepted))


@asynccontextmanager
async def a_relay(nats_process: NatsProcess, reader: LogReader) -> AsyncIterator[Relay]:
    async with nats_process.user("relay") as client:
        yield Relay(client, reader)


@asynccontextmanager
async def relaying(nats_process: NatsProcess, reader: LogReader, conninfo: str) -> AsyncIterator["asyncio.Task[None]"]:
    """The whole process, in a task."""
    async with nats_process.user("relay") as client:
        task = asyncio.create_task(relay.run(client, reader, conninfo, health=Health("relay")))
        try:
            yield task
        finally:
            await end_tasks(task)


async def held(nats_process: NatsProcess, stream: str = subjects.EVENTS) -> list[bytes]:
    async with nats_process.user("reader") as client:
        return [found.data or b"" for found in await messages(client, stream)]


async def reaches(nats_process: NatsProcess, stream: str, position: int) -> None:
    """Wait until the stream's last message is `position` or later; the stream may not be there yet."""

    async def is_there() -> bool:
        with suppress(nats.errors.Error):
            return (await client.jetstream().stream_info(stream)).state.last_seq >= position
        return False

    async with nats_process.user("relay") as client:
        await until(is_there)


def test_an_event_is_shown_as_the_contract_says() -> None:
    row = a_command(7, "host.cordon")
    assert document(row) == {
        "position": 7,
        "stream": "command/ann/k-7",
        "version": 1,
        "topic": "command.accepted",
        "at": "1970-01-01T00:00:00.000007Z",
        "actor": "ann",
        "command": "c-7",
        "data": {
            "id": "c-7",
            "position": 7,
            "at": "1970-01-01T00:00:00.000007Z",
            "actor": "ann",
            "role": "operator",
            "token": "ann",
            "source": None,
            "command": "host.cordon",
            "resource": None,
            "reason": None,
            "request": {},
            "outcome": "accepted",
            "problem": None,
            "positions": [],
        },
    }
    data, headers = message(row, log="5f0c")
    assert data == body(row)
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "5f0c",
        "ce-type": "command.accepted",
        "ce-subject": "command/ann/k-7",
        "ce-time": "1970-01-01T00:00:00.000007Z",
        "Nats-Msg-Id": "5f0c:7",
    }


def test_an_event_has_a_subject_of_its_kind_and_a_command_one_of_its_own() -> None:
    assert subjects.of_event(a_row(2)) == "berth.events.host.cordoned"
    assert subjects.of_event(a_command(2, "vm.provision")) == "berth.events.command.accepted.vm.provision"


async def test_every_event_stands_at_its_position(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    rows = [*rows_after(1, 1200), a_command(1202, "vm.provision")]
    await (await an_open_log(database.service, rows)).close()
    async with a_relay(nats_process, reader) as relayed:
        await relayed.open()
        assert await relayed.catch_up() == 1202
        assert await relayed.catch_up() == 0
    assert await held(nats_process) == [body(row) for row in reader.page(0, 2000)]


async def test_each_event_of_a_page_has_its_headers_and_subject(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, [*rows_after(1, 3), a_command(5, "vm.provision")])).close()
    async with a_relay(nats_process, reader) as relayed:
        await relayed.open()
        await relayed.catch_up()
    rows = reader.page(0, 10)
    async with nats_process.user("reader") as client:
        found = await messages(client, subjects.EVENTS)
    assert [one.subject for one in found] == [subjects.of_event(row) for row in rows]
    assert [one.headers for one in found] == [
        {**message(row, log="5f0c")[1], "Nats-Expected-Last-Sequence": str(row.position - 1)} for row in rows
    ]


async def test_the_audit_is_the_commands_in_order(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    rows = [a_command(n, "vm.provision") if n % 3 == 0 else a_row(n) for n in range(2, 302)]
    await (await an_open_log(database.service, rows)).close()
    async with a_relay(nats_process, reader) as relayed:
        await relayed.open()
        await relayed.catch_up()
    await reaches(nats_process, subjects.AUDIT, 100)
    async with nats_process.user("reader") as client:
        audit = await messages(client, subjects.AUDIT)
    assert [found.data for found in audit] == [body(row) for row in rows if row.topic == "command.accepted"]
    assert {found.subject for found in audit} == {"berth.audit.accepted.vm.provision"}


async def test_a_relay_killed_in_mid_chain_is_healed_by_the_next(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, rows_after(1, 20))).close()
    async with nats_process.user("relay") as client:
        await Relay(client, reader).open()
        # Two thirds of a chain, with a message that was lost on its way: what follows it is refused.
        for row in [row for row in reader.page(0, 13) if row.position != 8]:
            data, headers = message(row, log="5f0c")
            headers[relay.EXPECTED] = str(row.position - 1)
            await client.publish(subjects.of_event(row), data, headers=headers)
        # Asked for an acknowledgement, the server has taken or refused all that came before.
        with pytest.raises(nats.js.errors.APIError, match="wrong last sequence"):
            await client.jetstream().publish("berth.events.host.cordoned", b"{}", headers={relay.EXPECTED: "13"})
        assert (await client.jetstream().stream_info(subjects.EVENTS)).state.last_seq == 7
    async with a_relay(nats_process, reader) as relayed:
        await relayed.open()
        assert await relayed.catch_up() == 14
    assert await held(nats_process) == [body(row) for row in reader.page(0, 100)]


async def test_two_relays_at_once_still_give_each_event_its_position(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    leader = await an_open_log(database.service)
    async with (
        relaying(nats_process, reader, database.service),
        relaying(nats_process, reader, database.service),
    ):
        for base in range(1, 1000, 50):
            await leader.append(base, rows_after(base, 50))
        await reaches(nats_process, subjects.EVENTS, 1001)
    await leader.close()
    assert await held(nats_process) == [body(row) for row in reader.page(0, 2000)]


async def test_a_relay_that_slept_while_another_went_on_publishes_nothing_twice(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, rows_after(1, 20))).close()
    async with a_relay(nats_process, reader) as slept, a_relay(nats_process, reader) as awake:
        await slept.open()
        await awake.open()
        await awake.catch_up()
        await asyncio.sleep(relay.DUPLICATES_S + 0.5)  # so that the server has forgotten the messages' ids
        with pytest.raises(nats.errors.Error, match="wrong last sequence"):
            await slept.catch_up()
        await slept.open()
        assert await slept.catch_up() == 0
    assert await held(nats_process) == [body(row) for row in reader.page(0, 100)]


async def test_a_server_killed_again_and_again_loses_and_doubles_nothing(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    leader = await an_open_log(database.service)
    async with relaying(nats_process, reader, database.service) as task:
        end = 1
        for _ in range(4):
            await leader.append(end, rows_after(end, 3000))
            end += 3000
            reached = end - 2500
            await reaches(nats_process, subjects.EVENTS, reached)
            nats_process.kill()
            nats_process.start()
        await reaches(nats_process, subjects.EVENTS, end)
        assert not task.done()
    await leader.close()
    assert await held(nats_process) == [body(row) for row in reader.page(0, 20_000)]


async def test_a_wiped_nats_is_filled_again(database: Database, reader: LogReader, nats_process: NatsProcess) -> None:
    leader = await an_open_log(database.service, [a_command(n, "host.cordon") for n in range(2, 102)])
    async with relaying(nats_process, reader, database.service):
        await reaches(nats_process, subjects.AUDIT, 100)
        nats_process.wipe()  # while the log is quiet
        await reaches(nats_process, subjects.AUDIT, 100)
    await leader.close()
    assert await held(nats_process) == [body(row) for row in reader.page(0, 200)]


async def test_the_audit_alone_is_made_again_when_it_is_gone(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    leader = await an_open_log(database.service, [a_command(n, "host.cordon") for n in range(2, 102)])
    async with relaying(nats_process, reader, database.service):
        await reaches(nats_process, subjects.AUDIT, 100)
        async with nats_process.user("relay") as client:
            await client.jetstream().delete_stream(subjects.AUDIT)
        await reaches(nats_process, subjects.AUDIT, 100)
    await leader.close()


async def test_a_stream_ahead_of_the_log_stops_the_relay(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, rows_after(1, 4))).close()
    async with nats_process.user("relay") as client:
        await relay.make_streams(client.jetstream())
        for row in [*reader.page(0, 10), a_row(6)]:
            data, headers = message(row, log="5f0c")
            await client.jetstream().publish(subjects.of_event(row), data, headers=headers)
        with pytest.raises(NotOurStream, match=r"holds 6 events, more than the log.*relay rebuild"):
            await Relay(client, reader).open()


@pytest.mark.parametrize(
    ("log", "command"), [pytest.param("another", "c-1", id="another log"), pytest.param("5f0c", "c-2", id="restored")]
)
async def test_a_stream_of_another_history_stops_the_relay(
    database: Database, reader: LogReader, nats_process: NatsProcess, log: str, command: str
) -> None:
    await (await an_open_log(database.service, rows_after(1, 4))).close()
    other = codec.encode(Recorded("log", 1, 1, 1, "berth", command, LogOpened(log)))
    async with nats_process.user("relay") as client:
        await relay.make_streams(client.jetstream())
        data, headers = message(other, log=log)
        await client.jetstream().publish(subjects.of_event(other), data, headers=headers)
        with pytest.raises(NotOurStream, match=r"holds another event at 1 .*relay rebuild"):
            await Relay(client, reader).open()
        async with relaying(nats_process, reader, database.service) as task:
            await asyncio.sleep(0.5)
            assert not task.done()
            assert await held(nats_process) == [body(other)]
            await relay.rebuild(client)
            await reaches(nats_process, subjects.EVENTS, 5)
    assert await held(nats_process) == [body(row) for row in reader.page(0, 10)]


async def test_a_stream_made_anew_is_filled_from_the_log(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, rows_after(1, 4))).close()
    async with nats_process.user("relay") as client:
        await relay.make_streams(client.jetstream())
        await client.jetstream().publish("berth.events.host.cordoned", b"{}")
        await relay.rebuild(client)
        relayed = Relay(client, reader)
        await relayed.open()
        assert await relayed.catch_up() == 5
    assert await held(nats_process) == [body(row) for row in reader.page(0, 10)]


async def test_a_stream_can_be_made_to_begin_late(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    await (await an_open_log(database.service, rows_after(1, 9))).close()
    async with nats_process.user("relay") as client:
        await relay.rebuild(client, first=7)
        relayed = Relay(client, reader)
        await relayed.open()
        assert await relayed.catch_up() == 4
        assert [msgspec.json.decode(data)["position"] for data in await held(nats_process)] == [7, 8, 9, 10]


async def test_an_empty_log_is_waited_for(database: Database, reader: LogReader, nats_process: NatsProcess) -> None:
    leader = await a_leader(database.service)
    async with relaying(nats_process, reader, database.service):
        await reaches(nats_process, subjects.AUDIT, 0)
        await _open(leader)
        await reaches(nats_process, subjects.EVENTS, 1)
    async with nats_process.user("reader") as client:
        (first,) = await messages(client, subjects.EVENTS)
    assert (first.headers or {})["ce-source"] == "5f0c"
    await leader.close()


async def _open(leader: LogConnection) -> None:
    await leader.append(0, [codec.encode(Recorded("log", 1, 1, 1, "berth", "c-1", LogOpened("5f0c")))])


@pytest.mark.parametrize("goes_on", [False, True], ids=["lost its end", "written on"])
async def test_a_log_that_lost_its_end_while_it_is_relayed_stops_the_relay(
    database: Database, reader: LogReader, nats_process: NatsProcess, goes_on: bool
) -> None:
    await (await an_open_log(database.service, rows_after(1, 4))).close()
    async with nats_process.user("relay") as client:
        health = Health("relay")
        task = asyncio.create_task(relay.run(client, reader, database.service, health=health))
        await reaches(nats_process, subjects.EVENTS, 5)
        await until(lambda: health.state == "ok")
        before = await held(nats_process)
        lose(database.owner, after=4)
        if goes_on:  # the same positions, other commands
            write(database.service, [a_row(n, at=n + 100) for n in range(5, 9)])
        await until(lambda: health.state == "stopped")
        assert "relay rebuild" in health.reason
        assert await held(nats_process) == before
        await relay.rebuild(client)
        await until(lambda: health.state == "ok")
        await end_tasks(task)
    assert await held(nats_process) == [body(row) for row in reader.page(0, 100)]


async def test_a_nats_without_room_is_told_and_filled_when_there_is_room_again(
    database: Database, reader: LogReader, nats_process: NatsProcess
) -> None:
    leader = await an_open_log(database.service)
    nats_process.kill()
    nats_process.give_room(128 * 1024)
    async with nats_process.user("relay") as client:
        health = Health("relay")
        task = asyncio.create_task(relay.run(client, reader, database.service, health=health))
        await until(lambda: health.state == "ok")
        await leader.append(1, [a_command(n, "host.cordon") for n in range(2, 2002)])
        await until(lambda: health.state == "troubled" and "NATS" in health.reason)
        nats_process.kill()
        nats_process.give_room(None)
        await reaches(nats_process, subjects.EVENTS, 2001)
        await reaches(nats_process, subjects.AUDIT, 2000)
        await until(lambda: health.state == "ok")
        await end_tasks(task)
    await leader.close()
    assert await held(nats_process) == [body(row) for row in reader.page(0, 3000)]
