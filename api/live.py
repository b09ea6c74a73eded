"""The log, live: one task a process reads what is appended, and hands it to everybody who listens.

    log ─► Tail ─► on_event (tokens)  ─► bounded queue of each subscriber ─► its SSE stream

A subscriber that is too slow is dropped, and what waited for it with it; it comes back with `Last-Event-ID` and reads
from the log what it missed.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from functools import partial

import structlog
from eventsourcing.persistence import PersistenceError
from psycopg import Error as DatabaseError

from api.turns import Turns
from domain.recorded import Recorded
from eventlog.codec import Row, decode, time_of
from eventlog.read import LogReader, OtherHistory, ends_early
from eventlog.tasks import end_tasks

QUEUE_EVENTS_MAX = 4_096
# All queues hold the newest events, and the same ones: together they hold no more than the longest of them.
QUEUE_BYTES_MAX = 32 * 1024 * 1024
LISTENERS_MAX = 1_000
PAGE_EVENTS = 1_000
BACKLOG_EVENTS = 500
TAKEN_AT_ONCE = 100
RETRY_S = 0.2
TOKEN_TOPICS = "token."
# Under load there is an append every few milliseconds; reading each by itself would cost more than it gives.
PAUSE_S_LISTENED, PAUSE_S_ALONE = 0.02, 0.2

log = structlog.get_logger()

Event = tuple[Row, Recorded]


class Subscription:
    """What came and was not taken yet, in order. When it grows too much, `dropped` is set, and nothing is kept."""

    def __init__(self, dropped: asyncio.Event) -> None:
        self.dropped = dropped
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._came = asyncio.Event()

    def offer(self, event: Event) -> None:
        self._events.append(event)
        self._bytes += len(event[0].state)
        if len(self._events) > QUEUE_EVENTS_MAX or self._bytes > QUEUE_BYTES_MAX:
            self.drop()
        self._came.set()

    def drop(self) -> None:
        # Whoever listens may be held up in writing for long, and can't let go by itself meanwhile.
        self._events.clear()
        self.dropped.set()
        self._came.set()

    async def next(self) -> list[Row]:
        """The next ones, or none if it was dropped."""
        while not self.dropped.is_set():
            if self._events:
                rows = [self._events.popleft()[0] for _ in range(min(len(self._events), TAKEN_AT_ONCE))]
                self._bytes -= sum(len(row.state) for row in rows)
                return rows
            self._came.clear()
            await self._came.wait()
        return []


class Tail:
    """Owns the task. `began_at` is the position after which everything is seen. `on_replaced` is told when the log
    does not hold any more what was read from it: all that was learned from it is worth nothing, and whoever listened
    is dropped."""

    def __init__(
        self,
        reader: LogReader,
        changes: Callable[[], AsyncGenerator[None]],
        *,
        on_event: Callable[[Recorded], None],
        on_replaced: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._changes = changes
        self._on_event = on_event
        self._on_replaced = on_replaced
        self._subscriptions: set[Subscription] = set()
        self._listeners: set[asyncio.Event] = set()  # of each what it is dropped by
        self._task: asyncio.Task[None] | None = None
        self.turns = Turns()
        self.began_at = 0
        self.position = 0
        self._at = 0  # the time of the event there
        self._history = 0  # rises when the log is found to be another one
        self.ended_by = "The live tail of the log has not begun."
        self.is_ending = False

    async def start(self) -> None:
        await self._begin_at_end()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._tell_end)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def end_streams(self) -> None:
        """The process stops: nobody listens any more, and nobody new."""
        self.is_ending = True
        for subscription in self._subscriptions:
            subscription.drop()
        for dropped in self._listeners:
            dropped.set()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks(self._task)
        self._task = None

    @property
    def is_full(self) -> bool:
        return len(self._listeners) >= LISTENERS_MAX

    async def read(self, after: int, *, dropped: asyncio.Event) -> AsyncGenerator[list[Row], None]:
        """Everything after a position, in portions: from the log until nothing is missing, then live.

        An empty one comes when nothing came for a second, so that the reader can look whether it should go on. Ends
        when the reader was too slow, or the process stops; `dropped` is set at the moment when that is known.
        """
        self._listeners.add(dropped)
        if self.is_ending:
            dropped.set()
        try:
            async with contextlib.aclosing(self._read(after, dropped)) as portions:
                async for rows in portions:
                    yield rows
        finally:
            self._listeners.discard(dropped)

    async def _read(self, after: int, dropped: asyncio.Event) -> AsyncGenerator[list[Row], None]:
        history = self._history
        while after < self.position and not dropped.is_set():
            rows = await asyncio.to_thread(partial(self._reader.portion, after, self.position, limit=BACKLOG_EVENTS))
            if history != self._history:
                dropped.set()
                return
            if rows:
                after = rows[-1].position
                yield rows
            else:  # a log that was replaced by a shorter one
                await asyncio.sleep(RETRY_S)
        # No await between this and the comparison above: nothing is handed out in between.
        subscription = Subscription(dropped)
        self._subscriptions.add(subscription)
        try:
            while not dropped.is_set():
                try:
                    async with asyncio.timeout(1.0):
                        rows = await subscription.next()
                except TimeoutError:
                    yield []
                    continue
                if new := [row for row in rows if row.position > after]:
                    yield new
        finally:
            self._subscriptions.discard(subscription)

    async def _run(self) -> None:
        async with contextlib.aclosing(self._changes()) as changes:
            async for _ in changes:
                try:
                    try:
                        await self._hand_out()
                    except OtherHistory as error:
                        log.error("log replaced", reason=str(error))
                        await self._forget()
                    await asyncio.sleep(PAUSE_S_LISTENED if self._subscriptions else PAUSE_S_ALONE)
                except (DatabaseError, PersistenceError, OSError) as error:
                    log.warning("live tail interrupted", position=self.position, error=str(error).strip())
                    await asyncio.sleep(RETRY_S)

    async def _hand_out(self) -> None:
        while True:
            if not self._subscriptions:
                # Most events concern nobody here: without listeners a token's alone are fetched.
                end, tokens = await asyncio.to_thread(self._tokens)
                if self._subscriptions:  # somebody has come meanwhile, and needs all after our position
                    continue
                for row in tokens:
                    self._on_event(decode(row))
                if end is not None:
                    self.position, self._at = end.position, time_of(end)
                return
            rows = await asyncio.to_thread(self._reader.follow, self.position, self._at, PAGE_EVENTS)
            for row in rows:
                event = row, decode(row)
                if row.topic.startswith(TOKEN_TOPICS):
                    self._on_event(event[1])
                self.position, self._at = row.position, event[1].at
                for subscription in self._subscriptions:
                    subscription.offer(event)
            self._subscriptions = {one for one in self._subscriptions if not one.dropped.is_set()}
            if len(rows) < PAGE_EVENTS and not ends_early(rows):
                return

    def _tokens(self) -> tuple[Row | None, list[Row]]:
        """The log's last event, and the tokens' events up to there that were not seen."""
        self._reader.follow(self.position, self._at, 0)
        end = self._reader.last()
        if end is None:
            return None, []
        return end, self._reader.of_topics(TOKEN_TOPICS, after=self.position, until=end.position)

    async def _begin_at_end(self) -> None:
        end = await asyncio.to_thread(self._reader.last)
        self.began_at = self.position = end.position if end is not None else 0
        self._at = time_of(end) if end is not None else 0

    async def _forget(self) -> None:
        """Begin with the log that is there now. At first the tokens: no request may wait for the database meanwhile."""
        self._history += 1
        self._on_replaced()
        for subscription in self._subscriptions:
            subscription.drop()
        self._subscriptions.clear()
        await self._begin_at_end()
        self._on_replaced()  # what was looked up while it was not known yet where to begin

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            # An event of a newer version: nothing that was not understood may be skipped, so it stays where it is.
            self.ended_by = f"The live tail of the log stopped: {failure}"
            log.error("live tail stopped", error=str(failure))
