import asyncio
import contextlib
from collections.abc import Iterator

import msgspec
import psycopg
import pytest
from eventsourcing.application import LocalNotificationLog
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventlog.codec import Row, time_of
from eventlog.read import LogReader, OtherHistory, ends_early, is_cut, log_changes
from tests.conftest import Database
from tests.eventlog.rows import a_command_row, a_row, an_open_log, rows_after, the_first_row
from tests.losing import lose
from tests.proxy import Proxy


@pytest.fixture
def reader(database: Database) -> Iterator[LogReader]:
    reader = LogReader(database.service)
    yield reader
    reader.close()


async def test_the_library_reads_the_writers_rows(database: Database, reader: LogReader) -> None:
    leader = await an_open_log(database.service, rows_after(1, 24))
    section = LocalNotificationLog(reader.recorder, section_size=10)["11,20"]
    assert [item.id for item in section.items] == list(range(11, 21))
    assert section.next_id == "21,30"
    read = [Row(str(i.originator_id), i.originator_version, i.id, i.topic, i.state) for i in section.items]
    assert read == rows_after(10, 10)
    await leader.close()


async def test_the_librarys_subscription_is_woken_by_an_append(database: Database, reader: LogReader) -> None:
    leader = await an_open_log(database.service)
    with reader.recorder.subscribe(gt=1) as subscription:
        await leader.append(1, rows_after(1, 2))
        assert [(await asyncio.to_thread(next, subscription)).id for _ in range(2)] == [2, 3]
    await leader.close()


async def test_pages_follow_each_other(database: Database, reader: LogReader) -> None:
    assert (reader.end(), reader.page(0, 10)) == (0, [])
    leader = await an_open_log(database.service, rows_after(1, 6))
    assert reader.page(0, 3) == [the_first_row(), *rows_after(1, 2)]
    assert reader.page(3, 3) == rows_after(3, 3)
    assert reader.page(6, 3) == rows_after(6, 1)
    assert reader.page(7, 3) == []
    assert reader.end() == 7
    assert reader.row(5) == a_row(5)
    assert reader.row(8) is None
    await leader.close()


async def test_a_stream_is_read_by_itself(database: Database, reader: LogReader) -> None:
    other = [a_row(n, "host/r1-h2") for n in (2, 4, 6)]
    rows = sorted([*other, a_row(3), a_row(5), a_command_row(7, "k-1")], key=lambda row: row.position)
    leader = await an_open_log(database.service, rows)
    assert reader.stream("host/r1-h2") == other
    assert reader.stream("host/r1-h2", after=2) == other[1:]
    assert reader.stream("host/r1-h2", after=2, limit=1) == other[1:2]
    assert reader.stream("host/none") == []
    # A command's version is 1 for ever, and its position its own.
    assert reader.stream("command/ann/k-1") == [a_command_row(7, "k-1")]
    await leader.close()


async def test_existing_keys_and_the_last_of_what_has_ended_are_found_at_once(
    database: Database, reader: LogReader
) -> None:
    rows = [a_row(2), a_command_row(3, "k-1"), a_row(4), a_command_row(5, "k-2")]
    leader = await an_open_log(database.service, rows)
    asked = ["command/ann/k-1", "command/ann/none", "command/bob/k-1", "command/ann/k-2", "host/r1-h1"]
    assert reader.existing(asked) == {
        "command/ann/k-1": a_command_row(3, "k-1"),
        "command/ann/k-2": a_command_row(5, "k-2"),
        "host/r1-h1": a_row(4),
    }
    assert reader.existing([]) == {}
    await leader.close()


async def test_times_and_commands_have_their_ends(database: Database, reader: LogReader) -> None:
    lengths = (1, 1, 5, 1, 2, 3, 17, 1, 64, 1)  # events of each command, which share one time
    times = [10 * n + 1 for n, length in enumerate(lengths) for _ in range(length)]
    rows = [a_row(position, at=at) for position, at in enumerate(times, start=1)]
    leader = await an_open_log(database.service, rows[1:])
    for position, at in enumerate(times, start=1):
        assert reader.command_end(position) == len(times) - times[::-1].index(at)
    for at in range(times[-1] + 11):
        assert reader.position_at(at) == sum(time <= at for time in times)
    assert reader.command_end(0) == 0
    with pytest.raises(LookupError):
        reader.command_end(len(times) + 1)
    await leader.close()


def test_an_empty_log_has_no_position_at_any_time(reader: LogReader) -> None:
    assert reader.position_at(2**60) == 0


