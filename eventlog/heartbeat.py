"""The leader's sign of life: one row that it changes every 0.3 s, from a connection beside the one that appends.

Nobody's clock is trusted: a standby only sees whether the row changes, and measures by its own monotonic clock how long
it has not.
"""

import asyncio
import time
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg.sql import SQL

from eventlog.table import CONNECT_TIMEOUT_S, HEARTBEAT_TABLE

INTERVAL_S = 0.3
SILENCE_S_MAX = 1.5
RETRY_S = 0.1

_BEGIN = SQL(
    "INSERT INTO {heartbeat} AS h (backend, beat) VALUES (%s, 1)"
    " ON CONFLICT (one) DO UPDATE SET backend = excluded.backend, beat = h.beat + 1"
).format(heartbeat=HEARTBEAT_TABLE)
# After a crash of the server the table is empty; whoever leads by then has written it, and stays.
_RESTORE = SQL("INSERT INTO {heartbeat} (backend, beat) VALUES (%s, 1) ON CONFLICT (one) DO NOTHING").format(
    heartbeat=HEARTBEAT_TABLE
)
_BEAT = SQL("UPDATE {heartbeat} SET beat = beat + 1 WHERE backend = %s").format(heartbeat=HEARTBEAT_TABLE)
_READ = SQL("SELECT backend, beat FROM {heartbeat}").format(heartbeat=HEARTBEAT_TABLE)

log = structlog.get_logger()

Connection = psycopg.AsyncConnection[Any]


class Beat(msgspec.Struct, frozen=True):
    """What stands in the row: the backend that leads, and a number that rises."""

    backend: int
    beat: int


async def begin(connection: Connection, backend: int) -> None:
    """`backend` leads from now on; whoever led before beats no more."""
    await connection.execute(_BEGIN, (backend,))


async def read(connection: Connection) -> Beat | None:
    row = await (await connection.execute(_READ)).fetchone()
    return Beat(*row) if row is not None else None


async def beat_until_displaced(conninfo: str, backend: int) -> None:
    """Beat for as long as no other backend leads, whatever becomes of the connection."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
            ) as connection:
                while (await connection.execute(_BEAT, (backend,))).rowcount:
                    await asyncio.sleep(INTERVAL_S)
                if (found := await read(connection)) is not None and found.backend != backend:
                    return
                await connection.execute(_RESTORE, (backend,))
        except psycopg.Error as error:
            log.warning("no heartbeat", error=str(error).strip())
            await asyncio.sleep(RETRY_S)


class Watch:
    """How long a leader has given no sign. Told of what is read, again and again.

    A look counts for no more than two intervals: whoever slept meanwhile (a paused process that wakes) has not watched.
    """

    def __init__(self) -> None:
        self._last: Beat | None = None
        self._looked_at = time.monotonic()
        self._silent_s = 0.0

    def is_silent(self, beat: Beat | None) -> bool:
        """Note what was read now; whether nothing has changed for too long."""
        now = time.monotonic()
        watched_s = min(now - self._looked_at, 2 * INTERVAL_S)
        self._looked_at = now
        if beat != self._last:
            self._last, self._silent_s = beat, 0.0
        else:
            self._silent_s += watched_s
        return self._silent_s > SILENCE_S_MAX
