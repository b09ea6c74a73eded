"""What psycopg gives its callers, on the simulated PostgreSQL: to the engine, to readers of the log, to the projector.

It understands the very statements that the code sends, and no others.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

import psycopg
from eventsourcing.persistence import OperationalError
from sqlalchemy import ARRAY

from eventlog import append, heartbeat, read
from eventlog.append import LEADER_LOCK
from eventlog.codec import Row
from eventlog.read import LogReader
from projections import changes, projector
from projections.tables import CHANGING, audit
from tests.simulation.postgres import Backend, Key, ReadModel, Server

LATENCY_S = 0.0005
SILENCE_S = 5.0  # tcp_user_timeout
FORGOTTEN_S = 40.0  # after which the server notices that a client is gone
KEEP_ONE_IN = 20

_UPSERTS = {id(statement): kind for kind, statement in changes._UPSERT.items()}
_DELETES = {id(statement): kind for kind, statement in changes._DELETE.items()}
WITHOUT_EFFECT = (
    "SET ",
    "CREATE ",
    "\nCREATE ",
    "INSERT INTO progress",
    "INSERT INTO definitions",
    "SELECT pg_notify",
    "SELECT nspname",
)


class Cursor:
    """What a statement gave."""

    def __init__(self, found: list[tuple[Any, ...]], rowcount: int = -1) -> None:
        self._found = found
        self.rowcount = rowcount if rowcount >= 0 else len(found)

    async def fetchone(self) -> tuple[Any, ...] | None:
        return self._found[0] if self._found else None

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return self._found


class _Adapters:
    def register_dumper(self, *_: Any) -> None:
        pass


class _Info:
    def __init__(self, backend_pid: int) -> None:
        self.backend_pid = backend_pid


class Connection:
    """What `psycopg.AsyncConnection` is to the code."""

    def __init__(self, server: Server, backend: Backend) -> None:
        self._server = server
        self._backend = backend
        self.info = _Info(backend.pid)
        self.adapters = _Adapters()
        self.closed = False

    async def execute(self, statement: Any, values: Sequence[Any] = (), **_: Any) -> Cursor:
        server, backend, faults = self._server, self._backend, self._server.faults
        if self.closed:
            raise psycopg.OperationalError("the connection is closed")
        is_append = statement is append._PREPARE
        if faults.happens("half open"):
            await asyncio.sleep(SILENCE_S)
            self._break(after_s=FORGOTTEN_S)
        await asyncio.sleep(LATENCY_S * server.chance.uniform(0.2, 3.0))
        if not backend.is_alive or faults.happens("statement lost"):
            self._break()
        # Once it has arrived it is executed, whatever becomes of the client.
        is_cut = is_append and faults.happens("cut in commit")
        is_slow = is_append and (faults.happens("slow commit") or (is_cut and server.chance.random() < 0.7))
        work = _execute(server, backend, statement, tuple(values), is_slow=is_slow)
        executing = server.loop.spawn(server._process, _as_backend(server, backend, work))
        executing.add_done_callback(lambda task: None if task.cancelled() else task.exception())  # told or not
        if is_cut:
            await asyncio.sleep(server.chance.uniform(0.0, 0.01))
            self._break()
        try:
            cursor: Cursor = await asyncio.shield(executing)
        except psycopg.OperationalError:
            self._break()
            raise
        if is_append and faults.happens("answer lost"):
            self._break()
        await asyncio.sleep(LATENCY_S * server.chance.uniform(0.2, 3.0))
        if not backend.is_alive and server.chance.random() < 0.5:
            self._break()
        return cursor

    def _break(self, *, after_s: float = 0.0) -> None:
        self.closed = True
        self._server.leave(self._backend, after_s=after_s)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    @contextlib.asynccontextmanager
    async def cursor(self, **_: Any) -> AsyncIterator["OpenCursor"]:
        yield OpenCursor(self)

    async def notifies(self, *, timeout: float, stop_after: int) -> AsyncIterator[None]:
        backend = self._backend
        if self.closed or not backend.is_alive or backend.notified is None:
            raise psycopg.OperationalError("the connection is lost")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await backend.notified.wait()
                backend.notified.clear()
                yield None
        if not backend.is_alive:
            raise psycopg.OperationalError("the connection is lost")

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._server.leave(self._backend)

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class OpenCursor:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = Cursor([])

    async def execute(self, statement: Any, values: Sequence[Any] = (), **_: Any) -> None:
        self._cursor = await self._connection.execute(statement, values)

    async def fetchone(self) -> tuple[Any, ...] | None:
        return await self._cursor.fetchone()

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return await self._cursor.fetchall()


async def execute_append(log: append.LogConnection, base: int, rows: Sequence[Row]) -> int:
    """As the connection of the log does it, below psycopg's cursors."""
    cursor: Cursor = await log._connection.execute(append._PREPARE, (base, tuple(rows)))  # type: ignore[assignment]
    return (await cursor.fetchall())[0][0]  # type: ignore[no-any-return]


