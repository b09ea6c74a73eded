"""Log → read model: fold a page, write the rows that it changed and the new position in one transaction, tell readers.

    log ── page ──► changes.fold ──► changes.write + position ──► NOTIFY
                         └── now and then ──► a checkpoint of the fleet

Rows and position are committed together, so a page counts exactly once, however often the projector is killed. A commit
may be lost in a crash (`synchronous_commit` is off), but never one without the other.
"""

import asyncio
import contextlib
import gc
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from psycopg import errors
from psycopg.types.numeric import Int8BinaryDumper

from domain.fleet import Fleet
from domain.recorded import Recorded
from eventlog import arrays, checkpoints
from eventlog.checkpoints import EVENTS_BETWEEN_MIN, Checkpointer
from eventlog.codec import Row, UnknownTopic, decode
from eventlog.components import Health, reason_of
from eventlog.read import LogReader, OtherHistory, ends_early, log_changes
from projections import changes, inheriting, schema
from projections.broken import Broken
from projections.changes import Changes
from projections.definitions import SCHEMA
from projections.sums import Sums
from projections.tables import CHANNEL

PAGE_EVENTS = 4_000
REFOLD_PAGE_EVENTS = 10_000
LOCK_RETRY_S = 0.2
RETRY_S = 0.5

_ADVANCE = (
    "WITH advanced AS (UPDATE progress SET log = %b, position = %b, at = %b WHERE position = %b RETURNING 1)"
    " SELECT count(*), pg_notify(%b, %b) FROM advanced"
)

log = structlog.get_logger()


class Displaced(Exception):
    """The tables are not where this projector left them: wiped, or moved on by another. Open it again."""


