"""Work for controllers, level-triggered: every step of the fold that a controller must still begin is on BERTH_WORK.

What has begun is redelivered by NATS alone; if NATS was wiped, the step's deadline decides. So the log is never
replayed into work, and a wiped NATS gets exactly what is still to be begun.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from itertools import islice, takewhile

import msgspec
import nats.errors
import nats.js.errors
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from domain.fleet import Fleet
from domain.operation import KIND as OPERATION
from domain.operation import Step
from eventlog import checkpoints
from eventlog.codec import UnknownTopic, decode, time_of
from eventlog.components import Health, reason_of
from eventlog.read import LogReader, OtherHistory, ends_early, log_changes
from messaging import subjects

PAGE_EVENTS = 5_000
AT_ONCE_MAX = 500
AGAIN_S = 30.0
ACK_WAIT_S = 10.0
UNACKED_MAX = 5_000
LOOK_S = 1.0
RETRY_S = 0.2

log = structlog.get_logger()


class DispatchedStep(msgspec.Struct, frozen=True, gc=False):
    """An attempt that was published: when (seconds of the monotonic clock), and as which message of the stream."""

    step: str
    attempt: int
    at: float
    message: int


class Dispatcher:
    """Follows one log. `sent` holds what was published of the outstanding steps by operation, the oldest first; `due`
    the operations whose current attempt was not. An attempt that may not begin yet stays there: the log is followed
    again within seconds, even if nothing happens."""

    def __init__(
        self, client: Client, reader: LogReader, *, controllers: tuple[str, ...], again_s: float = AGAIN_S
    ) -> None:
        self._stream = client.jetstream()
        self._reader = reader
        self._controllers = controllers
        self._again_s = again_s
        # Operations alone are folded: they depend on nothing else, and are a third of all events.
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was folded: the log is not the one of before."""
        self._fleet = Fleet()
        self.position = 0
        self._at = 0  # the time of the event there
        self.sent: dict[str, DispatchedStep] = {}
        self.due: dict[str, None] = {}

    async def restore(self, conninfo: str) -> None:
        """Begin with the operations of the newest checkpoint, if there is one. Until then nothing may be followed."""
        assert not self.position, "it has followed already"
        if await asyncio.to_thread(checkpoints.restore, conninfo, self._fleet, only=OPERATION):
            self.position, self._at = self._fleet.position, self._fleet.at
            self.due = dict.fromkeys(self._fleet.outstanding)

    async def open(self) -> None:
        """Make the stream and the controllers' consumers where they are missing. A new stream gets all that is
        outstanding."""
        try:
            info = await self._stream.stream_info(subjects.WORK)
        except nats.js.errors.NotFoundError:
            config = StreamConfig(
                name=subjects.WORK,
                subjects=[subjects.WORK_SUBJECTS],
                retention=RetentionPolicy.WORK_QUEUE,
                storage=StorageType.FILE,
            )
            info = await self._stream.add_stream(config)
            self.sent.clear()
            self.due = dict.fromkeys(self._fleet.outstanding)
            log.info("stream made", stream=subjects.WORK)
        if info.state.consumer_count < len(self._controllers):
            for name in self._controllers:
                await self._stream.add_consumer(subjects.WORK, consumer_of(name))

    async def follow(self) -> None:
        """Fold what the log holds now, and publish what is outstanding and is not on the stream.

        Raises:
            OtherHistory: the log does not hold what was folded. Begin anew.
        """
        while True:
            rows = await asyncio.to_thread(self._reader.follow, self.position, self._at, PAGE_EVENTS)
            for row in rows:
                if row.stream.startswith("operation/"):
                    self._fleet.fold(decode(row))
                    self._note(row.stream[10:])
                self.position = row.position
            if rows:
                self._at = time_of(rows[-1])
            if len(rows) < PAGE_EVENTS and not ends_early(rows):
                break
        now = time.time_ns() // 1000
        ready = (id for id in list(self.due) if self._fleet.outstanding[id].not_before <= now)
        while ids := list(islice(ready, AT_ONCE_MAX)):
            await self._publish_all(ids)
        await self._send_again()

    def _note(self, id: str) -> None:
        """Something happened to an operation: whether it has a step to be begun, and whether that was published."""
        step = self._fleet.outstanding.get(id)
        sent = self.sent.get(id)
        if sent is not None and (step is None or (sent.step, sent.attempt) != (step.name, step.attempt)):
            del self.sent[id]
            sent = None
        if step is not None and sent is None:
            self.due[id] = None
        else:
            self.due.pop(id, None)

    async def _publish_all(self, ids: Iterable[str], *, again: bool = False) -> None:
        await asyncio.gather(*(self._publish(id, self._fleet.outstanding[id], again=again) for id in ids))

    async def _publish(self, id: str, step: Step, *, again: bool) -> None:
        operation = self._fleet.get(OPERATION, id)
        assert operation is not None, "its step is outstanding"
        work = {
            "operation": id,
            "step": step.name,
            "attempt": step.attempt,
            "timeout_s": step.timeout_s,
            "input": operation.input,
        }
        # NATS drops the same id within two minutes, so that a restarted dispatcher does not double what is queued.
        message_id = _message_id(id, step) + (f":{time.time_ns()}" if again else "")
        ack = await self._stream.publish(
            subjects.of_work(step.name), msgspec.json.encode(work), headers={"Nats-Msg-Id": message_id}
        )
        self.sent.pop(id, None)  # so that the oldest stay first
        self.sent[id] = DispatchedStep(step.name, step.attempt, time.monotonic(), ack.seq)
        self.due.pop(id, None)

    async def _send_again(self) -> None:
        """Somebody took it and did not begin it, or NATS lost it. What still waits in the queue needs no double: a
        controller that is down for a day must not find a thousand copies."""
        now = time.monotonic()
        old = [id for id, _ in takewhile(lambda item: item[1].at <= now - self._again_s, self.sent.items())]
        for first in range(0, len(old), AT_ONCE_MAX):
            ids = old[first : first + AT_ONCE_MAX]
            is_queued = await asyncio.gather(*(self._is_queued(id) for id in ids))
            for id, waits in zip(ids, is_queued, strict=True):
                if waits:
                    self.sent[id] = msgspec.structs.replace(self.sent.pop(id), at=now)
            await self._publish_all([id for id, waits in zip(ids, is_queued, strict=True) if not waits], again=True)

    async def _is_queued(self, id: str) -> bool:
        try:
            held = await self._stream.get_msg(subjects.WORK, seq=self.sent[id].message)
        except nats.js.errors.NotFoundError:
            return False
        held_id: str = (held.headers or {}).get("Nats-Msg-Id", "")
        return f"{held_id}:".startswith(_message_id(id, self._fleet.outstanding[id]) + ":")


