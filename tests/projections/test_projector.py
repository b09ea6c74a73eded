"""A read model is a cache: exactly once, however it is interrupted; wiped or redefined, it comes back the same."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from commands.writer import ids
from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.host import KIND as HOST
from domain.recorded import Recorded
from domain.tenant import TenantCreated
from domain.values import name_of
from eventlog import checkpoints
from eventlog.checkpoints import Checkpointer
from eventlog.codec import Row, UnknownTopic, decode, encode
from eventlog.components import Health
from eventlog.read import LogReader
from eventlog.tasks import end_tasks
from projections import projector as projecting
from projections import schema
from projections.definitions import SCHEMA
from projections.differences import Ledger, differences
from projections.projector import Displaced, Projector, catch_up, run, standing
from projections.queries import ReadModel
from projections.tables import CHANGING, audit
from tests.checkpointing import MARK, marked
from tests.deciding import Site
from tests.losing import lose
from tests.projections.logs import a_site, live, write

OTHER = "read_0123456789abcdef"


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=5, commands=400)
    return site


@pytest.fixture
def reader(database: Any) -> Iterator[LogReader]:
    reader = LogReader(database.service)
    yield reader
    reader.close()


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projecting, "PAGE_EVENTS", 50)


def contents(conninfo: str, in_schema: str = SCHEMA) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    with psycopg.connect(conninfo, row_factory=dict_row) as connection:
        connection.execute(schema.USE, (in_schema,))
        return {
            table.name: connection.execute(SQL("SELECT * FROM {} ORDER BY 1").format(Identifier(table.name))).fetchall()
            for table in (*CHANGING.values(), audit)
        }


def schemas(conninfo: str) -> list[str]:
    with psycopg.connect(conninfo) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'read_') ORDER BY 1")
        return [row[0] for row in found]


def test_a_read_model_shows_what_the_fold_says(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    assert catch_up(database.service, reader) == site.fleet.position
    assert differences(database.service, site.fleet) == []
    assert standing(database.service) == (site.fleet.position, site.fleet.at)


def test_pages_that_end_early_for_their_bytes_cut_no_command_in_two(
    database: Any, reader: LogReader, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(len(row.state) for row in site.rows)
    monkeypatch.setattr("eventlog.read.EVENT_BYTES_MAX", largest)
    monkeypatch.setattr("eventlog.read.PAGE_BYTES_MAX", largest + 1_500)
    write(database.service, site.rows)
    assert catch_up(database.service, reader) == site.fleet.position
    assert differences(database.service, site.fleet) == []


def test_a_change_behind_its_back_is_found(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    catch_up(database.service, reader)
    host = next(map(name_of, site.fleet.streams(HOST)))
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        connection.execute("DELETE FROM hosts WHERE key = %s", (host,))
        connection.execute("""UPDATE racks SET document = '{"name":"r1"}' WHERE key = 'r1'""")
    found = differences(database.service, site.fleet)
    assert len(found) == 2
    assert found[0].startswith("rack/r1 is shown as")
    assert found[1].startswith(f"host/{host} is shown as None")


BEHIND_ITS_BACK = {
    "UPDATE audit SET document = replace(document::text, 'ann', 'eve')::json WHERE position = 4": "audit's entry",
    "DELETE FROM audit WHERE position = 4": "audit's entry at position 4 is not shown",
    "INSERT INTO audit SELECT 2, at, id, actor, resource, command, outcome, owner, reason, document FROM audit"
    " WHERE position = 4": "audit's entry at position 2 is shown as",
    "UPDATE audit SET actor = 'eve' WHERE position = 4": "audit's entry at position 4 is shown as",
    "UPDATE operations SET state = 'failed', kind = 'x' WHERE state = 'succeeded'": "operation/",
    "DELETE FROM operations WHERE state = 'failed'": "is not shown",
    "UPDATE hosts SET used = '{}' WHERE used::text <> '{}'": "'s used is shown as {}",
    "UPDATE sums SET document = replace(document::text, 'cpu', 'gpu')::json WHERE level = 'dc'": "the sum dc/",
    "UPDATE sums SET rack = 'r9' WHERE rack IS NOT NULL": "the sum rack/",
    "DELETE FROM sums": "is not shown",
    "UPDATE vms SET host = 'elsewhere' WHERE host IS NOT NULL": "'s host is shown as elsewhere",
    "UPDATE vms SET sets = '{x}'": "'s sets is shown as x",
    "UPDATE tokens SET hash = 'x'": "'s hash is shown as x",
}


@pytest.mark.parametrize("change", BEHIND_ITS_BACK)
def test_no_column_and_no_ledger_is_changed_unseen(database: Any, reader: LogReader, site: Site, change: str) -> None:
    write(database.service, site.rows)
    catch_up(database.service, reader)
    fleet, ledger = Fleet(), Ledger()
    for row in site.rows:
        recorded = decode(row)
        ledger.note(recorded, fleet.fold(recorded), fleet)
    assert differences(database.service, fleet, ledger=ledger) == []
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        assert connection.execute(change.encode()).rowcount > 0
    found = differences(database.service, fleet, ledger=ledger)
    assert found
    assert all(BEHIND_ITS_BACK[change] in sentence for sentence in found), found


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_killed_between_pages_it_is_what_it_is_undisturbed(
    database: Any, reader: LogReader, site: Site, pages: int
) -> None:
    write(database.service, site.rows)
    while standing(database.service)[0] < site.fleet.position:
        projector = Projector(database.service, reader)  # a new process: nothing is remembered but the tables
        projector.open()
        projector.catch_up(pages_max=pages)
        projector.close()
    catch_up(database.service, reader, in_schema=OTHER)
    assert contents(database.service) == contents(database.service, OTHER)


def test_it_stands_at_ends_of_commands_alone(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    ends = {row.position for row in site.rows if row.topic.startswith("command.") or row.topic == "log.opened"}
    projector = Projector(database.service, reader)
    projector.open()
    seen = set()
    while projector.position < site.fleet.position:
        projector.catch_up(pages_max=1)
        seen.add(standing(database.service)[0])
    projector.close()
    assert len(seen) > 10
    assert seen <= ends


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_connection_lost_in_a_commit_leaves_neither_gap_nor_double(
    database: Any, reader: LogReader, site: Site, is_committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(database.service, site.rows)
    projector = Projector(database.service, reader)
    projector.open()
    projector.catch_up(pages_max=3)
    write_page = projector._write

    def cut() -> None:
        if is_committed:
            unwritten = projector._unwritten
            write_page()
            projector._unwritten = unwritten
        raise psycopg.OperationalError("cut")

    with monkeypatch.context() as patched:
        patched.setattr(projector, "_write", cut)
        with pytest.raises(psycopg.OperationalError):
            projector.catch_up()
    projector.open()
    projector.catch_up()
    projector.close()
    assert differences(database.service, site.fleet) == []
    assert len(contents(database.service)["audit"]) == sum(row.topic.startswith("command.") for row in site.rows)


def test_killed_between_its_rows_and_its_position_it_leaves_neither(
    database: Any, reader: LogReader, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(database.service, site.rows)
    projector = Projector(database.service, reader)
    projector.open()
    projector.catch_up(pages_max=3)
    before = contents(database.service)
    with monkeypatch.context() as patched:
        # In the place of the position comes the end of the connection, when all rows are written.
        end = "SELECT pg_terminate_backend(pg_backend_pid()), %b::text, %b::bigint, %b::bigint, %b::bigint, %b::text"
        patched.setattr(projecting, "_ADVANCE", end + ", %b::text")
        with pytest.raises(psycopg.OperationalError):
            projector.catch_up()
    assert contents(database.service) == before
    projector.open()
    projector.catch_up()
    projector.close()
    assert differences(database.service, site.fleet) == []


def test_tables_that_another_has_moved_on_are_left_as_they_are(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    late = Projector(database.service, reader)
    late.open()
    late.catch_up(pages_max=3)
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        connection.execute("UPDATE progress SET position = %s", (site.fleet.position,))
    before = contents(database.service)
    with pytest.raises(Displaced):
        late.catch_up(pages_max=1)
    late.close()
    assert contents(database.service) == before
    assert standing(database.service)[0] == site.fleet.position


@pytest.mark.parametrize("wipe", ["DROP SCHEMA {} CASCADE", "DELETE FROM {}.progress", "DROP TABLE {}.progress"])
def test_wiped_it_comes_back(database: Any, reader: LogReader, site: Site, wipe: str) -> None:
    write(database.service, site.rows)
    projector = Projector(database.service, reader)
    projector.open()
    projector.catch_up()
    before = contents(database.service)
    with psycopg.connect(database.service) as connection:
        connection.execute(SQL(wipe).format(Identifier(SCHEMA)))
    with pytest.raises((psycopg.Error, Displaced)):
        projector.catch_up()
    projector.open()
    projector.catch_up()
    projector.close()
    assert contents(database.service) == before


def test_tables_of_another_log_are_built_anew(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    catch_up(database.service, reader)
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        connection.execute("UPDATE progress SET log = 'another'")
        connection.execute("DELETE FROM vms")
    catch_up(database.service, reader)
    assert differences(database.service, site.fleet) == []


def test_a_page_that_was_read_ahead_is_dropped_when_the_log_is_replaced(
    database: Any, reader: LogReader, site: Site
) -> None:
    """A restored log that has gone on otherwise: up to the tables' position both are the same."""
    write(database.service, site.rows)
    projector = Projector(database.service, reader)
    projector.open()
    projector.catch_up(pages_max=1)
    position = projector.position
    with psycopg.connect(database.owner) as owner:
        owner.execute("ALTER TABLE berth.events DISABLE TRIGGER events_are_final")
        owner.execute("DELETE FROM berth.events WHERE notification_id > %s", (position,))
    at = projector.fleet.at + 1
    created = TenantCreated(ids.uuid7(), "other-way")
    event = Recorded("tenant/other-way", position + 1, position + 1, at, "berth", ids.uuid7(), created)
    write(database.service, [encode(event)])
    projector.open()
    projector.catch_up()
    projector.close()
    shown = [row["key"] for row in contents(database.service)["tenants"]]
    assert "other-way" in shown
    assert projector.position == position + 1


