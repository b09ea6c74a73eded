"""Log → BERTH_EVENTS, in order, each event at its position: a message's stream sequence *is* its log position.

The stream's last sequence is the relay's only memory: at the start and after any error it is read, and the relay
goes on after it. A page is a chain: every message names the sequence that it expects before it, so the one
acknowledgement of the last proves all.
"""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo, StreamSource, SubjectTransform

from eventlog.codec import Row, decode
from eventlog.read import LogReader, log_changes
from messaging import subjects
from messaging.document import body, headers

PAGE_EVENTS = 500
ACK_TIMEOUT_S = 5.0
RETRY_S = 0.5
EXPECTED = "Nats-Expected-Last-Sequence"

log = structlog.get_logger()


class NotOurStream(Exception):
    """The stream holds what the log does not. Nothing is published until a person has looked."""


class Relay:
    """Relays one log. `position` is the last that NATS is known to hold."""

    def __init__(self, client: Client, reader: LogReader) -> None:
        self._client = client
        self._stream = client.jetstream(timeout=ACK_TIMEOUT_S)
        self._reader = reader
        self._log = ""
        self.position = 0

    async def open(self) -> None:
        """Make missing streams, and find out where to go on.

        Raises:
            NotOurStream: the stream's last message is not the log's event of that position, or lies beyond its end.
        """
        first = await asyncio.to_thread(self._reader.row, 1)
        self._log = decode(first).event.log if first is not None else ""
        info = await make_streams(self._stream)
        self.position = info.state.last_seq
        if self.position:
            await self._must_be_ours(info)

    async def catch_up(self) -> int:
        """Publish all that the log holds now; answers how many events that was."""
        total = 0
        while rows := await asyncio.to_thread(self._reader.page, self.position, PAGE_EVENTS):
            if not self._log:
                self._log = decode(rows[0]).event.log
            await self._publish(rows)
            total += len(rows)
        return total

    async def still_stands(self) -> bool:
        """Whether NATS holds what it held: its data may have been wiped while the log was quiet."""
        info = await self._stream.stream_info(subjects.EVENTS)
        return bool(info.state.last_seq == self.position)

    async def _publish(self, rows: list[Row]) -> None:
        for row in rows[:-1]:
            await self._client.publish(subjects.of_event(row), body(row), headers=self._headers(row))
        last = rows[-1]
        ack = await self._stream.publish(
            subjects.of_event(last), body(last), headers=self._headers(last), timeout=ACK_TIMEOUT_S
        )
        if ack.seq != last.position:
            raise NotOurStream(f"NATS stored the event of position {last.position} as number {ack.seq}")
        self.position = last.position

    def _headers(self, row: Row) -> dict[str, str]:
        return {**headers(row, log=self._log), EXPECTED: str(row.position - 1)}

    async def _must_be_ours(self, info: StreamInfo) -> None:
        row = await asyncio.to_thread(self._reader.row, self.position)
        if row is None:
            raise NotOurStream(
                f"{subjects.EVENTS} holds {self.position} events, more than the log: was the database restored from a"
                " backup? Look at both; `python -m workers relay-rebuild` makes the stream anew from the log."
            )
        if info.state.messages == 0:
            return
        message = await self._stream.get_msg(subjects.EVENTS, seq=self.position)
        if message.data != body(row):
            raise NotOurStream(
                f"{subjects.EVENTS} holds another event at {self.position} than the log: `python -m workers"
                " relay-rebuild` makes the stream anew from the log."
            )


async def make_streams(stream: JetStreamContext) -> StreamInfo:
    """Make BERTH_EVENTS, and BERTH_AUDIT from it, where they are missing."""
    events = StreamConfig(
        name=subjects.EVENTS,
        subjects=[subjects.EVENT_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
    )
    transform = SubjectTransform(src=subjects.COMMAND_EVENTS, dest=subjects.AUDIT_SUBJECTS)
    audit = StreamConfig(
        name=subjects.AUDIT,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        sources=[StreamSource(name=subjects.EVENTS, subject_transforms=[transform])],
        allow_direct=True,
    )
    for config in (events, audit):
        try:
            await stream.stream_info(str(config.name))
        except nats.js.errors.NotFoundError:
            await stream.add_stream(config)
            log.info("stream made", stream=config.name)
    return await stream.stream_info(subjects.EVENTS)


async def rebuild(client: Client) -> None:
    """Delete both streams; the relay fills new ones from the log."""
    stream = client.jetstream()
    for name in (subjects.AUDIT, subjects.EVENTS):
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await stream.delete_stream(name)
    await make_streams(stream)


async def run(client: Client, reader: LogReader, conninfo: str) -> None:
    """Relay for ever. Ends with NotOurStream alone."""
    relay = Relay(client, reader)
    is_open = False
    async with contextlib.aclosing(log_changes(conninfo)) as changes:
        async for _ in changes:
            try:
                if not is_open:
                    await relay.open()
                    is_open = True
                    log.info("relaying", position=relay.position)
                if not await relay.catch_up():
                    is_open = await relay.still_stands()
            except (nats.errors.Error, nats.js.errors.Error, psycopg.Error, PersistenceError, OSError) as error:
                is_open = False
                log.warning("relaying again", position=relay.position, error=str(error))
                await asyncio.sleep(RETRY_S)