def consumer_of(controller: str) -> ConsumerConfig:
    """The pull consumer from which a controller takes its work."""
    return ConsumerConfig(
        name=controller,
        durable_name=controller,
        filter_subject=f"berth.work.{controller}.>",
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=UNACKED_MAX,
    )


def _message_id(id: str, step: Step) -> str:
    return f"{id}:{step.name}:{step.attempt}"


async def run(
    client: Client, reader: LogReader, conninfo: str, *, controllers: tuple[str, ...], health: Health
) -> None:
    """Dispatch for ever; the stream is made again if it is gone.

    Raises:
        UnknownTopic: the log holds an event of a newer version.
    """
    dispatcher = Dispatcher(client, reader, controllers=controllers)
    looked_at, told = -LOOK_S, ""
    async with contextlib.aclosing(log_changes(conninfo)) as changes:
        async for _ in changes:
            try:
                if not dispatcher.position:
                    await dispatcher.restore(conninfo)
                if looked_at <= time.monotonic() - LOOK_S:
                    await dispatcher.open()
                    looked_at = time.monotonic()
                await dispatcher.follow()
                health.ok()
                told = ""
            except OtherHistory as error:
                log.error("dispatching begins anew", reason=str(error))
                dispatcher.begin_anew()
            except (nats.errors.Error, psycopg.Error, PersistenceError, OSError) as error:
                looked_at = -LOOK_S
                health.troubled(reason_of(error))
                if (said := str(error)) != told:  # tried again and again, told once
                    told = said
                    log.warning("dispatching interrupted", position=dispatcher.position, error=said)
                await asyncio.sleep(RETRY_S)
            except UnknownTopic as error:
                health.stopped(str(error))
                raise
