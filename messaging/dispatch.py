"""Work for controllers, level-triggered: every step of the fold that a controller must still begin is on BERTH_WORK.

What has begun is redelivered by NATS alone; if NATS was wiped, the step's deadline decides. So the log is never
replayed into work, and a wiped NATS gets exactly what is still to be begun.
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
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from domain.fleet import Fleet
from domain.operation import Operation, Step
from domain.values import to_rfc3339
from eventlog.codec import decode
from eventlog.read import LogReader, log_changes
from messaging import subjects

PAGE_EVENTS = 5_000
AGAIN_S = 30.0
ACK_WAIT_S = 30.0
UNACKED_MAX = 1_000
RETRY_S = 0.5

log = structlog.get_logger()


class Dispatcher:
    """`sent` is when each outstanding attempt was last published, in seconds of the monotonic clock."""

    def __init__(self, client: Client, reader: LogReader, *, controllers: tuple[str, ...]) -> None:
        self._stream = client.jetstream()
        self._reader = reader
        self._controllers = controllers
        self.fleet = Fleet()
        self.sent: dict[tuple[str, str, int], float] = {}

    async def open(self) -> None:
        """Make the stream and the controllers' consumers where they are missing."""
        try:
            await self._stream.stream_info(subjects.WORK)
        except nats.js.errors.NotFoundError:
            await self._stream.add_stream(
                StreamConfig(
                    name=subjects.WORK,
                    subjects=[subjects.WORK_SUBJECTS],
                    retention=RetentionPolicy.WORK_QUEUE,
                    storage=StorageType.FILE,
                )
            )
            self.sent.clear()
            log.info("stream made", stream=subjects.WORK)
        for name in self._controllers:
            await self._stream.add_consumer(
                subjects.WORK,
                ConsumerConfig(
                    name=name,
                    durable_name=name,
                    filter_subject=f"berth.work.{name}.>",
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ACK_WAIT_S,
                    max_ack_pending=UNACKED_MAX,
                ),
            )

    async def follow(self) -> None:
        """Fold what the log holds now, and publish what is outstanding and was not published lately."""
        while rows := await asyncio.to_thread(self._reader.page, self.fleet.position, PAGE_EVENTS):
            for row in rows:
                self.fleet.fold(decode(row))
        now = time.monotonic()
        outstanding = {(id, step.name, step.attempt): step for id, step in self.fleet.outstanding.items()}
        self.sent = {key: at for key, at in self.sent.items() if key in outstanding}
        due = [key for key in outstanding if self.sent.get(key, -AGAIN_S) <= now - AGAIN_S]
        for key in due:
            id = key[0]
            await self._publish(id, self.fleet.operations[id], outstanding[key], again=key in self.sent)
            self.sent[key] = now

    async def _publish(self, id: str, operation: Operation, step: Step, *, again: bool) -> None:
        work = {
            "operation": id,
            "step": step.name,
            "attempt": step.attempt,
            "deadline": to_rfc3339(step.deadline),
            "input": operation.input,
        }
        message_id = f"{id}:{step.name}:{step.attempt}" + (f":{time.time_ns()}" if again else "")
        await self._stream.publish(
            subjects.of_work(step.name), msgspec.json.encode(work), headers={"Nats-Msg-Id": message_id}
        )


async def run(client: Client, reader: LogReader, conninfo: str, *, controllers: tuple[str, ...]) -> None:
    """Dispatch for ever; the stream is made again if it is gone."""
    dispatcher = Dispatcher(client, reader, controllers=controllers)
    looked_at = -AGAIN_S
    async with contextlib.aclosing(log_changes(conninfo)) as changes:
        async for _ in changes:
            try:
                if looked_at < time.monotonic() - 1.0:
                    await dispatcher.open()
                    looked_at = time.monotonic()
                await dispatcher.follow()
            except (nats.errors.Error, nats.js.errors.Error, psycopg.Error, PersistenceError, OSError) as error:
                looked_at = -AGAIN_S
                log.warning("dispatching again", position=dispatcher.fleet.position, error=str(error))
                await asyncio.sleep(RETRY_S)
