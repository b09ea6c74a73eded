"""The log, live: one task a process reads what is appended, and hands it to everybody who listens.

    log ─► Tail ─► on_event (tokens)  ─► bounded queue of each subscriber ─► its SSE stream

A subscriber that is too slow is dropped; it comes back with `Last-Event-ID` and reads from the log what it missed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import structlog
from eventsourcing.persistence import PersistenceError
from psycopg import Error as DatabaseError

from domain.recorded import Recorded
from eventlog.codec import Row, decode
from eventlog.read import LogReader
from eventlog.tasks import end_tasks

QUEUE_EVENTS_MAX = 4_096
PAGE_EVENTS = 1_000
RETRY_S = 0.2
# Under load there is an append every few milliseconds; reading each by itself would cost more than it gives.
PAUSE_S_LISTENED, PAUSE_S_ALONE = 0.02, 0.2

log = structlog.get_logger()

Event = tuple[Row, Recorded]


class Subscription:
    """What came after `position`, in order; `is_dropped` when it was not taken away fast enough."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_EVENTS_MAX)
        self.is_dropped = False

    def offer(self, event: Event) -> None:
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.is_dropped = True


class Tail:
    """Owns the task. `began_at` is the position after which everything is seen."""

    def __init__(
        self, reader: LogReader, changes: Callable[[], AsyncIterator[None]], *, on_event: Callable[[Recorded], None]
    ) -> None:
        self._reader = reader
        self._changes = changes
        self._on_event = on_event
        self._subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self.began_at = 0
        self.position = 0

    async def start(self) -> None:
        self.began_at = self.position = await asyncio.to_thread(self._reader.end)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_tell_end)

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks(self._task)
        self._task = None

    async def read(self, after: int) -> AsyncIterator[Event | None]:
        """Everything after a position: from the log until nothing is missing, then live.

        None comes when nothing came for a second, so that the reader can look whether it should go on. Ends when the
        reader was too slow.
        """
        while after < self.position:
            for row in await asyncio.to_thread(self._reader.page, after, PAGE_EVENTS):
                after = row.position
                yield row, decode(row)
        # No await between this and the comparison above: nothing is handed out in between.
        subscription = Subscription(after)
        self._subscriptions.add(subscription)
        try:
            while not subscription.is_dropped:
                try:
                    async with asyncio.timeout(1.0):
                        event = await subscription.queue.get()
                except TimeoutError:
                    yield None
                    continue
                if event[0].position > after:
                    yield event
            log.warning("slow listener dropped", position=after)
        finally:
            self._subscriptions.discard(subscription)

    async def _run(self) -> None:
        async with contextlib.aclosing(self._changes()) as changes:  # type: ignore[type-var]
            async for _ in changes:
                try:
                    await self._hand_out()
                    await asyncio.sleep(PAUSE_S_LISTENED if self._subscriptions else PAUSE_S_ALONE)
                except (DatabaseError, PersistenceError, OSError) as error:
                    log.warning("live tail interrupted", position=self.position, error=str(error).strip())
                    await asyncio.sleep(RETRY_S)

    async def _hand_out(self) -> None:
        while rows := await asyncio.to_thread(self._reader.page, self.position, PAGE_EVENTS):
            for row in rows:
                # Most events concern nobody here: without listeners only a token's is decoded.
                if row.topic.startswith("token."):
                    self._on_event(decode(row))
                self.position = row.position
                if self._subscriptions:
                    event = row, decode(row)
                    for subscription in self._subscriptions:
                        subscription.offer(event)


def _tell_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        # An event of a newer version: nothing that was not understood may be skipped, so it stays where it is.
        log.error("live tail stopped", error=str(failure))
