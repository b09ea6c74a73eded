"""Reading the log: by position, by stream, by time, and waiting for more."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from eventsourcing.persistence import InterfaceError, OperationalError
from eventsourcing.utils import retry
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier

from domain.recorded import EVENT_BYTES_MAX
from eventlog.codec import Row, time_of
from eventlog.table import CONNECT_TIMEOUT_S, EVENTS_TABLE, LOG_CHANNEL, Datastore, EventRecorder

WAKE_S = 1.0
RECONNECT_S = 0.2
REST_S = 0.01
# Of what follows the log and folds or relays it: thousands of common events, which have some hundred bytes.
PAGE_BYTES_MAX = 16 * 1024 * 1024
PORTION_BYTES_MAX = 4 * 1024 * 1024

_SELECT = SQL("SELECT originator_id, originator_version, notification_id, topic, state FROM {events} ").format(
    events=EVENTS_TABLE
)
_ONE = _SELECT + SQL("WHERE notification_id = %s")
_PAGE = _SELECT + SQL("WHERE notification_id > %s ORDER BY notification_id LIMIT %s")
_BOUNDED_PAGE = SQL(
    "SELECT originator_id, originator_version, notification_id, topic, state FROM ("
    " SELECT *, sum(octet_length(state)) OVER (ORDER BY notification_id ROWS UNBOUNDED PRECEDING) AS bytes"
    " FROM {events} WHERE notification_id > %s ORDER BY notification_id LIMIT %s"
    ") AS page WHERE bytes - octet_length(state) < %s ORDER BY notification_id"
).format(events=EVENTS_TABLE)
_OF_TOPICS = _SELECT + SQL(
    "WHERE notification_id > %s AND notification_id <= %s AND starts_with(topic, %s) ORDER BY notification_id"
)
_END = _SELECT + SQL("ORDER BY notification_id DESC LIMIT 1")
_STREAM = _SELECT + SQL("WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version LIMIT %s")
# What is passed over costs no more than a look at its length: large states stand elsewhere in the table.
_PORTION = """
    SELECT originator_id, originator_version, notification_id, topic, state FROM (
        SELECT *, sum(octet_length(state)) OVER (ORDER BY {by} ROWS UNBOUNDED PRECEDING) AS bytes
        FROM {events} WHERE notification_id > %(low)s AND notification_id <= %(high)s {where}
        ORDER BY {by} LIMIT %(limit)s
    ) AS portion WHERE bytes - octet_length(state) < %(bytes)s ORDER BY {by}
"""
_LAST_OF_EACH = SQL(
    "SELECT last.* FROM unnest(%s::text[]) AS asked (stream) CROSS JOIN LATERAL"
    " ({select} WHERE originator_id = stream ORDER BY originator_version DESC LIMIT 1) AS last"
).format(select=_SELECT)


class OtherHistory(Exception):
    """The log no longer holds an event that was read from it: it lost its end, was restored, or is another log."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the log no longer has the event that was read at position {position}")
        self.position = position


def rows_after(position: int, at: int, rows: list[Row]) -> list[Row]:
    """What comes after the event at `position` whose time is `at`, with which the rows must begin.

    Raises:
        OtherHistory: they do not.
    """
    if not rows or rows[0].position != position or time_of(rows[0]) != at:
        raise OtherHistory(position)
    return rows[1:]