async def _as_backend(server: Server, backend: Backend, work: Coroutine[Any, Any, Cursor]) -> Cursor:
    if not backend.is_alive:  # the server was restarted just now: else it took locks that nobody gives back
        work.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")
    backend.busy += 1
    try:
        return await work
    finally:
        backend.busy -= 1
        server._end_if_idle(backend)


async def _execute(server: Server, backend: Backend, statement: Any, values: Key, *, is_slow: bool) -> Cursor:
    if statement is append._PREPARE:
        base, rows = values
        return Cursor([(await server.insert(backend, base, rows, is_slow=is_slow), None)])
    if statement is append._READ_AFTER:
        position, limit = values
        return Cursor([(r.stream, r.version, r.position, r.topic, r.state) for r in server.after(position, limit)])
    if statement is append._STANDING:
        first, streams, versions = values
        return Cursor(
            [
                (stream, first in server.by_position)
                for stream, version in zip(streams, versions, strict=True)
                if server._stands(stream, version)
            ]
        )
    if statement is append._END:
        return Cursor([(server.end,)])
    if statement is append._LOCK_HOLDER:
        holder = server.holder((LEADER_LOCK,))
        return Cursor([(holder,)] if holder is not None else [])
    if statement is heartbeat._READ:
        return Cursor([server.beat] if server.beat is not None else [])
    if statement is heartbeat._BEAT:
        if server.beat is None or server.beat[0] != values[0]:
            return Cursor([], 0)
        server.beat = (values[0], server.beat[1] + 1)
        return Cursor([], 1)
    if statement is heartbeat._BEGIN:
        server.beat = (values[0], server.beat[1] + 1 if server.beat is not None else 1)
        return Cursor([])
    if statement is heartbeat._RESTORE:
        server.beat = server.beat or (values[0], 1)
        return Cursor([])
    text = statement if isinstance(statement, str) else statement.as_string(None)
    if text.startswith("SHOW synchronous_commit"):
        return Cursor([("on",)])
    if text.startswith("SELECT pg_try_advisory_lock"):
        return Cursor([(server.try_lock(backend, values),)])
    if text.startswith("SELECT pg_terminate_backend"):
        timeout_ms, pid, application = values
        if pid not in server.backends:
            return Cursor([])
        return Cursor([(await server.terminate(pid, application, timeout_ms / 1000),)])
    if text.startswith("LISTEN"):
        backend.notified = asyncio.Event()
        return Cursor([])
    raise AssertionError(f"the simulated PostgreSQL does not know {text!r}")


# ── the client's side, blocking ──


