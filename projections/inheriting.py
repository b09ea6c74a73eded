"""A read model of new definitions, made of one of others: tables that are defined the same are copied as they stand,
the rest is made anew, and all of them stand at one position.

    another schema at its position ──┬── tables of the same definition ──────────────────► copied
                                     ├── the fleet there ── its rows ────────────────────┐
                                     └── the events up to there of what is over, if ──► tables that changed
                                         its rows are kept

It is one transaction: if it is killed in the midst of it nothing stands, and it begins again.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg import IsolationLevel
from psycopg.sql import SQL, Identifier
from psycopg.types.numeric import Int8BinaryDumper

from domain import command
from domain.fleet import Fleet
from domain.kind import Kind
from domain.kinds import BY_NAME
from domain.tenant import KIND as TENANT
from eventlog.of_kind import entries_of_kind, recorded_of, topics_of
from projections import changes, rows, schema
from projections.broken import Broken
from projections.definitions import DEFINITIONS
from projections.ledger import audit_row
from projections.sums import Sums
from projections.tables import CHANGING, audit

ROWS_AT_ONCE = 5_000
# Sums and broken rules are made of the fleet at every start: to make their rows costs less than to compare them.
ALWAYS_MADE = frozenset({"sums", "broken_rules", "progress"})

Connection = psycopg.Connection[Any]
TableRow = dict[str, Any]

log = structlog.get_logger()


class Standing(msgspec.Struct, frozen=True):
    """A complete read model: where it stands, and how each of its tables is defined."""

    schema: str
    log: str
    position: int
    at: int
    definitions: dict[str, str]

    @property
    def same(self) -> frozenset[str]:
        """What need not be made anew: kinds, and other tables' names."""
        found = {name for name, definition in DEFINITIONS.items() if self.definitions.get(name) == definition}
        return frozenset(found) - ALWAYS_MADE


def best(connection: Connection, *, but: str) -> Standing | None:
    """Of the complete read models of other definitions the one from which most can be taken, the newest of these; None
    if there is none from which anything can."""
    names = schema.others(connection, but=but)
    found = [standing for name in names if (standing := _standing(connection, name)) is not None]
    chosen = max(found, key=lambda standing: (len(standing.same), standing.position), default=None)
    return chosen if chosen is not None and chosen.same else None


def _standing(connection: Connection, name: str) -> Standing | None:
    """None: it is not complete, or of a version that does not say how its tables are defined."""
    if not schema.stands(connection, name) or not schema.says_its_definitions(connection, name):
        return None
    progress = SQL("SELECT log, position, at FROM {} WHERE is_complete").format(Identifier(name, "progress"))
    defined = SQL("SELECT name, definition FROM {}").format(Identifier(name, "definitions"))
    where = connection.execute(progress).fetchone()
    if where is None:
        return None
    log_id, position, at = where
    return Standing(name, log_id, position, at, dict(connection.execute(defined).fetchall()))


def make(connection: Connection, name: str, *, fleet_at: Callable[[int], Fleet]) -> Fleet | None:
    """Make the read model of that name from the best of the others; None if there is none that can be taken, else the
    fleet where it stands. `fleet_at` folds the log up to a position. Blocking.

    Raises:
        OtherHistory: from `fleet_at`.
    """
    standing = best(connection, but=name)
    if standing is None:
        return None
    fleet = fleet_at(standing.position)
    if (fleet.log, fleet.position, fleet.at) != (standing.log, standing.position, standing.at):
        return None
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with schema.making(connection, name):
            now = _standing(connection, standing.schema)
            if now is None:
                raise psycopg.OperationalError(f"{standing.schema} is gone")
            if now.position != standing.position:  # another version goes on projecting
                fleet = fleet_at(now.position)
            fill(connection, now, fleet)
    finally:
        connection.isolation_level = None
    return fleet


def fill(connection: Connection, standing: Standing, fleet: Fleet) -> None:
    """Fill the empty tables of the schema in use, so that they stand where `standing` and `fleet` do.

    Cost: a copy of the tables; some 20 µs for a row of the fleet, and for an event of what is over where that is made.
    """
    for name, table in (*CHANGING.items(), ("audit", audit)):
        if name in standing.same:
            source = Identifier(standing.schema, table.name)
            connection.execute(SQL("INSERT INTO {} SELECT * FROM {}").format(Identifier(table.name), source))
            log.info("table copied", table=table.name, position=standing.position)
        else:
            made = _made(connection, name, fleet)
            _insert(connection, name, made)
            log.info("table made anew", table=table.name, position=standing.position)
    schema.begin_at(connection, log=standing.log, position=standing.position, at=standing.at)


def _made(connection: Connection, name: str, fleet: Fleet) -> Iterable[TableRow]:
    match name:
        case "sums":
            return Sums.of(fleet).rows()
        case "broken_rules":
            return Broken.of(fleet).rows(fleet)
        case "audit":
            return _entries_of_audit(connection, until=fleet.position)
        case _:
            return _rows_of_kind(connection, BY_NAME[name], fleet)


def _rows_of_kind(connection: Connection, kind: Kind[Any], fleet: Fleet) -> Iterator[TableRow]:
    for stream, entry in fleet.living[kind.name].items():
        yield rows.row(stream, entry)
    if kind.outlives_its_end:
        for stream, entry, has_ended in entries_of_kind(connection, kind, until=fleet.position):
            if has_ended:
                yield rows.row(stream, entry)


def _entries_of_audit(connection: Connection, *, until: int) -> Iterator[TableRow]:
    """An entry tells whose the resource was: so tenants are folded beside the commands, and nothing else."""
    tenants = Fleet()
    for recorded in recorded_of(connection, [*command.TOPICS, *topics_of(TENANT)], until=until):
        if tenants.fold(recorded) is None:
            yield audit_row(recorded, tenants)


def _insert(connection: Connection, name: str, made: Iterable[TableRow]) -> None:
    rest = iter(made)
    with connection.cursor(binary=True) as cursor:
        cursor.adapters.register_dumper(int, Int8BinaryDumper)
        while portion := list(islice(rest, ROWS_AT_ONCE)):
            changes.insert(cursor, name, portion)
