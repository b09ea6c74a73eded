"""PostgreSQL as Berth meets it: the log's table with its two unique indexes, commits that take time and land late,
advisory locks that a backend holds for as long as it lives, the unlogged heartbeat, and a read model's tables.

    client ── statement (may be lost) ──► backend: executes, commits ── answer (may be lost) ──► client
"""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import errors

from eventlog.codec import Row
from projections.tables import CHANGING
from tests.simulation.faults import Faults
from tests.simulation.loop import PROCESS, Process, SimulatedLoop

COMMIT_S = 0.003
UNSTORABLE = "unstorable"

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


class ReadModel:
    """A schema's tables. Commits need not survive a crash of the server, but none is lost without those after it."""

    def __init__(self) -> None:
        self.progress: tuple[str, int, int] = ("", 0, 0)
        self.is_complete = False
        self.living: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in CHANGING}
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
