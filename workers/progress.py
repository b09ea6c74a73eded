"""What controllers told lately of work under way: a side table, never the log. The latest of a step wins."""

import asyncio
from collections.abc import Iterable
from types import TracebackType

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from commands.operations import ReportOperation
from eventlog.tasks import end_tasks

WRITE = (
    "INSERT INTO berth.progress (operation, step, attempt, percent, message, at) VALUES (%s, %s, %s, %s, %s, now())"
    " ON CONFLICT (operation, step) DO UPDATE SET attempt = excluded.attempt, percent = excluded.percent,"
    " message = excluded.message, at = excluded.at"
)
FORGET = "DELETE FROM berth.progress WHERE operation = ANY(%s)"
KEEP_ONLY = "DELETE FROM berth.progress WHERE NOT operation = ANY(%s)"
HELD = "SELECT DISTINCT operation FROM berth.progress"
INTERVAL_S = 0.1

log = structlog.get_logger()


class ProgressTable:
    """Writes in the background; a progress that is lost is told again by the next one.

    It holds a row a step of what is under way, no more: those of operations that are over are deleted, and those that
    ended while nobody led, when this engine begins to lead.
    """

    def __init__(self, conninfo: str) -> None:
        self._pool = AsyncConnectionPool(conninfo, min_size=0, max_size=1, open=False)
        self._latest: dict[tuple[str, str], ReportOperation] = {}
        self._noted: set[str] = set()  # operations that have rows
        self._over: set[str] = set()
        self._kept: list[str] | None = None  # all others are to be deleted
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ProgressTable":
        await self._pool.open()
        self._task = asyncio.create_task(self._write_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            await end_tasks(self._task)
        await self._pool.close()

    def note(self, report: ReportOperation) -> None:
        self._latest[report.operation, report.step] = report
        self._noted.add(report.operation)

    def forget(self, operations: Iterable[str]) -> None:
        """Delete what was told of these, which are over."""
        are_known = self._kept is None
        for operation in operations:
            if operation in self._noted or not are_known:
                self._noted.discard(operation)
                self._over.add(operation)

    def keep_only(self, operations: Iterable[str]) -> None:
        """Delete what was told of all others."""
        self._kept = list(operations)

    async def _write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self._latest or self._over or self._kept is not None:
                await self._write()

    async def _write(self) -> None:
        told, self._latest = self._latest, {}
        over, kept = self._over, self._kept
        rows = [
            (r.operation, r.step, r.attempt, r.percent, r.message) for r in told.values() if r.operation not in over
        ]
        try:
            async with self._pool.connection() as connection, connection.cursor() as cursor:
                if kept is not None:
                    await cursor.execute(KEEP_ONLY, (kept,))
                if over:
                    await cursor.execute(FORGET, (list(over),))
                if rows:
                    await cursor.executemany(WRITE, rows)
                if kept is not None:
                    await cursor.execute(HELD)
                    self._noted.update(str(operation) for (operation,) in await cursor.fetchall())
        except psycopg.Error as error:
            log.warning("progress not kept", error=str(error).strip())
            return
        # What came meanwhile waits for the next time.
        self._over = self._over - over
        self._kept = None if self._kept is kept else self._kept
