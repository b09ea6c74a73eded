"""Who answers what is asked of the past: processes that are begun here, and begun again when they end.

A question goes to the worker whose fold is near, be it busy: it takes a step of each of its questions in turn. Else to
the one with least to do. What a worker did not answer when it ended is asked of another, once: it may be what ended it.
"""

import asyncio
import contextlib
import math
import socket
import subprocess
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from domain.errors import Unavailable
from eventlog.tasks import end_tasks
from messaging.past import OfVerification, Question
from workers.child import STEADY_S, back_off_s
from workers.past.frames import Frames, FromWorker, ToWorker, frame

WORKERS = 2
NEAR_EVENTS = 5_000  # a page of `folds.py`, which need not be imported here
VERIFIER = "verify"
TRIES_MAX = 2
GIVEN_UP_KEPT = 1_000
RECEIVED_BYTES_MAX = 1 << 16

# Begins the process of the worker with this name; the socket is its stdin.
Launch = Callable[[str, socket.socket], "subprocess.Popen[bytes]"]

log = structlog.get_logger()

_from_worker = msgspec.json.Decoder(FromWorker).decode


class _Open:
    """A question without an answer yet."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.tries = 0
        self.answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()

    def end(self, answer: msgspec.Raw | None) -> None:
        if self.answer.done():
            return
        if answer is not None:
            self.answer.set_result(answer)
        else:
            self.answer.set_exception(Unavailable(None))


class _Worker:
    """A process that answers, and the questions that it has not answered yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open: dict[str, _Open] = {}
        self.keeping: asyncio.Task[None] | None = None  # begins the process, again and again
        self.is_ready = False  # its process can answer
        self._folds: list[int] = []
        self._writer: asyncio.StreamWriter | None = None

    def is_near(self, position: int) -> bool:
        """Whether it has a fold at the position or shortly before it, or will have one soon."""
        under_way = (one.question.as_of for one in self.open.values() if not isinstance(one.question, OfVerification))
        return any(0 <= position - fold <= NEAR_EVENTS for fold in (*self._folds, *under_way))

    def ask(self, one: _Open) -> None:
        one.tries += 1
        self.open[one.question.id] = one
        self._send(ToWorker(question=one.question))

    def give_up(self, id: str) -> None:
        if self.open.pop(id, None) is not None:
            self._send(ToWorker(give_up=id))

    async def run(self, launch: Launch) -> None:
        """One process from its beginning to its end. What it was asked before it began, it is told then."""
        try:
            await self._run(launch)
        except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
            log.error("worker of the past failed", worker=self.name, error=str(error))

    async def _run(self, launch: Launch) -> None:
        here, there = socket.socketpair()
        with there:
            process = launch(self.name, there)
        try:
            reader, self._writer = await asyncio.open_connection(sock=here)
            for one in self.open.values():
                self._send(ToWorker(question=one.question))
            frames = Frames()
            with contextlib.suppress(ConnectionError):
                while received := await reader.read(RECEIVED_BYTES_MAX):
                    for data in frames.of(received):
                        self._take(_from_worker(data))
        finally:
            self.is_ready = False
            self._folds, writer, self._writer = [], self._writer, None
            if writer is not None:
                writer.close()
            process.kill()
            process.wait()

    def _take(self, answer: FromWorker) -> None:
        self.is_ready = True
        self._folds = answer.folds
        if (one := self.open.pop(answer.id, None)) is not None:
            one.end(answer.answer if answer.is_answered else None)

    def _send(self, message: ToWorker) -> None:
        if self._writer is not None:
            self._writer.write(frame(message))


class Pool:
    """`async with Pool(launch) as pool`: its processes run while it is open. The first begins at once, the others when
    there is more to do, one for a verification for its time alone."""

    def __init__(self, launch: Launch, *, workers: int = WORKERS) -> None:
        self._launch = launch
        self._workers = [_Worker(f"{n}") for n in range(1, workers + 1)]
        self._verifying = asyncio.Lock()
        self._open: dict[str, _Open] = {}
        self._given_up: OrderedDict[str, None] = OrderedDict()  # before they came, as may be

    async def __aenter__(self) -> "Pool":
        self._begin(self._workers[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks(*(worker.keeping for worker in self._workers if worker.keeping is not None))

    @property
    def is_ready(self) -> bool:
        """Whether somebody can answer now."""
        return any(worker.is_ready for worker in self._workers)

    async def answer(self, question: Question) -> msgspec.Raw:
        """
        Raises:
            Unavailable: there is no answer, or nobody awaits it any more: `ends_at` has passed, or it was given up.
        """
        left_s = question.ends_at - time.time()
        if left_s <= 0 or question.id in self._given_up:
            raise Unavailable(None)
        one = self._open[question.id] = _Open(question)
        try:
            async with asyncio.timeout(left_s if left_s < math.inf else None):
                if isinstance(question, OfVerification):
                    return await self._verify(one)
                self._assign(one)
                return await one.answer
        except TimeoutError:
            raise Unavailable(None) from None
        finally:
            del self._open[question.id]
            for worker in self._workers:
                worker.give_up(question.id)

    def give_up(self, id: str) -> None:
        """Whoever asked this question has gone."""
        self._given_up[id] = None
        while len(self._given_up) > GIVEN_UP_KEPT:
            self._given_up.popitem(last=False)
        if (one := self._open.get(id)) is not None:
            one.end(None)

    async def _verify(self, one: _Open) -> msgspec.Raw:
        """In a process that ends with it, or with whoever awaits it."""
        async with self._verifying:
            if not one.answer.done():
                worker = _Worker(VERIFIER)
                worker.ask(one)
                running = asyncio.create_task(worker.run(self._launch))
                try:
                    await asyncio.wait((running, one.answer), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await end_tasks(running)
                one.end(None)
            return one.answer.result()

    def _assign(self, one: _Open, *, but: _Worker | None = None) -> None:
        assert not isinstance(one.question, OfVerification)
        position = one.question.as_of
        able = [worker for worker in self._workers if worker is not but] or self._workers
        near = [worker for worker in able if worker.is_near(position)]
        worker = min(near or able, key=lambda worker: len(worker.open))
        self._begin(worker)
        worker.ask(one)

    def _begin(self, worker: _Worker) -> None:
        if worker.keeping is None:
            worker.keeping = asyncio.create_task(self._keep(worker))

    async def _keep(self, worker: _Worker) -> None:
        deaths_in_a_row = 0
        while True:
            begun_at = time.monotonic()
            await worker.run(self._launch)
            deaths_in_a_row = 0 if time.monotonic() - begun_at >= STEADY_S else deaths_in_a_row + 1
            log.warning("worker of the past ended", worker=worker.name, unanswered=len(worker.open))
            left, worker.open = worker.open, {}
            for one in left.values():
                if one.tries < TRIES_MAX:
                    self._assign(one, but=worker)
                else:
                    one.end(None)
            await asyncio.sleep(back_off_s(deaths_in_a_row))
