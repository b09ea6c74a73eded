"""Does the read model show what the fold says? Every column of every row: of what lives, and of what only ever grows.

log ── fold ──┬── what lives ──► Fleet ─► Sums ──┐
              └── what is over ──► Ledger ───────┴──► differences() ◄── tables, in one snapshot
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import ARRAY, Column, Table
from sqlalchemy.dialects.postgresql import JSON, JSONB

from domain.command import CommandAccepted, CommandRejected
from domain.entry import Entry
from domain.fleet import Fleet
from domain.kinds import BY_NAME, KINDS
from domain.recorded import Recorded
from domain.values import kind_of
from projections import rows, schema
from projections.broken import Broken
from projections.definitions import SCHEMA
from projections.ledger import audit_row
from projections.sums import Sums
from projections.tables import LIVING, audit, broken_rules, sums

DIFFERENCES_MAX = 1_000
FETCHED_ROWS = 2_000
DIGEST_BYTES = 16

TableRow = Mapping[str, Any]

_encode = msgspec.json.Encoder(order="deterministic").encode


class Apart(LookupError):
    """The read model stands at another position than the fleet: catch up, or fold on, and ask again. None: there is
    no read model."""

    def __init__(self, position: int | None, *, fleet: int) -> None:
        super().__init__(f"The read model is at position {position}, not at {fleet}.")
        self.position = position


class Ledger:
    """What the ledgers must hold: a digest a row, noted while the log is folded, so that no second copy is kept."""

    def __init__(self) -> None:
        self.audit: dict[int, bytes] = {}
        # What is over and goes on being shown, by kind and key.
        self.over: dict[str, dict[str, bytes]] = {kind.name: {} for kind in KINDS if kind.outlives_its_end}

    def note(self, recorded: Recorded, entry: Entry | None, fleet: Fleet) -> None:
        """To be told each event, with what `fleet.fold` answered to it."""
        if isinstance(recorded.event, CommandAccepted | CommandRejected):
            self.audit[recorded.position] = _digest(audit, audit_row(recorded, fleet))
        elif entry is not None and fleet.entry(recorded.stream) is None:
            kind = kind_of(recorded.stream)
            if kind in self.over:
                row = rows.row(recorded.stream, entry)
                self.over[kind][row["key"]] = _digest(LIVING[kind], row)


def differences(conninfo: str, fleet: Fleet, *, ledger: Ledger | None = None, in_schema: str = SCHEMA) -> list[str]:
    """What the tables hold otherwise than the fold says, where both stand; a sentence for each. Blocking.

    Without a `ledger` what lives alone is compared.

    Raises:
        Apart: the read model stands at another position than the fleet.
    """
    found: list[str] = []
    with psycopg.connect(conninfo, connect_timeout=2) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(schema.USE, (in_schema,))
        try:
            stands = connection.execute("SELECT position, log, at FROM progress").fetchone()
        except errors.UndefinedTable:
            stands = None
        if stands is None or stands[0] != fleet.position:
            raise Apart(stands[0] if stands is not None else None, fleet=fleet.position)
        if stands[1:] != (fleet.log, fleet.at):
            found.append(
                f"The read model shows another history than the log's, which has the same position {stands[0]}."
            )
        for sentence in _all(connection, fleet, ledger):
            if len(found) == DIFFERENCES_MAX:
                break
            found.append(sentence)
    return found


def _all(connection: psycopg.Connection[Any], fleet: Fleet, ledger: Ledger | None) -> Iterator[str]:
    expected: dict[str, dict[str, Entry]] = {kind: {} for kind in LIVING}
    for stream, entry in fleet.entries():
        kind, _, key = stream.partition("/")
        expected[kind][key] = entry
    for kind, table in LIVING.items():
        # What goes on being shown when it is over is told from what lives by the fleet: the ledger knows it.
        lives = SQL("key = ANY({})").format(list(expected[kind])) if BY_NAME[kind].outlives_its_end else SQL("true")
        yield from _living(kind, expected[kind], _rows(connection, table, lives))
        if ledger is not None and BY_NAME[kind].outlives_its_end:
            shown = _rows(connection, table, SQL("NOT ") + lives)
            yield from _noted(f"{kind}/", "key", table, ledger.over[kind], shown)
    summed = {row["key"]: _digest(sums, row) for row in Sums.of(fleet).rows()}
    yield from _noted("the sum ", "key", sums, summed, _rows(connection, sums))
    broken = {row["key"]: _digest(broken_rules, row) for row in Broken.of(fleet).rows(fleet)}
    yield from _noted("what is broken of vm/", "key", broken_rules, broken, _rows(connection, broken_rules))
    if ledger is not None:
        yield from _noted("the audit's entry at position ", "position", audit, ledger.audit, _rows(connection, audit))


def _living(kind: str, expected: dict[str, Entry], shown: Iterable[TableRow]) -> Iterator[str]:
    table = LIVING[kind]
    left = dict(expected)
    for row in shown:
        stream = f"{kind}/{row['key']}"
        entry = left.pop(row["key"], None)
        if entry is None:
            yield f"{stream} is shown as {row['document']}, but is None."
            continue
        wanted = rows.row(stream, entry)
        for column in table.columns:
            if (shows := _value(column, row)) != (is_so := _value(column, wanted)):
                of = "" if column.name == "document" else f"'s {column.name}"
                yield f"{stream}{of} is shown as {shows}, but is {is_so}."
    for key in sorted(left):
        yield f"{kind}/{key} is shown as None, but is {rows.row(f'{kind}/{key}', left[key])['document']}."


def _noted(
    what: str, key: str, table: Table, expected: Mapping[Any, bytes], shown: Iterable[TableRow]
) -> Iterator[str]:
    seen = set()
    for row in shown:
        seen.add(row[key])
        if row[key] not in expected:
            yield f"{what}{row[key]} is shown as {row['document']}, but never existed."
        elif _digest(table, row) != expected[row[key]]:
            yield f"{what}{row[key]} is shown as {row['document']}, but is otherwise."
    for missing in sorted(expected.keys() - seen):
        yield f"{what}{missing} is not shown."


def _rows(connection: psycopg.Connection[Any], table: Table, where: Composable = SQL("true")) -> Iterator[TableRow]:
    """The rows by column as `rows.py` makes them, in the order of their keys; a portion at a time."""
    names = [column.name for column in table.columns]
    query = SQL("SELECT {columns} FROM {table} WHERE {where} ORDER BY 1").format(
        columns=SQL(", ").join(_as_made(column) for column in table.columns),
        table=Identifier(table.name),
        where=where,
    )
    with connection.cursor(name=f"compared_{table.name}") as cursor:
        cursor.itersize = FETCHED_ROWS
        for row in cursor.execute(query):
            yield dict(zip(names, row, strict=True))


def _as_made(column: Column[Any]) -> Composable:
    name = Identifier(column.name)
    match column.type:
        case ARRAY():
            return SQL("array_to_string({}, ',')").format(name)
        case JSON():  # JSONB too
            return SQL("{}::text").format(name)
        case _:
            return name


def _value(column: Column[Any], row: TableRow) -> Any:
    """JSONB keeps no order and no spaces, so what it means is compared; JSON is shown as it stands."""
    value = row[column.name]
    return msgspec.json.decode(value) if isinstance(column.type, JSONB) else value


def _digest(table: Table, row: TableRow) -> bytes:
    values = [_value(column, row) for column in table.columns]
    return blake2b(_encode(values), digest_size=DIGEST_BYTES).digest()
