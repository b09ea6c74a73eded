"""Log → BERTH_EVENTS, in order, each event at its position: a message's stream sequence *is* its log position.

The stream's last sequence is the relay's only memory: at the start and after any error it is read, and the relay
goes on after it. A page is a chain: every message names the sequence that it expects before it, so the one
acknowledgement of the last proves all.
"""

import asyncio
import contextlib
import time

import msgspec
import nats.errors
import nats.js.errors
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamInfo, StreamSource, SubjectTransform

from domain.values import to_rfc3339
from eventlog.codec import Row, decode, time_of
from eventlog.components import Health, reason_of
from eventlog.read import LogReader, OtherHistory, ends_early, log_changes
from messaging import subjects
from messaging.event_json import message, message_id

PAGE_EVENTS = 500
ACK_TIMEOUT_S = 5.0
RETRY_S = 0.2
REST_S = 0.005  # an event is to be in NATS within 20 ms
NOT_OURS_RETRY_S = 2.0
LOOK_S = 1.0
# Each message names the sequence before it, which already makes it stand once. The server remembers the ids of this
# window: at 10,000 events a second its default of two minutes would be some hundred MiB.
DUPLICATES_S = 1.0
EXPECTED = "Nats-Expected-Last-Sequence"

log = structlog.get_logger()