class Projector:
    """Keeps one schema. Blocking: call it in a thread, one call at a time.

    One at a time projects each schema: `open` waits for the lock that another holds.
    """

    def __init__(
        self, conninfo: str, reader: LogReader, *, in_schema: str = SCHEMA, checkpointer: Checkpointer | None = None
    ) -> None:
        self.schema = in_schema
        self.fleet = Fleet()
        self._sums, self._broken = Sums(), Broken()  # the fleet's
        self._conninfo = conninfo
        self._reader = reader
        self._checkpointer = checkpointer
        self._connection: psycopg.Connection[Any] | None = None
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="projector-reads")
        # The page after the event at a position and its time, read while one is written.
        self._ahead: tuple[tuple[int, int], Future[list[Row]]] | None = None
        self._rest: list[Recorded] = []  # read and decoded, but their command may go on in the next page
        self._unwritten: Changes | None = None  # folded, but not known to be committed
        self._is_complete = False

    @property
    def position(self) -> int:
        return self.fleet.position

    def open(self) -> None:
        """Take the lock, make what is missing, and bring fleet and tables to one position.

        Cost: a fold from the last checkpoint before the tables' position, unless the fleet stands there already.
        """
        self.close()
        self._ahead, self._rest = None, []  # what was read before may be of a log that has been replaced
        connection = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=2, application_name="projector")
        self._connection = connection
        while not schema.try_lock(connection, self.schema):
            # Asked again and again, as a statement that waits would hold back vacuum for as long.
            time.sleep(LOCK_RETRY_S)
        arrays.register(connection)
        connection.execute("SET synchronous_commit = off")
        if not schema.stands(connection, self.schema):
            self._make()
        connection.execute(schema.USE, (self.schema,))
        self._settle()

    def catch_up(self, *, until: int | None = None, pages_max: int | None = None) -> int:
        """Project what stands in the log now, at most up to `until` (a command's end); answers how many events.

        Raises:
            UnknownTopic: the log holds an event that is not known here; nothing behind it is projected.
            OtherHistory: the log does not hold what the tables show.
            Displaced: somebody else changed the tables.
        """
        total, pages = 0, 0
        while pages_max is None or pages < pages_max:
            events, is_end = self._whole_commands(until)
            if events:
                self._unwritten = changes.fold(self.fleet, self._sums, self._broken, events)
                self._write()
                if self._checkpointer is not None:
                    self._checkpointer.note(self.fleet)
            if is_end:
                self._must_stand()
                return total + len(events)
            total, pages = total + len(events), pages + 1
        return total

    def complete(self) -> list[str]:
        """It has caught up: readers may come, and models of other definitions go, those that nobody reads.

        Answers their names. A schema of another name than ours is one of the past, and drops nothing.
        """
        if self._is_complete:
            return []
        connection = self._opened()
        connection.execute("UPDATE progress SET is_complete = true")
        self._is_complete = True
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{self.schema} {self.position} {self.fleet.at}"))
        return schema.drop_unused(connection, but=SCHEMA) if self.schema == SCHEMA else []

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> psycopg.Connection[Any]:
        assert self._connection is not None, "open it first"
        return self._connection

    def _settle(self) -> None:
        """Fleet and tables to one position; a page whose outcome was unknown is written if it does not stand."""
        stands, self._is_complete = self._standing()
        log_id, position, at = stands
        if self._unwritten is not None:
            if (log_id, position) == (self.fleet.log, self._unwritten.position):
                self._unwritten = None
            elif position == self._unwritten.base:
                self._write()
                return
        try:
            self._reader.follow(position, at, 1)  # or what stands there is not the log's
            if self._unwritten is None and self._fleet_stands() == stands and position:
                return
            self._begin_anew()
            self.fleet = self._fleet_at(position)
        except OtherHistory:
            self._begin_anew()
        if self._fleet_stands() != stands:
            # Of another log, or of one that went on otherwise: a restored backup, a fail-over. It is a cache.
            log.warning("read model of another history dropped", schema=self.schema, position=position)
            schema.make(self._opened(), self.schema)
            self._begin_anew()
            self._is_complete = False
        self._sums, self._broken = Sums.of(self.fleet), Broken.of(self.fleet)

    def _make(self) -> None:
        """The tables, from those of another definition as far as they are the same; else empty ones."""
        self._begin_anew()
        connection = self._opened()
        try:
            fleet = inheriting.make(connection, self.schema, fleet_at=self._fleet_at)
        except OtherHistory:
            fleet = None
        if fleet is None:
            schema.make(connection, self.schema)
        else:
            self.fleet, self._sums, self._broken = fleet, Sums.of(fleet), Broken.of(fleet)

    def _fleet_at(self, position: int) -> Fleet:
        """As it stood at a command's end, or at the log's end if that comes before.

        Raises:
            OtherHistory: the log became another one meanwhile.
        """
        fleet = Fleet()
        if position:
            checkpoints.restore(self._conninfo, fleet, until=position)
        while fleet.position < position:
            limit = min(REFOLD_PAGE_EVENTS, position - fleet.position)
            page = self._reader.follow(fleet.position, fleet.at, limit)
            for row in page:
                fleet.fold(decode(row))
            if not page:
                break
        return fleet

    def _fleet_stands(self) -> tuple[str, int, int]:
        return self.fleet.log, self.fleet.position, self.fleet.at

    def _begin_anew(self) -> None:
        """Nothing that was read or folded counts any more: not the page that was read ahead either."""
        self.fleet, self._rest, self._unwritten, self._ahead = Fleet(), [], None, None

    def _standing(self) -> tuple[tuple[str, int, int], bool]:
        found = self._opened().execute("SELECT log, position, at, is_complete FROM progress").fetchall()
        if len(found) != 1:
            schema.make(self._opened(), self.schema)
            return ("", 0, 0), False
        log_id, position, at, is_complete = found[0]
        return (str(log_id), int(position), int(at)), bool(is_complete)

    def _must_stand(self) -> None:
        found = self._opened().execute("SELECT position FROM progress").fetchall()
        if found != [(self.position,)]:
            raise Displaced(f"{self.schema} stands at {found}, not at {self.position}")

    def _whole_commands(self, until: int | None) -> tuple[list[Recorded], bool]:
        """The events that come next, cut at a command's end, and whether they are the last.

        All events of a command have one time, and a command is appended whole: so a page that is full is cut where the
        time changes, and one that is not ends with a command.
        """
        events = self._rest
        while True:
            after = (events[-1].position, events[-1].at) if events else (self.fleet.position, self.fleet.at)
            limit = PAGE_EVENTS if until is None else min(PAGE_EVENTS, until - after[0])
            page = self._page(after, limit) if limit > 0 else []
            events = events + [decode(row) for row in page]
            if len(page) < PAGE_EVENTS and not ends_early(page):
                self._rest = []
                return events, True
            if until is None:
                after = (events[-1].position, events[-1].at)
                self._ahead = (after, self._readers.submit(self._reader.follow, *after, PAGE_EVENTS))
            end = len(events)
            while end > 0 and events[end - 1].at == events[-1].at:
                end -= 1
            if end > 0:
                self._rest = events[end:]
                return events[:end], False

    def _page(self, after: tuple[int, int], limit: int) -> list[Row]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == after and limit == PAGE_EVENTS:
            return ahead[1].result()
        return self._reader.follow(*after, limit)

    def _write(self) -> None:
        written = self._unwritten
        assert written is not None
        connection = self._opened()
        with connection.transaction(), connection.cursor(binary=True) as cursor:
            # Always 8 bytes an integer: else the arrays' types follow the values, and a statement is prepared for each.
            cursor.adapters.register_dumper(int, Int8BinaryDumper)
            changes.write(cursor, written)
            told = f"{self.schema} {written.position} {written.at}"
            values = (self.fleet.log, written.position, written.at, written.base, CHANNEL, told)
            cursor.execute(_ADVANCE, values)
            advanced = cursor.fetchone()
            if advanced is None or advanced[0] != 1:
                raise Displaced(f"{self.schema} does not stand at {written.base}")
        self._unwritten = None


