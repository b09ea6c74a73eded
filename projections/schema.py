"""A read model's schema: made, shared with its readers, and dropped when nobody reads it any more.

Each schema has two advisory locks: its projector holds one alone, its readers share the other.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from projections.definitions import DEFINITIONS, SCHEMA_PREFIX
from projections.tables import metadata

# The first halves of the two locks; the second is made from the schema's name.
PROJECTOR_LOCK = 0x62657270  # "berp"
READERS_LOCK = 0x62657272  # "berr"

USE = "SELECT set_config('search_path', quote_ident(%s), false)"
SHARE = "SELECT pg_advisory_lock_shared(%s, %s)"

Connection = psycopg.Connection[Any]

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


def lock_number(schema: str) -> int:
    """The second half of the schema's locks: 31 bits of its name."""
    return zlib.crc32(schema.encode()) & 0x7FFFFFFF


def try_lock(connection: Connection, schema: str) -> bool:
    """Whether this session may project there; until it ends, nobody else may."""
    return bool(_value(connection, "SELECT pg_try_advisory_lock(%s, %s)", (PROJECTOR_LOCK, lock_number(schema))))


def stands(connection: Connection, schema: str) -> bool:
    """Whether it is there with its progress; one without is no read model."""
    return bool(_value(connection, "SELECT to_regclass(quote_ident(%s) || '.progress') IS NOT NULL", (schema,)))


@contextmanager
def making(connection: Connection, schema: str) -> Iterator[None]:
    """A read model in place of whatever stands under that name, whole or not at all: its tables are empty and have no
    indexes yet, for the caller to fill them and to say where they stand."""
    with connection.transaction():
        drop(connection, schema)
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        connection.execute(USE, (schema,))
        for table in metadata.sorted_tables:
            connection.execute(_sql(CreateTable(table)))
        connection.execute("CREATE TABLE definitions (name text PRIMARY KEY, definition text NOT NULL)")
        yield
        for table in metadata.sorted_tables:
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(_sql(CreateIndex(index)))
        for of_table in DEFINITIONS.items():
            connection.execute("INSERT INTO definitions (name, definition) VALUES (%s, %s)", of_table)


def begin_at(connection: Connection, *, log: str, position: int, at: int) -> None:
    """Say where the tables in use stand."""
    where = (log, position, at)
    connection.execute("INSERT INTO progress (log, position, at, is_complete) VALUES (%s, %s, %s, false)", where)


def make(connection: Connection, schema: str) -> None:
    """An empty read model at position 0, in place of whatever stands under that name."""
    with making(connection, schema):
        begin_at(connection, log="", position=0, at=0)


def drop(connection: Connection, schema: str) -> None:
    connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def others(connection: Connection, *, but: str) -> list[str]:
    """The read models of other definitions."""
    found = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) AND nspname <> %s"
        " AND pg_has_role(nspowner, 'USAGE') ORDER BY 1",
        (SCHEMA_PREFIX, but),
    ).fetchall()
    return [str(name) for (name,) in found]


def says_its_definitions(connection: Connection, schema: str) -> bool:
    """Whether it is of a version that notes how each table is defined."""
    return bool(_value(connection, "SELECT to_regclass(quote_ident(%s) || '.definitions') IS NOT NULL", (schema,)))


def drop_unused(connection: Connection, *, but: str) -> list[str]:
    """Drop the read models of other definitions that nobody reads or projects; answers their names."""
    dropped = []
    for schema in others(connection, but=but):
        number = lock_number(schema)
        with connection.transaction():
            is_free = _value(
                connection,
                "SELECT pg_try_advisory_xact_lock(%s, %s) AND pg_try_advisory_xact_lock(%s, %s)",
                (READERS_LOCK, number, PROJECTOR_LOCK, number),
            )
            if is_free:
                drop(connection, schema)
                dropped.append(schema)
    return dropped


def _sql(statement: CreateTable | CreateIndex) -> bytes:
    return str(statement.compile(dialect=_DIALECT)).encode()


def _value(connection: Connection, query: str, values: tuple[Any, ...]) -> Any:
    row = connection.execute(query.encode(), values).fetchone()
    return row[0] if row is not None else None
