"""Leading and standing by: the one connection that holds the lock and carries every append, and what to do when it is
lost.

    stand_by ── the lock is free, or its holder silent ──► leads ── regain: another has the lock ──► stand_by
                                                             └───── regain: it is ours (again) ──► leads

A connection that is lost during COMMIT leaves a batch that is committed, or not, or not *yet*. The log's end is final
only when the old backend has ended and this process has the lock again; so that is the order here.
"""

import asyncio
from collections.abc import Callable, Sequence

import psycopg
import structlog

from eventlog import heartbeat
from eventlog.append import Collision, LogConnection, terminate_backend
from eventlog.codec import Row, time_of
from eventlog.tasks import end_tasks

POLL_S = 0.1
RETRY_S = 0.2
PAGE_EVENTS = 1_000  # of 256 KiB each, at the most

log = structlog.get_logger()

Follow = Callable[[list[Row]], int]


class Leader:
    """Owns the leader's connection. Every method runs on the event loop, one at a time.

    `on_displaced` is called when another process seems to lead; `regain` finds out.
    """

    def __init__(self, conninfo: str, *, on_displaced: Callable[[], None]) -> None:
        self.leads = False
        self._conninfo = conninfo
        self._on_displaced = on_displaced
        self._connection: LogConnection | None = None
        self._lost_backend: int | None = None
        self._beating: asyncio.Task[None] | None = None

    async def stand_by(self, follow: Follow, position: int, at: int) -> None:
        """Follow the log after the event at `position`, whose time is `at`, until this process has the lock: it was
        free, or its holder's heartbeat stopped. `follow` takes the appended rows and returns the position it reached.

        Raises:
            OtherHistory: the log does not hold what was followed.
        """
        watch, is_logged = heartbeat.Watch(), False
        while True:
            try:
                connection = await self._connected()
                while rows := await connection.follow(position, at, PAGE_EVENTS):
                    position, at = follow(rows), time_of(rows[-1])
                    await asyncio.sleep(0)
                if await connection.try_lock():
                    await self._begin(connection)
                    return
                if not is_logged:
                    is_logged = True
                    log.info("standing by", position=position)
                if watch.is_silent(await connection.heartbeat()):
                    await self._end_holder(connection)
                    continue
            except psycopg.Error as error:
                log.warning("database not reached", error=str(error).strip())
                await self._drop()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(POLL_S)

    async def regain(self) -> bool:
        """True: this process has the lock, again or still. False: another has it.

        The backend of a lost connection is terminated first, so with True the log's end is final.
        """
        while True:
            try:
                if self._connection is not None and self._connection.is_open and await self._connection.holds_lock():
                    await self._begin(self._connection)
                    return True
                await self._lose()
                connection = await self._connected()
                if await connection.try_lock():
                    await self._begin(connection)
                    return True
                if await connection.lock_holder() not in (None, self._lost_backend):
                    return False
            except psycopg.Error as error:
                log.warning("database not reached", error=str(error).strip())
                await self._lose()
            await asyncio.sleep(RETRY_S)

    async def append(self, base: int, rows: Sequence[Row]) -> None:
        """Raises Collision, DataRefused or OutcomeUnknown; see `eventlog.append`."""
        assert self._connection is not None, "only a leader appends"
        await self._connection.append(base, rows)

    async def follow(self, position: int, at: int, limit: int) -> list[Row]:
        """What stands after the event at a position, whose time is `at`. Raises OtherHistory if it is not there."""
        return await (await self._connected()).follow(position, at, limit)

    async def read_after(self, position: int, limit: int) -> list[Row]:
        """The rows after a position. That there are none is certain only while leading."""
        return await (await self._connected()).read_after(position, limit)

    async def stands(self, base: int, rows: Sequence[Row]) -> bool:
        """Did an append of unknown outcome commit? False is certain only while leading.

        Raises:
            Collision: other rows are at those positions.
        """
        found = await self.read_after(base, 1)
        if not found:
            return False
        if found[0] != rows[0]:
            raise Collision("position", base)
        return True

    async def close(self) -> None:
        await self._stop_beating()
        await self._drop()

    async def _connected(self) -> LogConnection:
        # PostgreSQL can't terminate a backend during COMMIT; then the next call tries again.
        if self._lost_backend is not None and await terminate_backend(self._conninfo, self._lost_backend):
            self._lost_backend = None
        if self._connection is None or not self._connection.is_open:
            self._connection = await LogConnection.connect(self._conninfo)
        return self._connection

    async def _begin(self, connection: LogConnection) -> None:
        await connection.begin_heartbeat()
        self.leads = True
        if self._beating is None or self._beating.done():
            beating = heartbeat.beat_until_displaced(self._conninfo, connection.backend_pid)
            self._beating = asyncio.create_task(beating)
            self._beating.add_done_callback(lambda task: None if task.cancelled() else self._on_displaced())

    async def _end_holder(self, connection: LogConnection) -> None:
        holder = await connection.lock_holder()
        if holder is not None:
            log.warning("the leader is silent, ending its connection", backend=holder)
            await terminate_backend(self._conninfo, holder)

    async def _lose(self) -> None:
        await self._stop_beating()
        if self._connection is not None and self.leads:
            self._lost_backend = self._connection.backend_pid
        self.leads = False
        await self._drop()

    async def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _stop_beating(self) -> None:
        if self._beating is not None:
            await end_tasks(self._beating)
            self._beating = None
