"""The simulated controllers: they do nothing but take their time, and hold to the contract as a real one would.

work ─► report `started` ─► (only if the answer shows it so) take the delay ─► report the outcome ─► ack
"""

import asyncio
import hashlib
import time
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from messaging import subjects

FETCH_MAX = 200
FETCH_S = 5.0
UNDER_WAY_MAX = 1_000
REPORT_S = 10.0
RETRY_S = 0.2
HEARTBEAT_S = 10.0
PROGRESS_FROM_MS = 200

log = structlog.get_logger()


class Simulator:
    """One controller. `gone` are the uids that it confirmed to be deleted: none of them is created any more."""

    def __init__(self, client: Client, name: str, *, delay_ms: int, fail_rate: float) -> None:
        self._client = client
        self._name = name
        self._delay_s = delay_ms / 1000
        self._fail_rate = fail_rate
        self._slots = asyncio.Semaphore(UNDER_WAY_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._doing: set[tuple[str, str, int]] = set()
        self.gone: set[str] = set()

    async def run(self) -> None:
        """Work for ever."""
        while True:
            try:
                consumer = await self._client.jetstream().pull_subscribe_bind(self._name, stream=subjects.WORK)
                while True:
                    for message in await self._fetch(consumer):
                        await self._slots.acquire()
                        task = asyncio.create_task(self._take(message))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
            except (nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("work not reached", controller=self._name, error=str(error))
                await asyncio.sleep(RETRY_S)

    @staticmethod
    async def _fetch(consumer: Any) -> list[Msg]:
        try:
            found: list[Msg] = await consumer.fetch(FETCH_MAX, timeout=FETCH_S)
        except TimeoutError:  # nats-py's own is one, and it lets asyncio's through as well
            return []
        return found

    async def _take(self, message: Msg) -> None:
        try:
            work = msgspec.json.decode(message.data)
            key = (work["operation"], work["step"], work["attempt"])
            if key in self._doing:
                await message.ack()  # sent again while we are at it
                return
            self._doing.add(key)
            try:
                await self._do(message, work)
            finally:
                self._doing.discard(key)
            await message.ack()
        except nats.errors.Error as error:
            log.warning("work left to redelivery", controller=self._name, error=str(error))
        finally:
            self._slots.release()

    async def _do(self, message: Msg, work: dict[str, Any]) -> None:
        answer = await self._report(work, "started")
        if not _is_started(answer, work):
            log.info("work is over, forgotten", operation=work["operation"], step=work["step"])
            return
        await self._take_time(message, work)
        action, uid = work["step"].partition(".")[2], work["input"]["uid"]
        if action == "delete":
            self.gone.add(uid)
            await self._report(work, "succeeded")
        elif action == "create" and uid in self.gone:
            await self._report(work, "failed", message="this incarnation was deleted before it was made")
        elif self._fails(work):
            await self._report(work, "failed", message=f"simulated failure of {work['step']}")
        else:
            outputs = {"addresses": [_address(uid)]} if action == "create" else {}
            await self._report(work, "succeeded", outputs=outputs)

    async def _take_time(self, message: Msg, work: dict[str, Any]) -> None:
        ends = time.monotonic() + self._delay_s
        if self._delay_s * 1000 >= PROGRESS_FROM_MS:
            await asyncio.sleep(self._delay_s / 2)
            await self._report(work, "progress", percent=50, message="half-way")
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, HEARTBEAT_S))
            if left > HEARTBEAT_S:
                await message.in_progress()

    def _fails(self, work: dict[str, Any]) -> bool:
        """By chance, but the same for the same attempt, so that a redelivered one ends the same."""
        text = f"{work['operation']}:{work['step']}:{work['attempt']}".encode()
        chance = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / 2**64
        return chance < self._fail_rate

    async def _report(self, work: dict[str, Any], outcome: str, **more: Any) -> dict[str, Any]:
        """Report until somebody answers: the same report again gets the first answer."""
        report = {"operation": work["operation"], "step": work["step"], "attempt": work["attempt"], "outcome": outcome}
        data = msgspec.json.encode({**report, **more})
        while True:
            try:
                reply = await self._client.request(subjects.of_reports(self._name), data, timeout=REPORT_S)
            except nats.errors.Error:
                await asyncio.sleep(RETRY_S)
                continue
            answer: dict[str, Any] = msgspec.json.decode(reply.data)
            if answer.get("code") == "unavailable":
                await asyncio.sleep(RETRY_S)
                continue
            return answer


def _is_started(answer: dict[str, Any], work: dict[str, Any]) -> bool:
    operation = answer.get("resource") or {}
    return any(
        (step["name"], step["attempt"], step["state"]) == (work["step"], work["attempt"], "started")
        for step in operation.get("steps", ())
    )


def _address(uid: str) -> str:
    """An address in 10.0.0.0/8 that follows from the incarnation."""
    digest = hashlib.sha256(uid.encode()).digest()
    return f"10.{digest[0]}.{digest[1]}.{1 + digest[2] % 254}"
