"""The one way into the log: one statement an append, on the one connection that also holds the leader's lock.

    append(base, rows) ──► committed at base + 1 … base + n
                      ├──► Collision        another was there: fold what stands, decide again
                      ├──► DataRefused      a row that PostgreSQL won't take: bisect
                      └──► OutcomeUnknown   end the backend, regain the lock, then read_after(base): final now

Lock and append share a connection, so a writer that lost its lock has lost its way into the log too.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus, Format
from psycopg.sql import SQL

from eventlog import heartbeat
from eventlog.arrays import dump_bigints, dump_bytes, dump_texts
from eventlog.codec import Row
from eventlog.read import rows_after
from eventlog.table import EVENTS_TABLE, LOG_CHANNEL

LEADER_LOCK = 0x6265727468  # "berth"
TERMINATE_TIMEOUT_MS = 5_000
_APPLICATION = "berth log"

# A peer that is gone is noticed within a few seconds, not after the two hours that are TCP's default.
_CONNECTION_OPTIONS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
    "application_name": _APPLICATION,
}

# Binary arrays are 2.5 × faster than text from 300 events on. The base position's row must stand: that catches a
# batch whose predecessor failed, as the unique index on positions catches a deposed writer.
_PREPARE = SQL(
    "PREPARE append (bigint, text[], bigint[], text[], bytea[]) AS"
    " WITH appended AS ("
    " INSERT INTO {events} (notification_id, originator_id, originator_version, topic, state)"
    " SELECT $1 + n, stream, version, topic, state"
    " FROM unnest($2, $3, $4, $5) WITH ORDINALITY AS row (stream, version, topic, state, n)"
    " WHERE $1 = 0 OR EXISTS (SELECT FROM {events} WHERE notification_id = $1)"
    " RETURNING 1)"
    " SELECT count(*), pg_notify({channel}, '') FROM appended"
).format(events=EVENTS_TABLE, channel=LOG_CHANNEL)
_BINARY = [Format.BINARY] * 5

_READ_AFTER = SQL(
    "SELECT originator_id, originator_version, notification_id, topic, state FROM {events}"
    " WHERE notification_id > %s ORDER BY notification_id LIMIT %s"
).format(events=EVENTS_TABLE)

_END = SQL("SELECT coalesce(max(notification_id), 0) FROM {events}").format(events=EVENTS_TABLE)

_STANDING = SQL(
    "SELECT stream, EXISTS (SELECT FROM {events} WHERE notification_id = %s)"
    " FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS row (stream, version, n)"
    " JOIN {events} ON originator_id = stream AND originator_version = version ORDER BY n"
).format(events=EVENTS_TABLE)

# `database` is that of this connection, since advisory locks are; a bigint key is split over classid and objid.
_LOCK_HOLDER = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (classid::bigint << 32) + objid::bigint = %s"
)


class Collision(Exception):
    """The log is not what this writer believed; nothing was appended.

    `reason` is `base` (nothing stands at the base), `position` (another event stands after it), or `key`: a (stream,
    version) is taken though the positions are free, so a command's key was used before, or twice in this very append;
    `streams` names those.
    """

    def __init__(self, reason: Literal["base", "position", "key"], base: int, *, streams: Sequence[str] = ()) -> None:
        what = {
            "base": f"there is no event at position {base}",
            "position": f"another event is at position {base + 1}",
            "key": f"these exist already, or are appended twice: {', '.join(streams)}",
        }
        super().__init__(what[reason])
        self.reason = reason
        self.base = base
        self.streams = tuple(streams)


class DataRefused(Exception):
    """Some row can't be stored, whoever sends it: a NUL in a text, a stream's name too long. Nothing was appended."""


class OutcomeUnknown(Exception):
    """The connection was lost under the append: the batch may stand, not stand, or not stand yet."""


class CommitsAreNotDurable(Exception):
    """`synchronous_commit` is off: an acknowledged command could be lost."""


class LogConnection:
    """The connection of a leader, or of one who would be. One task at a time; never from a pool, never reconnected.

    Every method but `append` raises psycopg.OperationalError when the connection is lost.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.backend_pid = connection.info.backend_pid  # kept, so that what a lost connection left behind can be ended
        self._is_prepared = False

    @classmethod
    async def connect(cls, conninfo: str) -> "LogConnection":
        connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, **_CONNECTION_OPTIONS)
        setting = await (await connection.execute("SHOW synchronous_commit")).fetchone()
        if setting is None or setting[0] == "off":
            await connection.close()
            raise CommitsAreNotDurable("synchronous_commit is off for the service's role: set it to on.")
        return cls(connection)

    @property
    def is_open(self) -> bool:
        """False once the connection is known to be lost; True says only that nobody noticed yet."""
        return not self._connection.closed

    async def try_lock(self) -> bool:
        """Whether this connection holds the leader's lock now; takes it if it is free. Only closing gives it back."""
        row = await (await self._connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))).fetchone()
        return bool(row and row[0])

    async def holds_lock(self) -> bool:
        return await self.lock_holder() == self.backend_pid

    async def lock_holder(self) -> int | None:
        """The backend that holds the leader's lock, for `terminate_backend`."""
        row = await (await self._connection.execute(_LOCK_HOLDER, (LEADER_LOCK,))).fetchone()
        return row[0] if row else None

    async def append(self, base: int, rows: Sequence[Row]) -> None:
        """Append `rows`, numbered base + 1, base + 2, …, durably and all or none: one round trip.

        Base 0 opens the log: the first row is `log.opened`. Don't cancel it: a cancelled append is an unknown outcome.

        Raises:
            Collision: another writer was there, or the predecessor is missing.
            DataRefused: some row can't be stored.
            OutcomeUnknown: the connection was lost, or the server could not say.
        """
        assert rows, "an append of nothing"
        assert rows[0].position == base + 1, (base, rows[0])
        assert rows[-1].position == base + len(rows), (base, rows[-1])
        assert base > 0 or rows[0].topic == "log.opened", rows[0]
        try:
            appended = await self._execute_append(base, rows)
        except errors.UniqueViolation:
            raise await self._collision(base, rows) from None
        except (psycopg.DataError, errors.ProgramLimitExceeded, UnicodeEncodeError) as error:
            raise DataRefused(str(error)) from error
        except psycopg.Error as error:
            raise OutcomeUnknown(str(error)) from error
        if appended != len(rows):
            raise Collision("base", base)

    async def _execute_append(self, base: int, rows: Sequence[Row]) -> int:
        """How many rows were appended. Without a cursor, which takes as long as all the rest of a small append."""
        if not self._is_prepared:
            await self._connection.execute(_PREPARE)
            self._is_prepared = True
        values = (
            base.to_bytes(8),
            dump_texts([row.stream for row in rows]),
            dump_bigints([row.version for row in rows]),
            dump_texts([row.topic for row in rows]),
            dump_bytes([row.state for row in rows]),
        )
        pgconn = self._connection.pgconn
        async with self._connection.lock:
            pgconn.send_query_prepared(b"append", values, _BINARY, result_format=Format.BINARY)
            results = await self._connection.wait(generators.execute(pgconn))
        if not results:
            raise psycopg.OperationalError("the server gave no result")
        result = results[-1]  # the commit comes after the rows: if it fails, a second result says so
        if result.status != ExecStatus.TUPLES_OK:
            raise errors.error_from_result(result)
        return int.from_bytes(result.get_value(0, 0) or b"")

    async def begin_heartbeat(self) -> None:
        """Whoever led before is told that it does no more; to be called with the lock held."""
        await heartbeat.begin(self._connection, self.backend_pid)

    async def heartbeat(self) -> heartbeat.Beat | None:
        """The leader's last sign of life."""
        return await heartbeat.read(self._connection)

    async def end(self) -> int:
        """The last position, 0 of an empty log. Final once the lock is held, since no other can append then."""
        row = await (await self._connection.execute(_END)).fetchone()
        return int(row[0]) if row else 0

    async def read_after(self, base: int, limit: int) -> list[Row]:
        """At most `limit` rows after `base`, rising. With the lock held, the truth about an unknown outcome."""
        async with self._connection.cursor(binary=True) as cursor:
            await cursor.execute(_READ_AFTER, (base, limit))
            return [Row(*row) for row in await cursor.fetchall()]

    async def follow(self, position: int, at: int, limit: int) -> list[Row]:
        """The same, after the event that was folded last, whose time is `at`; 0 and 0 at the beginning.

        Raises:
            OtherHistory: the log does not hold that event.
        """
        if position == 0:
            return await self.read_after(0, limit)
        return rows_after(position, at, await self.read_after(position - 1, limit + 1))

    async def close(self) -> None:
        await self._connection.close()

    async def _collision(self, base: int, rows: Sequence[Row]) -> Collision:
        """Which rows collide. A query finds out, as the violated index does not say: a taken position mostly violates
        both."""
        try:
            cursor = await self._connection.execute(
                _STANDING, (base + 1, [row.stream for row in rows], [row.version for row in rows])
            )
            standing = await cursor.fetchall()
        except psycopg.Error as error:
            raise OutcomeUnknown(str(error)) from error
        if standing and not standing[0][1]:
            return Collision("key", base, streams=[row[0] for row in standing])
        counts = Counter((row.stream, row.version) for row in rows)
        if twice := [stream for (stream, _), count in counts.items() if count > 1]:
            return Collision("key", base, streams=twice)
        return Collision("position", base)


async def terminate_backend(conninfo: str, pid: int) -> bool:
    """Terminate the backend that a lost LogConnection left on the server, over a new connection; True if it is gone.

    PostgreSQL can't terminate a backend during COMMIT, so don't trust this result: regain the lock, then read the log's
    end.
    """
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=3) as connection:
        # The pid may belong to another process by now, so only connections to the log are terminated.
        cursor = await connection.execute(
            "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
            " WHERE pid = %s AND usename = current_user AND application_name = %s",
            (TERMINATE_TIMEOUT_MS, pid, _APPLICATION),
        )
        row = await cursor.fetchone()
        return row is None or bool(row[0])