def catch_up(conninfo: str, reader: LogReader, *, in_schema: str = SCHEMA, until: int | None = None) -> int:
    """Bring a schema to the log's end, or to `until`, in one go; answers its position. Blocking."""
    projector = Projector(conninfo, reader, in_schema=in_schema)
    try:
        projector.open()
        projector.catch_up(until=until)
        projector.complete()
        return projector.position
    finally:
        projector.close()


async def run(conninfo: str, reader: LogReader, *, health: Health, checkpoint_events: int = EVENTS_BETWEEN_MIN) -> None:
    """Project for ever: woken by appends, and again after any fault of the database. To stop it, cancel it.

    It has the fleet at ends of commands, and nobody waits for it at once: so it writes the checkpoints, too.

    Raises:
        UnknownTopic: the log holds an event of a newer version.
    """
    checkpointer = Checkpointer(conninfo, events_between=checkpoint_events)
    projector = Projector(conninfo, reader, checkpointer=checkpointer)
    is_open = False
    async with contextlib.aclosing(log_changes(conninfo)) as appended:
        async for _ in appended:
            try:
                if not is_open:
                    await asyncio.to_thread(projector.open)
                    is_open = True
                    gc.freeze()  # what lives long is not walked through again and again
                await asyncio.to_thread(projector.catch_up)
                for dropped in await asyncio.to_thread(projector.complete):
                    log.info("unused read model dropped", schema=dropped)
                health.ok()
            except UnknownTopic as error:
                health.stopped(str(error))
                raise
            except (psycopg.Error, PersistenceError, Displaced, OtherHistory) as error:
                is_open = False
                health.troubled(str(error) if isinstance(error, Displaced | OtherHistory) else reason_of(error))
                log.warning("projecting interrupted", position=projector.position, error=str(error).strip())
                await asyncio.sleep(RETRY_S)


def standing(conninfo: str, *, in_schema: str = SCHEMA) -> tuple[int, int]:
    """Position and time (microseconds since 1970) of the tables; (0, 0) if there are none."""
    with psycopg.connect(conninfo, autocommit=True, connect_timeout=2) as connection:
        connection.execute(schema.USE, (in_schema,))
        try:
            row = connection.execute("SELECT position, at FROM progress").fetchone()
        except errors.UndefinedTable:
            row = None
        return (row[0], row[1]) if row is not None else (0, 0)
