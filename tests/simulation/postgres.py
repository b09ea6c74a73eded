"""PostgreSQL as Berth meets it: the log's table with its two unique indexes, commits that take time and land late,
advisory locks that a backend holds for as long as it lives, the unlogged heartbeat, and a read model's tables.

    client ── statement (may be lost) ──► backend: executes, commits ── answer (may be lost) ──► client

It understands the very statements that the code sends, and no others.
"""

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import psycopg
from eventsourcing.persistence import OperationalError
from psycopg import errors
from sqlalchemy import ARRAY

from eventlog import append, heartbeat, read
from eventlog.append import LEADER_LOCK
from eventlog.codec import Row
from eventlog.read import LogReader
from projections import changes, projector
from projections.tables import LIVING, audit
from tests.simulation.faults import Faults
from tests.simulation.loop import PROCESS, Process, SimulatedLoop

LATENCY_S = 0.0005
COMMIT_S = 0.003
SILENCE_S = 5.0  # tcp_user_timeout
FORGOTTEN_S = 40.0  # after which the server notices that a client is gone
UNSTORABLE = "unstorable"
LOG_CHANNEL = "events"

Key = tuple[Any, ...]


class Backend:
    """The server's side of a connection. One that is in a commit can't be ended before that has ended."""

    def __init__(self, pid: int, process: Process, application: str) -> None:
        self.pid = pid
        self.process = process
        self.application = application
        self.is_alive = True
        self.is_ending = False
        self.busy = 0
        self.inserting: tuple[Row, ...] = ()
        self.locks: set[Key] = set()
        self.notified: asyncio.Event | None = None


class Server:
    """`on_append` is told of each append that is committed, and whose it was; `on_project` of a read model's new
    position."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: random.Random,
        faults: Faults,
        *,
        on_append: Callable[[Sequence[Row], Process], None],
        on_project: Callable[[int], None],
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.faults = faults
        self.guards_base = True
        self.guards_key = True
        self.keeps_rows_and_position_together = True
        self.is_up = True
        self.rows: list[Row] = []
        self.by_position: dict[int, Row] = {}
        self.by_stream: defaultdict[str, list[Row]] = defaultdict(list)
        self.beat: tuple[int, int] | None = None
        self.backends: dict[int, Backend] = {}
        self.models: dict[str, ReadModel] = {}
        self._locks: dict[Key, int] = {}
        self._pids = itertools.count(101)
        self._on_append = on_append
        self.on_project = on_project
        self._process = Process("postgres")
        self._ended = asyncio.Event()

    # ── connections ──

    def open_backend(self, application: str) -> Backend:
        if not self.is_up or self.faults.happens("connect refused"):
            raise psycopg.OperationalError("connection refused")
        backend = Backend(next(self._pids), PROCESS.get(self.loop.world), application)
        self.backends[backend.pid] = backend
        return backend

    def leave(self, backend: Backend, *, after_s: float = 0.0) -> None:
        """Its client is gone: it ends when it notices, and never within a commit."""
        backend.is_ending = True
        if after_s:
            self.loop.later(after_s, self._end_if_idle, backend)
        else:
            self._end_if_idle(backend)

    def end_all_of(self, process: Process) -> None:
        """The process was killed, and its sockets closed."""
        for backend in list(self.backends.values()):
            if backend.process is process:
                self.leave(backend, after_s=self.chance.uniform(0.0, 0.05))

    def restart(self) -> None:
        """Killed and started again: what was in a commit stands or not, all else of the memory is gone."""
        self.is_up = False
        for backend in list(self.backends.values()):
            if backend.inserting and self.chance.random() < 0.5:
                self._commit(backend)
            backend.inserting = ()
            backend.is_alive = False
            self._gone(backend)
        self.beat = None
        for model in self.models.values():
            model.crash(self.chance)
        self.loop.later(self.chance.uniform(0.1, 3.0), self._come_back)

    def _come_back(self) -> None:
        self.is_up = True

    def _end_if_idle(self, backend: Backend) -> None:
        if backend.is_alive and backend.is_ending and not backend.busy:
            backend.is_alive = False
            self._gone(backend)

    def _gone(self, backend: Backend) -> None:
        self.backends.pop(backend.pid, None)
        for key in [key for key, pid in self._locks.items() if pid == backend.pid]:
            del self._locks[key]
        if backend.notified is not None:
            backend.notified.set()
        self._ended.set()
        self._ended = asyncio.Event()

    # ── locks ──

    def try_lock(self, backend: Backend, key: Key) -> bool:
        return self._locks.setdefault(key, backend.pid) == backend.pid

    def is_locked(self, key: Key) -> bool:
        return key in self._locks

    def holder(self, key: Key) -> int | None:
        return self._locks.get(key)

    async def terminate(self, pid: int, application: str, timeout_s: float) -> bool:
        """Ends a backend; false if that took too long, as it is in a commit."""
        ends_at = self.loop.time() + timeout_s
        while (backend := self.backends.get(pid)) is not None and backend.application == application:
            self.leave(backend)
            if not backend.is_alive:
                break
            if self.loop.time() >= ends_at:
                return False
            await asyncio.sleep(0.01)
        return True

    # ── the log ──

    async def insert(self, backend: Backend, base: int, rows: tuple[Row, ...], *, is_slow: bool) -> int:
        """The append's statement: how many rows it inserted."""
        if any(UNSTORABLE in row.stream and not row.stream.startswith("command/") for row in rows):
            raise psycopg.DataError("index row size exceeds maximum")
        # The condition is read as of the statement's beginning; the unique indexes see what is under way too.
        if base and self.guards_base and base not in self.by_position:
            return 0
        while any(
            other is not backend and other.inserting and self._clash(rows, other.inserting)
            for other in self.backends.values()
        ):
            await asyncio.sleep(0.002)
            if backend.is_ending or not backend.is_alive:
                raise psycopg.OperationalError("terminating connection")
        if any(row.position in self.by_position for row in rows) or (self.guards_key and self._is_taken(rows)):
            raise errors.UniqueViolation("duplicate key value violates unique constraint")
        backend.inserting = rows
        await asyncio.sleep(self.chance.uniform(0.5, 5.0) if is_slow else COMMIT_S * self.chance.uniform(0.3, 3.0))
        if not backend.is_alive:  # the server was restarted meanwhile
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        self._commit(backend)
        return len(rows)

    def _commit(self, backend: Backend) -> None:
        rows, backend.inserting = backend.inserting, ()
        for row in rows:
            self.rows.append(row)
            self.by_position[row.position] = row
            self.by_stream[row.stream].append(row)
        self._on_append(rows, backend.process)
        for other in self.backends.values():
            if other.notified is not None:
                other.notified.set()

    def _is_taken(self, rows: Sequence[Row]) -> bool:
        if len({(row.stream, row.version) for row in rows}) < len(rows):
            return True
        return any(self._stands(row.stream, row.version) for row in rows)

    def _stands(self, stream: str, version: int) -> bool:
        return any(row.version == version for row in self.by_stream.get(stream, ()))

    @staticmethod
    def _clash(rows: Sequence[Row], others: Sequence[Row]) -> bool:
        if rows[0].position <= others[-1].position and others[0].position <= rows[-1].position:
            return True
        taken = {(row.stream, row.version) for row in others}
        return any((row.stream, row.version) in taken for row in rows)

    def after(self, position: int, limit: int) -> list[Row]:
        # Without gaps the index is the position; a law watches over that.
        first = position
        while first > 0 and (first > len(self.rows) or self.rows[first - 1].position > position):
            first -= 1
        return self.rows[first : first + limit]

    @property
    def end(self) -> int:
        return self.rows[-1].position if self.rows else 0


