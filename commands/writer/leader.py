"""Leading: the one connection that holds the lock and carries every append, and what to do when it is lost.

A connection that is lost in a commit leaves a batch that may stand, not stand, or not stand *yet*. The log's end is
final only when the old backend has ended and the lock is ours again; so that is the order here.
"""

import asyncio
from collections.abc import Sequence

import psycopg
import structlog

from eventlog.append import Collision, LogConnection, terminate_backend
from eventlog.codec import Row

RETRY_S = 0.2

log = structlog.get_logger()


class Leader:
    """Owns the leader's connection. Every method runs on the event loop, one at a time."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: LogConnection | None = None
        self._lost_backend: int | None = None

    async def lead(self) -> None:
        """Take the lock, however long it takes: ends our own lost backend, waits for anybody else's."""
        waited = False
        while True:
            try:
                await self._drop_lost_connection()
                connection = await LogConnection.connect(self._conninfo)
            except psycopg.Error as error:
                log.warning("database not reached", error=str(error).strip())
                await asyncio.sleep(RETRY_S)
                continue
            try:
                if await connection.try_lock():
                    self._connection = connection
                    return
            except psycopg.Error as error:
                log.warning("lock not taken", error=str(error).strip())
            await connection.close()
            if not waited:
                waited = True
                log.info("another writer leads, waiting")
            await asyncio.sleep(RETRY_S)

    async def append(self, base: int, rows: Sequence[Row]) -> None:
        """Raises Collision, DataRefused or OutcomeUnknown; see `eventlog.append`."""
        assert self._connection is not None, "only a leader appends"
        await self._connection.append(base, rows)

    async def regain(self) -> None:
        """After an unknown outcome: end the old backend and take the lock again. The log's end is final when this
        returns."""
        if self._connection is not None:
            self._lost_backend = self._connection.backend_pid
        await self.lead()

    async def read_after(self, position: int, limit: int) -> list[Row]:
        assert self._connection is not None, "only a leader's view of the end is final"
        return await self._connection.read_after(position, limit)

    async def stands(self, base: int, rows: Sequence[Row]) -> bool:
        """Whether an append of unknown outcome took place. To be asked while leading, after `regain`.

        Raises:
            Collision: something else stands at those positions.
        """
        found = await self.read_after(base, 1)
        if not found:
            return False
        if found[0] != rows[0]:
            raise Collision("position", base)
        return True

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _drop_lost_connection(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
        if self._lost_backend is not None:
            await terminate_backend(self._conninfo, self._lost_backend)
            self._lost_backend = None