class LogReader:
    """Reads through the library's recorder, with a small pool of its own. Call it in a thread: it blocks.

    Constructing it does not connect. With the server down a read blocks for about ten seconds, then raises the
    library's OperationalError. Safe to share between threads.
    """

    def __init__(self, conninfo: str) -> None:
        self.recorder = EventRecorder(Datastore(conninfo))

    def page(self, after: int, limit: int) -> list[Row]:
        """At most `limit` rows after position `after`, rising."""
        # Not `select_notifications`, which makes a dataclass of each row, and we another: 3 × on a page of 5,000.
        rows: list[Row] = self._rows(_PAGE, (after, limit))
        return rows

    def portion(
        self,
        low: int,
        high: int,
        *,
        limit: int,
        is_falling: bool = False,
        stream: str | None = None,
        topic: str | None = None,
    ) -> list[Row]:
        """Rows after position `low` up to `high`, rising or falling: at most `limit`, and at most PORTION_BYTES_MAX and
        one more, so that a stranger's large events are not held by the thousand."""
        query = _portion(is_falling=is_falling, of_stream=stream is not None, of_topic=topic is not None)
        values = {
            "low": low,
            "high": high,
            "limit": limit,
            "bytes": PORTION_BYTES_MAX,
            "stream": stream,
            "topic": topic,
        }
        rows: list[Row] = self._rows(query, values)
        return rows

    def follow(self, position: int, at: int, limit: int) -> list[Row]:
        """At most `limit` rows after the event at `position` whose time is `at`, rising; from the beginning: 0, 0.

        The event itself is read once more, in the same query: a log that lost its last command and was written on has
        another one at that position. A command's time is its own, so that it tells.

        Large events end a page before its limit, at PAGE_BYTES_MAX and one more: `ends_early` tells it from the log's
        end.

        Raises:
            OtherHistory: the log does not hold that event.
        """
        if position == 0:
            return self._bounded(0, limit)
        return rows_after(position, at, self._bounded(position - 1, limit + 1))

    def _bounded(self, after: int, limit: int) -> list[Row]:
        rows: list[Row] = self._rows(_BOUNDED_PAGE, (after, limit, PAGE_BYTES_MAX))
        return rows

    def of_topics(self, prefix: str, *, after: int, until: int) -> list[Row]:
        """The rows after a position, up to another, whose topics begin so; passes over all between, in the server."""
        rows: list[Row] = self._rows(_OF_TOPICS, (after, until, prefix))
        return rows

    def end(self) -> int:
        """The last position, 0 of an empty log."""
        end: int | None = self.recorder.max_notification_id()
        return end or 0

    def last(self) -> Row | None:
        """The last event; None of an empty log."""
        rows = self._rows(_END, ())
        return rows[0] if rows else None

    def row(self, position: int) -> Row | None:
        rows = self._rows(_ONE, (position,))
        return rows[0] if rows else None

    def stream(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Row]:
        """The rows of one stream with a version above `after`, rising; all of them, unless there is a `limit`."""
        rows: list[Row] = self._rows(_STREAM, (stream, after, limit))
        return rows

    def existing(self, streams: Sequence[str]) -> dict[str, Row]:
        """The last row of each of `streams` that exists: one query, about a millisecond for 256 keys."""
        if not streams:
            return {}
        return {row.stream: row for row in self._rows(_LAST_OF_EACH, (list(streams),))}

    def position_at(self, at_us: int) -> int:
        """The end of the last command at or before a time, in microseconds since 1970; 0 if there is none.

        Times rise with positions, so it is found by bisection: some 24 look-ups in ten million events.
        """
        return self._last_until(at_us, 0, self.end())

    def command_end(self, position: int) -> int:
        """The position of the last event of the command (or atomic batch) that `position` belongs to; 0 for 0.

        Raises:
            LookupError: `position` is beyond the log's end.
        """
        if position == 0:
            return 0
        # All events of a command share one time, and no others have it. Most commands are short: look near first.
        at_us, low, step = self.time_at(position), position, 1
        end = self.end()
        while low + step <= end and self.time_at(low + step) == at_us:
            low, step = low + step, step * 2
        return self._last_until(at_us, low, min(low + step, end))

    def time_at(self, position: int) -> int:
        """When the event at a position was recorded, in microseconds since 1970.

        Raises:
            LookupError: nothing stands there.
        """
        row = self.row(position)
        if row is None:
            raise LookupError(f"The log has no event at position {position} of the log.")
        return time_of(row)

    def close(self) -> None:
        self.recorder.datastore.close()

    def _last_until(self, at_us: int, low: int, high: int) -> int:
        """The last position from `low` to `high` whose time is at most `at_us`, where `low`'s is."""
        while low < high:
            middle = (low + high + 1) // 2
            if self.time_at(middle) <= at_us:
                low = middle
            else:
                high = middle - 1
        return low

    @retry((InterfaceError, OperationalError), max_attempts=10, wait=0.2)
    def _rows(self, query: Composed, values: tuple[Any, ...] | dict[str, Any]) -> list[Row]:
        with (
            self.recorder.datastore.get_connection() as connection,
            connection.cursor(binary=True, row_factory=tuple_row) as cursor,
        ):
            return [Row(*row) for row in cursor.execute(query, values, prepare=True)]


@lru_cache
def _portion(*, is_falling: bool, of_stream: bool, of_topic: bool) -> Composed:
    # A stream's versions rise with positions, and have the index.
    by = SQL("originator_version" if of_stream else "notification_id") + SQL(" DESC" if is_falling else "")
    where = SQL("AND originator_id = %(stream)s " if of_stream else "") + SQL(
        "AND topic = %(topic)s" if of_topic else ""
    )
    return SQL(_PORTION).format(by=by, events=EVENTS_TABLE, where=where)


def ends_early(page: Sequence[Row]) -> bool:
    """Whether a page of `follow` that is not full may have ended for its bytes, and not at the log's end. The event
    before it counted too."""
    return bool(page) and sum(len(row.state) for row in page) >= PAGE_BYTES_MAX - EVENT_BYTES_MAX


def is_cut(rows: Sequence[Row], *, limit: int) -> bool:
    """Whether a portion ended for what it holds, and not since there is no more."""
    return len(rows) == limit or sum(len(row.state) for row in rows) >= PORTION_BYTES_MAX


async def log_changes(conninfo: str, *, wake_s: float = WAKE_S, rest_s: float = REST_S) -> AsyncGenerator[None, None]:
    """Yields at once, whenever something was appended, and each `wake_s` in any case: then read on from there.

    But not within `rest_s` of the last time: under load there is an append every few milliseconds, and reading each by
    itself costs most of what its reader uses. What comes alone is not waited for.

    It survives the server's restarts and never ends by itself. Close it (`contextlib.aclosing`) to end its connection.
    """
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
            ) as connection:
                await connection.execute(SQL("LISTEN {}").format(Identifier(LOG_CHANNEL)))
                while True:
                    yield
                    await asyncio.sleep(rest_s)
                    async for _ in connection.notifies(timeout=wake_s, stop_after=1):
                        pass
        except psycopg.OperationalError:
            yield
            await asyncio.sleep(RECONNECT_S)
