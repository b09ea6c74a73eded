"""What controllers told lately of work under way: a side table, never the log. The latest of a step wins."""

import asyncio
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
INTERVAL_S = 0.1

log = structlog.get_logger()


class ProgressTable:
    """Writes in the background; a progress that is lost is told again by the next one."""

    def __init__(self, conninfo: str) -> None:
        self._pool = AsyncConnectionPool(conninfo, min_size=0, max_size=1, open=False)
        self._latest: dict[tuple[str, str], ReportOperation] = {}
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

    async def _write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            if not self._latest:
                continue
            told, self._latest = self._latest, {}
            rows = [(r.operation, r.step, r.attempt, r.percent, r.message) for r in told.values()]
            try:
                async with self._pool.connection() as connection, connection.cursor() as cursor:
                    await cursor.executemany(WRITE, rows)
            except psycopg.Error as error:
                log.warning("progress not kept", error=str(error).strip())