def test_two_at_once_break_nothing(database: Any, reader: LogReader, site: Site) -> None:
    half = next(n for n in range(len(site.rows) // 2, len(site.rows)) if site.rows[n - 1].topic.startswith("command."))
    write(database.service, site.rows[:half])
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                catch_up(database.service, reader)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    write(database.service, site.rows[half:])
    for thread in threads:
        thread.join()
    assert failures == []
    catch_up(database.service, reader)
    assert differences(database.service, site.fleet) == []


def folded(site: Site, position: int) -> Fleet:
    fleet = Fleet()
    for row in site.rows[:position]:
        fleet.fold(decode(row))
    return fleet


def ends(site: Site) -> list[int]:
    return [row.position for row in site.rows if row.topic.startswith("command.")]


def test_it_writes_checkpoints_of_the_fleet_at_ends_of_commands(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    checkpointer = Checkpointer(database.service, events_between=100)
    projector = Projector(database.service, reader, checkpointer=checkpointer)
    projector.open()
    projector.catch_up()
    projector.close()
    checkpointer.settle()
    heads = checkpoints.kept(database.service)
    assert heads
    for head in heads:
        assert head.position in ends(site)
        assert checkpoints.differences(database.service, head, folded(site, head.position)) == []
    catch_up(database.service, reader, in_schema=OTHER)  # one that was given no checkpointer writes none
    assert checkpoints.kept(database.service) == heads


def test_it_goes_on_from_the_last_checkpoint_before_its_tables(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    until, before, after = (ends(site)[n] for n in (200, 150, 250))
    catch_up(database.service, reader, until=until)
    expected = contents(database.service)
    checkpoints.write(database.service, marked(folded(site, before)))
    checkpoints.write(database.service, marked(folded(site, after)))
    projector = Projector(database.service, reader)
    projector.open()
    assert projector.position == until
    standing = dict(projector.fleet.entries())
    assert standing == {**dict(folded(site, until).entries()), MARK: standing[MARK]}
    assert contents(database.service) == expected
    del projector.fleet.living["tenant"][MARK]
    projector.catch_up()
    assert differences(database.service, projector.fleet) == []
    projector.close()
    assert contents(database.service)["audit"][-1]["position"] == site.fleet.position


def test_a_new_read_model_is_folded_from_the_beginning(database: Any, reader: LogReader, site: Site) -> None:
    """Its ledgers must hold all that ever was."""
    write(database.service, site.rows)
    checkpoints.write(database.service, marked(folded(site, ends(site)[200])))
    projector = Projector(database.service, reader)
    projector.open()
    projector.catch_up()
    ledger, fleet = Ledger(), Fleet()
    for row in site.rows:
        recorded = decode(row)
        ledger.note(recorded, fleet.fold(recorded), fleet)
    assert differences(database.service, fleet, ledger=ledger) == []
    projector.close()


def test_a_checkpoint_of_a_longer_log_is_dropped_with_its_tables(database: Any, reader: LogReader, site: Site) -> None:
    """A backup from before was restored: neither counts."""
    end = ends(site)[200]
    write(database.service, site.rows[:end])
    catch_up(database.service, reader)
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        connection.execute("UPDATE progress SET position = %s", (ends(site)[300],))
    checkpoints.write(database.service, marked(folded(site, ends(site)[250])))
    assert catch_up(database.service, reader) == end
    assert differences(database.service, folded(site, end)) == []


def test_an_unknown_topic_stops_it(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    end = site.rows[-1]
    write(database.service, [Row("vm/acme/x", end.position + 1, end.position + 1, "vm.beamed", end.state)])
    with pytest.raises(UnknownTopic, match=r"vm\.beamed"):
        catch_up(database.service, reader)
    assert standing(database.service)[0] < end.position + 1


async def test_an_unknown_topic_is_told_before_the_process_ends(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, [Row("vm/acme/x", 1, 1, "vm.beamed", site.rows[0].state)])
    health = Health("projector")
    with pytest.raises(UnknownTopic):
        await run(database.service, reader, health=health)
    assert health.state == "stopped"
    assert "vm.beamed" in health.reason


async def test_a_new_definition_takes_over_and_the_old_one_stays_while_it_is_read(
    database: Any, reader: LogReader, site: Site
) -> None:
    write(database.service, site.rows)
    catch_up(database.service, reader, in_schema=OTHER)
    async with ReadModel(database.service, in_schema=OTHER) as old:
        await old.wait_for(site.fleet.position)
        catch_up(database.service, reader)
        assert schemas(database.service) == sorted([OTHER, SCHEMA])
        assert await old.one("tenant", "acme") is not None
    projector = Projector(database.service, reader)
    projector.open()
    projector._is_complete = False
    projector.complete()
    projector.close()
    assert schemas(database.service) == [SCHEMA]


async def test_one_that_is_being_built_is_not_read(database: Any, reader: LogReader, site: Site) -> None:
    write(database.service, site.rows)
    async with ReadModel(database.service) as model:
        with pytest.raises(Unavailable):
            await model.list_("host")
        projector = Projector(database.service, reader)
        projector.open()
        projector.catch_up(pages_max=2)
        with pytest.raises(Unavailable):
            await model.list_("host")
        with pytest.raises(Unavailable):
            await model.wait_for(1, timeout_s=0.05)
        projector.catch_up()
        projector.complete()
        projector.close()
        await model.wait_for(site.fleet.position)
        assert (await model.list_("host"))["position"] == site.fleet.position


async def test_a_read_waits_for_what_was_just_written(database: Any, reader: LogReader) -> None:
    site = a_site()
    write(database.service, site.rows)
    running = asyncio.create_task(run(database.service, reader, health=Health("projector")))
    try:
        async with ReadModel(database.service) as model:
            await model.wait_for(site.fleet.position, timeout_s=20)
            written = len(site.rows)
            for n in range(20):
                answer = site.given("vm.provision", tenant="acme", name=f"w{n}", group="std", resources={"cpu": 1})
                await asyncio.to_thread(write, database.service, site.rows[written:])
                written = len(site.rows)
                await model.wait_for(answer.position)
                assert await model.one("vm", "acme", f"w{n}") is not None
            with psycopg.connect(database.service) as connection:
                connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(SCHEMA)))

            async def is_back() -> bool:
                try:
                    return await model.one("vm", "acme", "w0") is not None
                except Unavailable:
                    return False

            async with asyncio.timeout(20):
                while not await is_back():
                    await asyncio.to_thread(threading.Event().wait, 0.02)
    finally:
        await end_tasks(running)


@pytest.mark.parametrize("new", [0, 1, 5], ids=["lost its end", "the same end again", "went on"])
async def test_a_log_that_lost_its_end_is_shown_as_it_is_now(
    database: Any, reader: LogReader, site: Site, new: int
) -> None:
    """Whoever projects was at the end: what it shows there is not the log's any more, and nobody tells it."""
    write(database.service, site.rows)
    health = Health("projector")
    running = asyncio.create_task(run(database.service, reader, health=health))
    async with ReadModel(database.service) as model:
        await model.wait_for(site.fleet.position, timeout_s=60)
        ends = [row.position for row in site.rows if row.topic.startswith("command.")]
        kept = site.rows[: ends[-2]]
        fleet = Fleet()
        for row in kept:
            fleet.fold(decode(row))
        lose(database.owner, after=ends[-2])
        for n in range(1, new * (ends[-1] - ends[-2]) + 1):  # one event a command, up to the same end or beyond it
            event = Recorded(
                f"tenant/new-{n}",
                ends[-2] + n,
                ends[-2] + n,
                site.fleet.at + n,
                "ann",
                f"c-{n}",
                TenantCreated(f"u-{n}", f"new-{n}"),
            )
            fleet.fold(event)
            kept = [*kept, encode(event)]
        write(database.service, kept[ends[-2] :])
        while (*standing(database.service), health.state) != (fleet.position, fleet.at, "ok"):
            assert not running.done()
            await asyncio.sleep(0.05)
        assert differences(database.service, fleet) == []
        await model.wait_for(fleet.position)
    await end_tasks(running)