class NotOurStream(Exception):
    """The stream holds what the log does not. Nothing is published until a person has looked."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{subjects.EVENTS} {why} Nothing more is relayed. Find out whether the database was restored from a"
            " backup, or belongs to another installation; then `berth relay rebuild` fills it anew from the log."
        )


class AuditStandsStill(Exception):
    """BERTH_AUDIT takes nothing more, though there is something; the server tries again by itself."""

    def __init__(self, lag: int) -> None:
        super().__init__(f"{subjects.AUDIT} lacks {lag} messages of {subjects.EVENTS}, and takes none.")


class _OfCommand(msgspec.Struct, frozen=True):
    command: str
    at: str


_decode_command = msgspec.json.Decoder(_OfCommand).decode


class Relay:
    """Relays one log. `position` is the last that NATS is known to hold."""

    def __init__(self, client: Client, reader: LogReader) -> None:
        self._client = client
        self._stream = client.jetstream(timeout=ACK_TIMEOUT_S)
        self._reader = reader
        self._log = ""
        self.position = 0
        self._at = 0  # the time of the event there
        self._copied: int | None = None  # how far BERTH_AUDIT was when it was last looked at

    async def open(self) -> None:
        """Make missing streams, and find out where to go on. To be called again after any error.

        Raises:
            NotOurStream: the stream's last message is not the log's event of that position, or lies beyond its end.
        """
        first = await asyncio.to_thread(self._reader.row, 1)
        self._log = decode(first).event.log if first is not None else ""
        info = await make_streams(self._stream)
        self.position, self._at = info.state.last_seq, 0
        if self.position:
            self._at = await self._must_be_ours(info)

    async def catch_up(self) -> int:
        """Publish all that the log holds now; answers how many events that was.

        Raises:
            OtherHistory: the log does not hold the event that was relayed last. Open it again.
        """
        before = self.position
        rows = await self._page(before, self._at)
        while len(rows) == PAGE_EVENTS or ends_early(rows):
            # While one page is on its way, the next is read.
            _, rows = await asyncio.gather(self._publish(rows), self._page(rows[-1].position, time_of(rows[-1])))
        if rows:
            await self._publish(rows)
        return self.position - before

    async def still_stands(self) -> bool:
        """Whether NATS holds what it held: its data may have been wiped while the log was quiet.

        Raises:
            AuditStandsStill: there is more to copy into BERTH_AUDIT than the last time, and nothing was.
        """
        events = await self._stream.stream_info(subjects.EVENTS)
        audit = await self._stream.stream_info(subjects.AUDIT)
        before, self._copied = self._copied, audit.state.last_seq
        source = audit.sources[0] if audit.sources else None
        if source is not None and source.lag and before == self._copied:
            raise AuditStandsStill(source.lag)
        return bool(events.state.last_seq == self.position)

    async def _page(self, after: int, at: int) -> list[Row]:
        return await asyncio.to_thread(self._reader.follow, after, at, PAGE_EVENTS)

    async def _publish(self, rows: list[Row]) -> None:
        if not self._log:  # it was empty when we opened
            self._log = decode(rows[0]).event.log
        *before, last = rows
        if before:
            # As one block: nats-py's `publish` looks at each header by itself, 4 × what making the message takes.
            await self._client._send_command(b"".join([self._wire_form(row) for row in before]))
        body, headers = self._message(last)
        ack = await self._stream.publish(subjects.of_event(last), body, headers=headers, timeout=ACK_TIMEOUT_S)
        if ack.seq != last.position:
            raise NotOurStream(f"took the event of position {last.position} as its message {ack.seq}.")
        self.position, self._at = last.position, time_of(last)

    def _wire_form(self, row: Row) -> bytes:
        body, headers = self._message(row)
        return hpub(subjects.of_event(row), body, headers)

    def _message(self, row: Row) -> tuple[bytes, dict[str, str]]:
        body, headers = message(row, log=self._log)
        headers[EXPECTED] = str(row.position - 1)
        return body, headers

    async def _must_be_ours(self, info: StreamInfo) -> int:
        """The time of the event that the stream ends with."""
        row = await asyncio.to_thread(self._reader.row, self.position)
        if row is None:
            raise NotOurStream(f"holds {self.position} events, more than the log does.")
        if info.state.messages == 0:  # made anew to begin after this position
            return time_of(row)
        held = await self._stream.get_msg(subjects.EVENTS, seq=self.position)
        id = (held.headers or {}).get("Nats-Msg-Id")
        # A log that was restored and written on gives the same positions to other commands.
        is_ours = id == message_id(self.position, log=self._log)
        recorded = decode(row)
        if not is_ours or _decode_command(held.data or b"") != _OfCommand(recorded.command, to_rfc3339(recorded.at)):
            raise NotOurStream(f"holds another event at {self.position} than the log does.")
        return time_of(row)


def hpub(subject: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A message as it is sent to the server. What goes into headers are names and numbers: no line ends among them."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    head = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
    assert head.count(b"\n") == len(lines) + 2, head
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (subject.encode(), len(head), len(head) + len(body), head, body)


async def make_streams(stream: JetStreamContext, *, first: int = 1) -> StreamInfo:
    """Make BERTH_EVENTS, which begins at position `first`, and BERTH_AUDIT from it, where they are missing."""
    events = StreamConfig(
        name=subjects.EVENTS,
        subjects=[subjects.EVENT_SUBJECTS],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATES_S,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        first_seq=first,
    )
    transform = SubjectTransform(src=subjects.COMMAND_EVENTS, dest=subjects.AUDIT_SUBJECTS)
    audit = StreamConfig(
        name=subjects.AUDIT,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        sources=[StreamSource(name=subjects.EVENTS, subject_transforms=[transform])],
        duplicate_window=DUPLICATES_S,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
    )
    for config in (events, audit):
        try:
            await stream.stream_info(str(config.name))
        except nats.js.errors.NotFoundError:
            await stream.add_stream(config)
            log.info("stream made", stream=config.name)
    return await stream.stream_info(subjects.EVENTS)


async def rebuild(client: Client, *, first: int = 1) -> None:
    """Delete both streams and make them anew; a relay then fills them from the log, from position `first` on."""
    stream = client.jetstream()
    for name in (subjects.AUDIT, subjects.EVENTS):
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await stream.delete_stream(name)
            log.info("stream deleted", stream=name)
    await make_streams(stream, first=first)


async def run(client: Client, reader: LogReader, conninfo: str, *, health: Health) -> None:
    """Relay for ever. With a stream that is not the log's, say so and publish nothing until it was made anew."""
    relay = Relay(client, reader)
    is_open, looked_at, told = False, 0.0, ""
    async with contextlib.aclosing(log_changes(conninfo, rest_s=REST_S)) as changes:
        async for _ in changes:
            try:
                if not is_open:
                    await relay.open()
                    is_open = True
                    if not told:
                        health.troubled(f"{subjects.EVENTS} is being filled from the log, after {relay.position}.")
                        log.info("relaying", position=relay.position)
                await relay.catch_up()
                if looked_at < time.monotonic() - LOOK_S:
                    looked_at = time.monotonic()
                    is_open = await relay.still_stands()
            except NotOurStream as error:
                is_open, reason, pause_s = False, str(error), NOT_OURS_RETRY_S
                health.stopped(reason)
            except OtherHistory as error:  # opening it again tells whether the stream has it, too
                is_open, reason, pause_s = False, str(error), 0.0
            except AuditStandsStill as error:
                reason, pause_s = str(error), RETRY_S
                health.troubled(reason)
            except (nats.errors.Error, psycopg.Error, PersistenceError, OSError) as error:
                is_open, reason, pause_s = False, reason_of(error), RETRY_S
                health.troubled(reason)
            else:
                health.ok()
                if told:
                    told = ""
                    log.info("relaying again", position=relay.position)
                continue
            if reason != told:  # tried again and again, told once
                told = reason
                log.error("relaying interrupted", position=relay.position, reason=reason)
            await asyncio.sleep(pause_s)
