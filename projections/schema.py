"""A read model's schema: made, shared with its readers, and dropped when nobody reads it any more.

Each schema has two advisory locks: its projector holds one alone, its readers share the other.
"""

import zlib
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from projections.tables import SCHEMA_PREFIX, metadata

# The first halves of the two locks; the second is made from the schema's name.
PROJECTOR_LOCK = 0x62657270  # "berp"
READERS_LOCK = 0x62657272  # "berr"

USE = "SELECT set_config('search_path', quote_ident(%s), false)"
SHARE = "SELECT pg_advisory_lock_shared(%s, %s)"

Connection = psycopg.Connection[Any]


def lock_number(schema: str) -> int:
    """The second half of the schema's locks: 31 bits of its name."""
    return zlib.crc32(schema.encode()) & 0x7FFFFFFF


def try_lock(connection: Connection, schema: str) -> bool:
    """Whether this session may project there; until it ends, nobody else may."""
    return bool(_value(connection, "SELECT pg_try_advisory_lock(%s, %s)", (PROJECTOR_LOCK, lock_number(schema))))


def stands(connection: Connection, schema: str) -> bool:
    """Whether it is there with its progress; one without is no read model."""
    return bool(_value(connection, "SELECT to_regclass(quote_ident(%s) || '.progress') IS NOT NULL", (schema,)))


def make(connection: Connection, schema: str) -> None:
    """An empty read model at position 0, in place of whatever stands under that name."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    with connection.transaction():
        drop(connection, schema)
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
        connection.execute(USE, (schema,))
        for table in metadata.sorted_tables:
            connection.execute(str(CreateTable(table).compile(dialect=dialect)).encode())
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(str(CreateIndex(index).compile(dialect=dialect)).encode())
        connection.execute("INSERT INTO progress (log, position, at, is_complete) VALUES ('', 0, 0, false)")


def drop(connection: Connection, schema: str) -> None:
    connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def drop_unused(connection: Connection, *, but: str) -> list[str]:
    """Drop the read models of other definitions that nobody reads or projects; answers their names."""
    found = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) AND nspname <> %s"
        " AND pg_has_role(nspowner, 'USAGE') ORDER BY 1",
        (SCHEMA_PREFIX, but),
    ).fetchall()
    dropped = []
    for (schema,) in found:
        number = lock_number(schema)
        with connection.transaction():
            is_free = _value(
                connection,
                "SELECT pg_try_advisory_xact_lock(%s, %s) AND pg_try_advisory_xact_lock(%s, %s)",
                (READERS_LOCK, number, PROJECTOR_LOCK, number),
            )
            if is_free:
                drop(connection, schema)
                dropped.append(str(schema))
    return dropped


def _value(connection: Connection, query: str, values: tuple[Any, ...]) -> Any:
    row = connection.execute(query.encode(), values).fetchone()
    return row[0] if row is not None else None
