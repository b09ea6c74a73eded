"""What a stretch of the log changes in the tables: collected while folding, written in one transaction.

Rows are coalesced: of a resource that changed a hundred times in the stretch, its last row alone is written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Table
from sqlalchemy.dialects.postgresql import JSON, JSONB

from domain.command import CommandAccepted, CommandRejected
from domain.entry import Entry
from domain.fleet import Fleet
from domain.kinds import BY_NAME
from domain.recorded import Recorded
from eventlog.arrays import Bigints, Bools, Texts
from projections import rows
from projections.broken import MOVES, Broken
from projections.ledger import audit_row
from projections.sums import Sums
from projections.tables import CHANGING, audit

TableRow = dict[str, Any]


class Changes:
    """The changes from one position to another; `upserts` and `deletes` are by kind, "sums" or "broken_rules", the
    audit in the log's order."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.position = base
        self.at = 0
        self.upserts: dict[str, list[TableRow]] = {}
        self.deletes: dict[str, list[str]] = {}
        self.audit: list[TableRow] = []


def fold(fleet: Fleet, sums: Sums, broken: Broken, events: Iterable[Recorded]) -> Changes:
    """Fold whole commands, and answer what they change. `sums` and `broken` are the fleet's."""
    changes = Changes(fleet.position)
    touched: dict[str, Entry] = {}
    moved: set[str] = set()
    for recorded in events:
        entry = fleet.fold(recorded)
        if entry is not None:
            touched[recorded.stream] = entry
            if type(recorded.event) in MOVES:
                moved.add(recorded.stream)
        elif isinstance(recorded.event, CommandAccepted | CommandRejected):
            changes.audit.append(audit_row(recorded, fleet))
    upserts: defaultdict[str, list[TableRow]] = defaultdict(list)
    deletes: defaultdict[str, list[str]] = defaultdict(list)
    for stream in sorted(touched):  # a fixed order, so that two who write can't wait for each other
        kind, _, key = stream.partition("/")
        if fleet.entry(stream) is not None or BY_NAME[kind].outlives_its_end:
            upserts[kind].append(rows.row(stream, touched[stream]))
        else:
            deletes[kind].append(key)
    upserts["sums"], deletes["sums"] = sums.update(fleet, touched)
    upserts["broken_rules"], deletes["broken_rules"] = broken.update(fleet, touched, moved=moved)
    changes.position, changes.at = fleet.position, fleet.at
    changes.upserts = {kind: found for kind, found in upserts.items() if found}
    changes.deletes = {kind: keys for kind, keys in deletes.items() if keys}
    return changes


def write(cursor: psycopg.Cursor[Any], changes: Changes) -> None:
    """To be called in a transaction, on a binary cursor whose integers are always bigint."""
    for kind, keys in changes.deletes.items():
        cursor.execute(_DELETE[kind], (Texts(keys),))
    for kind, found in changes.upserts.items():
        cursor.execute(_UPSERT[kind], _by_column(CHANGING[kind], found))
    if changes.audit:
        cursor.execute(_APPEND_AUDIT, _by_column(audit, changes.audit))


def insert(cursor: psycopg.Cursor[Any], name: str, made: Sequence[TableRow]) -> None:
    """Rows of a table that has none of them yet, by what it is called in CHANGING, or of the audit."""
    table = CHANGING.get(name, audit)
    cursor.execute(_insert(table), _by_column(table, made))


def _by_column(table: Table, found: Sequence[TableRow]) -> list[Any]:
    return [_array(column)([row[column.name] for row in found]) for column in table.columns]


def _array(column: Column[Any]) -> Callable[[list[Any]], Any]:
    match column.type:
        case BigInteger():
            return Bigints
        case Boolean():
            return Bools
        case _:
            return Texts


def _insert(table: Table) -> Composed:
    """One array a column: a stretch's rows go in one statement of a fixed form, however many they are."""
    names = [Identifier(column.name) for column in table.columns]
    arrays: list[Composable] = []
    values: list[Composable] = []
    for column, name in zip(table.columns, names, strict=True):
        array: Composable
        value: Composable
        match column.type:
            case BigInteger():
                array, value = SQL("bigint[]"), name
            case Boolean():
                array, value = SQL("bool[]"), name
            case JSONB():
                array, value = SQL("text[]"), SQL("{}::jsonb").format(name)
            case JSON():
                array, value = SQL("text[]"), SQL("{}::json").format(name)
            case ARRAY():
                array, value = SQL("text[]"), SQL("string_to_array({}, ',')").format(name)
            case _:
                array, value = SQL("text[]"), name
        arrays.append(SQL("%b::") + array)
        values.append(value)
    return SQL("INSERT INTO {table} ({names}) SELECT {values} FROM unnest({arrays}) AS row ({names})").format(
        table=Identifier(table.name),
        names=SQL(", ").join(names),
        values=SQL(", ").join(values),
        arrays=SQL(", ").join(arrays),
    )


def _upsert(table: Table) -> Composed:
    names = [Identifier(column.name) for column in table.columns if not column.primary_key]
    changed = SQL(", ").join(SQL("{0} = EXCLUDED.{0}").format(name) for name in names)
    return SQL("{} ON CONFLICT (key) DO UPDATE SET {}").format(_insert(table), changed)


# As bytes, so that they are not put together for every page.
_UPSERT = {kind: _upsert(table).as_bytes(None) for kind, table in CHANGING.items()}
_DELETE = {
    kind: SQL("DELETE FROM {} WHERE key = ANY(%b::text[])").format(Identifier(table.name)).as_bytes(None)
    for kind, table in CHANGING.items()
}
_APPEND_AUDIT = _insert(audit).as_bytes(None)