# ── the client's side, asynchronous ──


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
        is_append = statement is append._APPEND
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


async def _as_backend(server: Server, backend: Backend, work: Awaitable[Cursor]) -> Cursor:
    backend.busy += 1
    try:
        return await work
    finally:
        backend.busy -= 1
        server._end_if_idle(backend)


async def _execute(server: Server, backend: Backend, statement: Any, values: Key, *, is_slow: bool) -> Cursor:
    if statement is append._APPEND:
        base, streams, versions, topics, states = values[:5]
        rows = tuple(
            Row(*row[:2], base + n, *row[2:])
            for n, row in enumerate(zip(streams, versions, topics, states, strict=True), 1)
        )
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
        if query is read._ONE:
            found = self._server.by_position.get(values[0])
            return [found] if found is not None else []
        if query is read._STREAM:
            stream, after, limit = values
            return [row for row in streams.get(stream, ()) if row.version > after][:limit]
        if query is read._LAST:
            return streams.get(values[0], [])[-1:]
        assert query is read._FIRST_OF_EACH, query
        return [streams[stream][0] for stream in values[0] if streams.get(stream)]


class ReadModel:
    """A schema's tables. Commits need not survive a crash of the server, but none is lost without those after it."""

    def __init__(self) -> None:
        self.progress: tuple[str, int, int] = ("", 0, 0)
        self.is_complete = False
        self.living: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in LIVING}
        self.audit: list[dict[str, Any]] = []
        self._kept: list[tuple[Any, ...]] = []

    def snapshot(self) -> tuple[Any, ...]:
        living = {kind: dict(table) for kind, table in self.living.items()}
        return self.progress, self.is_complete, living, list(self.audit)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        self.progress, self.is_complete, self.living, self.audit = snapshot

    def keep(self) -> None:
        """What a crash might go back to: now and then, as each is a copy of all."""
        self._kept = [*self._kept[-1:], self.snapshot()]

    def crash(self, chance: random.Random) -> None:
        if self._kept and chance.random() < 0.5:
            self.restore(chance.choice(self._kept))
            self._kept = []


_UPSERTS = {id(statement): kind for kind, statement in changes._UPSERT.items()}
_DELETES = {id(statement): kind for kind, statement in changes._DELETE.items()}
KEEP_ONE_IN = 20
WITHOUT_EFFECT = ("SET ", "CREATE ", "\nCREATE ", "INSERT INTO progress", "SELECT pg_notify", "SELECT nspname")


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
        elif text.startswith("SELECT log, position, is_complete FROM progress"):
            model = models.get(self._schema)
            return [(*model.progress[:2], model.is_complete)] if model is not None else []
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
        elif not text.startswith(
            ("SET ", "CREATE ", "\nCREATE ", "INSERT INTO progress", "SELECT pg_notify", "SELECT nsp")
        ):
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
                for row in _as_rows(LIVING[kind], values):
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