async def test_a_waiter_is_woken_by_every_append(database: Database) -> None:
    leader = await an_open_log(database.service)
    async with contextlib.aclosing(log_changes(database.service, wake_s=3600)) as changes, asyncio.timeout(20):
        await anext(changes)  # listening from here on
        for position in range(2, 7):
            await leader.append(position - 1, [a_row(position)])
            await anext(changes)
    await leader.close()


async def test_a_waiter_wakes_by_itself_when_nothing_happens(database: Database) -> None:
    async with contextlib.aclosing(log_changes(database.service, wake_s=0.01)) as changes, asyncio.timeout(20):
        for _ in range(3):
            await anext(changes)


async def test_a_waiter_outlives_its_connection(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        conninfo = make_conninfo(database.service, host="127.0.0.1", port=proxy.port)
        async with contextlib.aclosing(log_changes(conninfo)) as changes, asyncio.timeout(20):
            await anext(changes)
            proxy.refusing = True
            proxy.cut()
            for _ in range(3):
                await anext(changes)
            proxy.refusing = False
            while not await is_listening(database):
                await anext(changes)


async def is_listening(database: Database) -> bool:
    async with await psycopg.AsyncConnection.connect(database.owner) as connection:
        cursor = await connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return await cursor.fetchone() is not None


async def test_a_portion_is_bounded_in_bytes_both_ways(
    database: Database, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [msgspec.structs.replace(row, state=row.state + b" " * 1_000) for row in rows_after(1, 20)]
    leader = await an_open_log(database.service, rows)
    monkeypatch.setattr("eventlog.read.PORTION_BYTES_MAX", 5_000)
    for is_falling in (False, True):
        found: list[Row] = []
        low, high = 1, 21
        while low < high:
            portion = reader.portion(low, high, limit=100, is_falling=is_falling)
            assert 1 <= len(portion) <= 5
            assert is_cut(portion, limit=100) or portion[-1].position == (2 if is_falling else 21)
            found += portion
            low, high = (low, portion[-1].position - 1) if is_falling else (portion[-1].position, high)
        assert found == (rows[::-1] if is_falling else rows)
    await leader.close()


async def test_a_portion_has_the_rows_of_a_stream_or_topic_alone(database: Database, reader: LogReader) -> None:
    mixed = [a_row(n, "host/r1-h2" if n % 2 else "host/r1-h1") for n in range(2, 12)]
    leader = await an_open_log(database.service, mixed)
    odd = [row for row in mixed if row.position % 2]
    assert reader.portion(0, 100, limit=100, stream="host/r1-h2") == odd
    assert reader.portion(3, 9, limit=100, stream="host/r1-h2", is_falling=True) == odd[1:4][::-1]
    assert reader.portion(0, 100, limit=2, topic=mixed[0].topic) == mixed[:2]
    assert reader.portion(0, 100, limit=2, topic="none") == []
    await leader.close()


async def test_whoever_follows_a_log_learns_that_it_lost_what_was_read(database: Database, reader: LogReader) -> None:
    await (await an_open_log(database.service, rows_after(1, 4))).close()
    read = reader.page(0, 10)
    assert reader.follow(0, 0, 10) == read
    assert reader.follow(3, time_of(read[2]), 10) == read[3:]
    assert reader.follow(3, time_of(read[2]), 1) == read[3:4]
    assert reader.follow(5, time_of(read[4]), 10) == []
    lose(database.owner, after=4)
    with pytest.raises(OtherHistory):  # not one is more than there is
        reader.follow(5, time_of(read[4]), 10)
    with pytest.raises(OtherHistory):  # as many as before, but another
        reader.follow(4, time_of(read[3]) + 1, 10)
    assert reader.follow(4, time_of(read[3]), 10) == []


async def test_a_page_that_is_followed_is_bounded_in_bytes(
    database: Database, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [msgspec.structs.replace(row, state=row.state + b" " * 1_000) for row in rows_after(1, 20)]
    leader = await an_open_log(database.service, rows)
    monkeypatch.setattr("eventlog.read.PAGE_BYTES_MAX", 5_000)
    monkeypatch.setattr("eventlog.read.EVENT_BYTES_MAX", 1_200)
    found = [the_first_row()]
    while page := reader.follow(found[-1].position, time_of(found[-1]), 100):
        assert len(page) <= 5
        assert ends_early(page) or page[-1].position == 21
        found += page
    assert found[1:] == rows
    assert not ends_early([])
    await leader.close()