class SimulatedReader(LogReader):
    """The real reader, whose statements go to the simulated server; it runs in a thread of the simulated loop."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def _ask(self) -> None:
        server = self._server
        server.loop.block(LATENCY_S * server.chance.uniform(0.2, 4.0))
        if not server.is_up or server.faults.happens("read fails"):
            server.loop.block(server.chance.uniform(0.0, 2.0))
            raise OperationalError("the log can't be read")

    def page(self, after: int, limit: int) -> list[Row]:
        self._ask()
        return self._server.after(after, limit)

    def end(self) -> int:
        self._ask()
        return self._server.end

    def close(self) -> None:
        pass

    def _rows(self, query: Any, values: tuple[Any, ...]) -> list[Row]:
        self._ask()
        streams = self._server.by_stream
        if query is read._BOUNDED_PAGE:
            after, limit, bytes_max = values
            page = self._server.after(after, limit)
            passed = itertools.accumulate((len(row.state) for row in page), initial=0)
            return [row for row, before in zip(page, passed, strict=False) if before < bytes_max]
        if query is read._ONE:
            found = self._server.by_position.get(values[0])
            return [found] if found is not None else []
        if query is read._STREAM:
            stream, after, limit = values
            return [row for row in streams.get(stream, ()) if row.version > after][:limit]
        assert query is read._LAST_OF_EACH, query
        return [streams[stream][-1] for stream in values[0] if streams.get(stream)]


class BlockingConnection:
    """What `psycopg.connect` gives the projector: statements take effect at once, or with their transaction."""

    def __init__(self, server: Server, backend: Backend) -> None:
        self._server = server
        self._backend = backend
        self._schema = ""
        self._open: list[tuple[Any, Key]] | None = None
        self.adapters = _Adapters()

    def execute(self, statement: Any, values: Sequence[Any] = (), **_: Any) -> "BlockingCursor":
        self._trip()
        text = statement.decode() if isinstance(statement, bytes) else statement
        if not isinstance(text, str):
            text = text.as_string(None)
        return BlockingCursor(self, self._answer(text, tuple(values)))

    def _answer(self, text: str, values: Key) -> list[tuple[Any, ...]]:
        server, models = self._server, self._server.models
        if text.startswith("SELECT pg_try_advisory_lock"):
            return [(server.try_lock(self._backend, values),)]
        if text.startswith("SELECT set_config"):
            self._schema = values[0]
        elif text.startswith("SELECT to_regclass"):
            return [(values[0] in models,)]
        elif text.startswith("SELECT log, position, at, is_complete FROM progress"):
            model = models.get(self._schema)
            return [(*model.progress, model.is_complete)] if model is not None else []
        elif text.startswith("SELECT position FROM progress"):
            model = models.get(self._schema)
            return [(model.progress[1],)] if model is not None else []
        elif text.startswith("UPDATE progress SET is_complete"):
            if (model := models.get(self._schema)) is not None:
                model.is_complete = True
        elif text.startswith("DROP SCHEMA"):
            pass  # made anew in the same transaction
        elif text.startswith("CREATE SCHEMA"):
            name = text.split('"')[1]
            models[name] = ReadModel()
        elif not text.startswith(WITHOUT_EFFECT):
            raise AssertionError(f"the simulated PostgreSQL does not know {text!r}")
        return []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        self._open = []
        try:
            yield
            if self._server.faults.happens("projection unanswered"):
                self._break()
        finally:
            self._open = None

    @contextlib.contextmanager
    def cursor(self, **_: Any) -> Iterator["BlockingCursor"]:
        yield BlockingCursor(self, [])

    def _apply(self, statements: list[tuple[Any, Key]]) -> None:
        model = self._server.models.get(self._schema)
        for statement, values in statements:
            assert model is not None
            if (kind := _DELETES.get(id(statement))) is not None:
                for key in values[0]:
                    model.living[kind].pop(key, None)
            elif (kind := _UPSERTS.get(id(statement))) is not None:
                for row in _as_rows(CHANGING[kind], values):
                    model.living[kind][row["key"]] = row
            else:
                assert statement is changes._APPEND_AUDIT, statement
                model.audit += _as_rows(audit, values)

    def advance(self, values: Key) -> list[tuple[Any, ...]]:
        """The position moves with the rows before it in the transaction, or none of them counts."""
        log, position, at, base = values[:4]
        model = self._server.models.get(self._schema)
        if model is None or model.progress[1] != base or self._open is None:
            self._open = []
            return [(0, None)]
        is_lost = self._server.faults.happens("projection lost")
        if not is_lost or not self._server.keeps_rows_and_position_together:
            self._apply(self._open)
        self._open = []
        if is_lost:
            self._break()
        model.progress = (log, position, at)
        self._server.on_project(position)
        if self._server.chance.random() * KEEP_ONE_IN < 1:
            model.keep()
        return [(1, None)]

    def _trip(self) -> None:
        server = self._server
        server.loop.block(LATENCY_S * server.chance.uniform(0.2, 3.0))
        if not self._backend.is_alive or server.faults.happens("read fails"):
            self._break()

    def _break(self) -> None:
        self._server.leave(self._backend)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def close(self) -> None:
        self._server.leave(self._backend)


class BlockingCursor:
    def __init__(self, connection: BlockingConnection, found: list[tuple[Any, ...]]) -> None:
        self._connection = connection
        self._found = found
        self.adapters = _Adapters()

    def execute(self, statement: Any, values: Sequence[Any] = (), **_: Any) -> None:
        self._connection._trip()
        if statement == projector._ADVANCE:
            self._found = self._connection.advance(tuple(values))
            return
        assert self._connection._open is not None
        self._connection._open.append((statement, tuple(values)))

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._found[0] if self._found else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._found


def _as_rows(table: Any, columns: Key) -> list[dict[str, Any]]:
    names = [column.name for column in table.columns]
    assert len(names) == len(columns), (table.name, ARRAY)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
