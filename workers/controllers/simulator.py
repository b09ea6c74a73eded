"""The simulated controllers: they do nothing but take their time, and hold to the contract as a real one would.

work ─► report `started` ─► (only if the answer shows it so) take the delay ─► report the outcome ─► ack
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from eventlog.tasks import end_tasks
from messaging import subjects

FETCH_MAX = 256
FETCH_S = 5.0
UNDER_WAY_MAX = 5_000
REPORT_S = 3.0
RETRY_S_FIRST, RETRY_S_MAX = 0.1, 2.0
HEARTBEAT_S = 3.0  # well below the time after which NATS gives the work to another
PROGRESS_FROM_S = 0.2
GONE_MAX = 100_000
MAY_FAIL = frozenset({"create", "resize", "start", "stop"})

log = structlog.get_logger()


class Work(msgspec.Struct, frozen=True):
    operation: str
    step: str
    attempt: int
    input: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.operation, self.step, self.attempt


class _Step(msgspec.Struct, frozen=True):
    name: str
    attempt: int
    state: str


class _Operation(msgspec.Struct, frozen=True):
    steps: tuple[_Step, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    """Of the answer to a report, what matters here; a problem has a `code`."""

    code: str = ""
    resource: _Operation | None = None


_decode_work = msgspec.json.Decoder(Work).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Simulator:
    """One controller. `gone` are the uids that it confirmed to be deleted: none of them is created any more. (What it
    forgets of them in the end are the oldest, whose creations Berth no longer lets start.)"""

    def __init__(
        self, client: Client, name: str, *, delay_ms: int, fail_rate: float, journal: Path | None = None
    ) -> None:
        self._client = client
        self._name = name
        self._delay_s = delay_ms / 1000
        self._fail_rate = fail_rate
        self._journal = journal
        self._slots = asyncio.Semaphore(UNDER_WAY_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[tuple[str, str, int], Msg] = {}
        self.gone: OrderedDict[str, None] = OrderedDict()

    async def run(self) -> None:
        """Work for ever."""
        heartbeats = asyncio.create_task(self._tell_that_we_are_at_it())
        try:
            await self._take_work()
        finally:
            await end_tasks(heartbeats, *self._tasks)

    async def _take_work(self) -> None:
        told = ""
        while True:
            try:
                consumer = await self._client.jetstream().pull_subscribe_bind(self._name, stream=subjects.WORK)
                while True:
                    for message in await self._fetch(consumer):
                        await self._slots.acquire()
                        task = asyncio.create_task(self._take(message))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                    told = ""
            except nats.errors.Error as error:
                if (said := str(error)) != told:  # tried again and again, told once
                    told = said
                    log.warning("work not reached", controller=self._name, error=said)
                await asyncio.sleep(RETRY_S_FIRST)

    @staticmethod
    async def _fetch(consumer: Any) -> list[Msg]:
        try:
            found: list[Msg] = await consumer.fetch(FETCH_MAX, timeout=FETCH_S)
        except TimeoutError:  # NATS' own, and asyncio's, which nats-py lets through when NATS was killed meanwhile
            return []
        return found

    async def _take(self, message: Msg) -> None:
        try:
            work = _decode_work(message.data)
            if (same := self._under_way.get(work.key)) is not None:
                # Sent twice, the second is settled by the first; given to us again, it is the first.
                if same.metadata.sequence.stream != message.metadata.sequence.stream:
                    await message.ack()
                return
            self._under_way[work.key] = message
            try:
                await self._do(work)
            finally:
                del self._under_way[work.key]
            await message.ack()
        except msgspec.DecodeError as error:
            log.error("this is no work", controller=self._name, error=str(error))
            await message.term()  # it would come again for ever
        except nats.errors.Error as error:
            log.warning("work left to redelivery", controller=self._name, error=str(error))
        finally:
            self._slots.release()

    async def _do(self, work: Work) -> None:
        answer = await self._report(work, "started")
        if not _is_started(answer, work):
            log.info("work is over, forgotten", operation=work.operation, step=work.step, attempt=work.attempt)
            return
        await self._take_time(work)
        action, uid = work.step.partition(".")[2], work.input["uid"]
        if self._fails(work):
            await self._report(work, "failed", message=f"simulated failure of {work.step}")
        elif action == "delete":
            self._forget(uid)
            self._note(work)
            await self._report(work, "succeeded")
        elif action == "create" and uid in self.gone:
            message = "this incarnation was deleted before it was made"
            await self._report(work, "failed", message=message, retryable=False)
        elif action == "create":
            self._note(work)
            await self._report(work, "succeeded", outputs={"addresses": [_address(uid)]})
        else:
            self._note(work)
            await self._report(work, "succeeded")

    def _fails(self, work: Work) -> bool:
        return work.step.partition(".")[2] in MAY_FAIL and _chance(work) < self._fail_rate

    def _note(self, work: Work) -> None:
        """What was done is written down before it is reported: this is all that stands of the work."""
        if self._journal is not None:
            done = {"uid": work.input["uid"], "step": work.step, "operation": work.operation, "attempt": work.attempt}
            with open(self._journal, "ab") as journal:
                journal.write(msgspec.json.encode(done) + b"\n")

    def _forget(self, uid: str) -> None:
        self.gone[uid] = None
        if len(self.gone) > GONE_MAX:
            self.gone.popitem(last=False)

    async def _take_time(self, work: Work) -> None:
        if self._delay_s < PROGRESS_FROM_S:
            await asyncio.sleep(self._delay_s)
            return
        ends = time.monotonic() + self._delay_s
        await asyncio.sleep(self._delay_s / 2)
        await self._report(work, "progress", percent=50, message="half-way")
        await asyncio.sleep(max(0.0, ends - time.monotonic()))

    async def _report(self, work: Work, outcome: str, **more: Any) -> _Answer:
        """Report until somebody answers: the same report again gets the first answer."""
        report = {"operation": work.operation, "step": work.step, "attempt": work.attempt, "outcome": outcome, **more}
        data = msgspec.json.encode(report)
        pause_s = RETRY_S_FIRST
        while True:
            try:
                reply = await self._client.request(subjects.of_reports(self._name), data, timeout=REPORT_S)
                answer = _decode_answer(reply.data)
                if answer.code != "unavailable":
                    return answer
            except nats.errors.Error:
                pass  # nobody there, or the answer was lost
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)

    async def _tell_that_we_are_at_it(self) -> None:
        """NATS gives to another what is neither acked nor said to be in progress."""
        seen: set[tuple[str, str, int]] = set()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for key, message in list(self._under_way.items()):
                if key in seen and key in self._under_way:
                    try:
                        await message.in_progress()
                    except nats.errors.Error:
                        break  # not connected: what is given to another meanwhile is refused to one of us
            seen = set(self._under_way)


def _is_started(answer: _Answer, work: Work) -> bool:
    steps = answer.resource.steps if answer.resource is not None else ()
    return any((step.name, step.attempt, step.state) == (work.step, work.attempt, "started") for step in steps)


def _chance(work: Work) -> float:
    """0…1, the same for the same attempt, so that one that is given to us again ends the same."""
    digest = hashlib.sha256(":".join(map(str, work.key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _address(uid: str) -> str:
    """An address in 10.0.0.0/8 that follows from the incarnation."""
    digest = hashlib.sha256(uid.encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{1 + digest[2] % 254}"
