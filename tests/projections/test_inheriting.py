"""A read model of new definitions takes from an older one what is defined the same, and is as if all were folded."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from domain.fleet import Fleet
from eventlog.codec import decode
from eventlog.read import LogReader
from projections import inheriting, schema
from projections.definitions import DEFINITIONS, SCHEMA, SCHEMA_PREFIX
from projections.differences import Ledger, differences
from projections.projector import Projector, catch_up, standing
from projections.tables import CHANGING
from tests.deciding import Site
from tests.projections.logs import a_site, live, write

LATER = SCHEMA_PREFIX + "of_a_later_version"
OF_OURS = frozenset({"sums", "broken_rules"})  # made of the fleet each time


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=5, commands=250)
    return site


@pytest.fixture
def reader(database: Any) -> Iterator[LogReader]:
    reader = LogReader(database.service)
    yield reader
    reader.close()


@pytest.fixture
def older(database: Any, site: Site, reader: LogReader) -> int:
    """A complete read model of today, up to some command; answers its position."""
    write(database.service, site.rows)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    catch_up(database.service, reader, until=ends[150])
    return ends[150]


def with_another_definition_of(*names: str) -> Any:
    """As in a later version, where these tables are defined otherwise."""
    later = DEFINITIONS | {name: f"{name} of a later version" for name in names}
    return mock.patch.multiple(inheriting, DEFINITIONS=later), mock.patch.multiple(schema, DEFINITIONS=later)


def project_later(database: Any, reader: LogReader, *changed: str) -> None:
    of_tables, of_schema = with_another_definition_of(*changed)
    with of_tables, of_schema:
        catch_up(database.service, reader, in_schema=LATER)


def mark(database: Any, name: str) -> None:
    """Words in an older table that no log says, by which they are known again."""
    statement = SQL("UPDATE {} SET document = '{{\"marked\": true}}'").format(Identifier(SCHEMA, table_of(name)))
    with psycopg.connect(database.service) as connection:
        assert connection.execute(statement).rowcount > 0


def is_marked(database: Any, name: str) -> bool:
    statement = SQL("SELECT count(*) FROM {} WHERE document ->> 'marked' = 'true'").format(
        Identifier(LATER, table_of(name))
    )
    with psycopg.connect(database.service) as connection:
        return bool(connection.execute(statement).fetchall()[0][0])


def table_of(name: str) -> str:
    return CHANGING[name].name if name in CHANGING else name


@pytest.mark.parametrize("changed", [name for name in DEFINITIONS if name not in OF_OURS | {"progress"}])
def test_it_is_as_if_all_had_been_folded(
    database: Any, site: Site, reader: LogReader, older: int, changed: str
) -> None:
    project_later(database, reader, changed)
    fleet, ledger = Fleet(), Ledger()
    for row in site.rows:
        recorded = decode(row)
        ledger.note(recorded, fleet.fold(recorded), fleet)
    assert differences(database.service, fleet, ledger=ledger, in_schema=LATER) == []


def test_what_is_defined_the_same_is_copied_and_the_rest_is_not(database: Any, reader: LogReader, older: int) -> None:
    for name in ("rack", "host", "audit"):
        mark(database, name)
    project_later(database, reader, "host")
    assert [is_marked(database, name) for name in ("rack", "host", "audit")] == [True, False, True]


def test_the_older_one_stays_as_it_is_for_those_who_read_it(database: Any, reader: LogReader, older: int) -> None:
    project_later(database, reader, "host")
    assert standing(database.service)[0] == older


def test_nothing_is_taken_from_one_of_another_history(database: Any, site: Site, reader: LogReader, older: int) -> None:
    mark(database, "rack")
    with psycopg.connect(database.service) as connection:
        connection.execute(SQL("UPDATE {} SET at = at - 1").format(Identifier(SCHEMA, "progress")))
    project_later(database, reader, "host")
    assert not is_marked(database, "rack")
    assert standing(database.service, in_schema=LATER)[0] == site.fleet.position


def test_nothing_is_taken_from_one_that_has_not_caught_up(
    database: Any, site: Site, reader: LogReader, older: int
) -> None:
    mark(database, "rack")
    with psycopg.connect(database.service) as connection:
        connection.execute(SQL("UPDATE {} SET is_complete = false").format(Identifier(SCHEMA, "progress")))
    project_later(database, reader, "host")
    assert not is_marked(database, "rack")


def test_killed_in_the_midst_of_it_nothing_stands_and_it_begins_again(
    database: Any, site: Site, reader: LogReader, older: int
) -> None:
    of_tables, of_schema = with_another_definition_of("host")
    whole = inheriting.changes.insert

    def cut(cursor: Any, name: str, made: Any) -> None:
        whole(cursor, name, made)
        cursor.connection.close()

    with of_tables, of_schema:
        projector = Projector(database.service, reader, in_schema=LATER)
        with mock.patch.object(inheriting.changes, "insert", cut), pytest.raises(psycopg.OperationalError):
            projector.open()
        assert standing(database.service, in_schema=LATER) == (0, 0)
        projector.open()
        assert projector.position == older
        projector.close()
