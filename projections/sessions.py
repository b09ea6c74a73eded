"""Readers' connections to one schema. Each statement is a read of its own: one round trip, one snapshot.

They are sent below psycopg's cursors: a cursor's making, its conversions and its search for the prepared statement
take as long as all the rest of a small read, and SQLAlchemy's layers around it several times as long.
"""

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors, generators
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

CONNECTIONS_MAX = 16
WAIT_S_MAX = 5.0
# What takes longer is given up by the server: it would go on though nobody waits for it any more.
STATEMENT_S_MAX = 10
PREPARED_MAX = 200

_dialect = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy's own

RawRow = tuple[bytes | None, ...]  # values as PostgreSQL writes them


class RawRows(Sequence[RawRow]):
    """Each row is made when it is asked for, so that a long page is not made in one go."""

    def __init__(self, result: PGresult) -> None:
        self._value = result.get_value
        self._columns = range(result.nfields)
        self._count = result.ntuples

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        return tuple([self._value(number, column) for column in self._columns])

    def __iter__(self) -> Iterator[RawRow]:
        value, columns = self._value, self._columns
        for number in range(self._count):
            yield tuple([value(number, column) for column in columns])


class Statement(NamedTuple):
    """A query with `$1`, `$2`, …: the names of its parameters in order, and the values that it has of its own."""

    sql: bytes
    parameters: tuple[str, ...]
    constants: Mapping[str, Any]


def statement(query: ClauseElement) -> Statement:
    """Costs about a millisecond: to be done once for each form of a question, not for each question."""
    compiled = query.compile(dialect=_dialect)
    assert isinstance(compiled, SQLCompiler)
    return Statement(compiled.string.encode(), tuple(compiled.positiontup or ()), dict(compiled.params))


class Sessions:
    """As many connections as are used at once, at most CONNECTIONS_MAX; each is kept."""

    def __init__(self, conninfo: str, *, in_schema: str) -> None:
        self._conninfo = conninfo
        self._schema = in_schema
        self._idle: list[_Session] = []
        self._turn = asyncio.Semaphore(CONNECTIONS_MAX)

    async def fetch(self, asked: Statement, values: Mapping[str, Any] | None = None) -> RawRows:
        """The rows.

        Raises:
            TimeoutError: no connection was free in time.
            QueryCanceled: it took more than STATEMENT_S_MAX.
            psycopg.Error: as psycopg has it.
        """
        given = {**asked.constants, **(values or {})}
        texts = [_text(given[name]) for name in asked.parameters]
        async with asyncio.timeout(WAIT_S_MAX):
            await self._turn.acquire()
        session: _Session | None = None
        try:
            session = self._idle.pop() if self._idle else await self._connect()
            return await session.fetch(asked.sql, texts)
        except errors.QueryCanceled:
            raise
        except psycopg.OperationalError:
            await self.close()  # those that wait here were lost with this one, most likely
            raise
        finally:
            if session is not None and session.is_idle:
                self._idle.append(session)
            elif session is not None:
                await session.close()
            self._turn.release()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connect(self) -> "_Session":
        options: dict[str, Any] = dict(conninfo_to_dict(self._conninfo))
        settings = f"-c search_path={self._schema} -c default_transaction_read_only=on"
        settings += f" -c statement_timeout={STATEMENT_S_MAX}s"
        options["options"] = f"{options.get('options') or ''} {settings}".strip()
        return _Session(await psycopg.AsyncConnection.connect(autocommit=True, **{"connect_timeout": 2, **options}))


class _Session:
    """One connection, for one at a time."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._prepared: dict[bytes, bytes] = {}
        self._names = itertools.count()

    @property
    def is_idle(self) -> bool:
        """False: it is lost, or was left in the middle of something."""
        pgconn = self._connection.pgconn
        return not self._connection.closed and pgconn.transaction_status == TransactionStatus.IDLE

    async def fetch(self, sql: bytes, values: Sequence[bytes | None]) -> RawRows:
        pgconn = self._connection.pgconn
        name = self._prepared.get(sql)
        if name is None:
            if len(self._prepared) == PREPARED_MAX:
                await self._connection.execute("DEALLOCATE ALL", prepare=False)  # psycopg would lose it to itself
                self._prepared.clear()
            name = b"%d" % next(self._names)  # a new one, as one that was given up may stand there
            pgconn.send_prepare(name, sql)
            await self._result()
            self._prepared[sql] = name
        pgconn.send_query_prepared(name, values)
        return RawRows(await self._result())

    async def _result(self) -> PGresult:
        results = await self._connection.wait(generators.execute(self._connection.pgconn))
        if not results:
            raise psycopg.OperationalError("the server gave no result")
        result: PGresult = results[-1]  # an error on the way comes after the rows
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise errors.error_from_result(result)
        return result

    async def close(self) -> None:
        await self._connection.close()


def _text(value: Any) -> bytes | None:
    match value:
        case None:
            return None
        case bool():
            return b"true" if value else b"false"
        case int():
            return b"%d" % value
        case _:
            text: bytes = value.encode()
            if b"\0" in text:
                raise ValueError("a text may not contain NUL")  # here it would end the text unseen
            return text
