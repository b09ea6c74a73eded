"""One thread, one seed, no real time: an event loop on which several processes run, each as it would by itself.

    ready callbacks, a queue a process ──► the seed picks a process ──► one callback runs: a step
    nothing is ready ──► the clock jumps to the next timer

A process can be paused (its callbacks wait, as under SIGSTOP) or killed (they are never run, as under kill -9). Within
a process callbacks keep their order, as asyncio promises; between processes the seed decides. What real code does in a
thread (`asyncio.to_thread`) runs in a greenlet here, which gives the turn to others wherever it waits.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from greenlet import greenlet  # type: ignore[import-untyped, unused-ignore]

STARTED_AT_S = 1_790_000_000  # since 1970, when each run begins
STEP_S = 2e-6  # so that time goes on even where somebody is always busy

PROCESS: contextvars.ContextVar["Process"] = contextvars.ContextVar("process")


class Process:
    """A process of the simulated site. `skew_s` is how wrong its clock is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_paused = False
        self.is_dead = False
        self.skew_s = 0.0
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: list[NumberedTask] = []
        self.threads: list[greenlet] = []

    def __repr__(self) -> str:
        return self.name


class NumberedTask(asyncio.Task):  # type: ignore[type-arg]
    """Hashed by its number and not by its address, so that sets of tasks have the same order in each run."""

    def __init__(self, work: Any, *, number: int, **more: Any) -> None:
        self.number = number
        super().__init__(work, **more)

    def __hash__(self) -> int:
        return self.number


class NumberedFuture(asyncio.Future):  # type: ignore[type-arg]
    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class Ended(Exception):
    """The simulation is over; whatever still waits is thrown away."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """`run_steps` runs it. Everything belongs to a process: the one in whose context it was begun, or `world`."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.world = Process("world")
        self.processes = [self.world]
        self.graves: list[Process] = []
        self.steps = 0
        self.fault: dict[str, Any] | None = None  # an exception that nobody took
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = 0
        self._is_over = False
        self._ambush: tuple[int, asyncio.Future[None]] | None = None
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_fault)

    # ── what asyncio asks of a loop ──

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._owner(handle).ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._timers, (when, self._number(), handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def create_future(self) -> Any:
        return NumberedFuture(number=self._number(), loop=self)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        process = PROCESS.get(self.world)

        def run() -> None:
            PROCESS.set(process)
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        thread = greenlet(run)
        process.threads.append(thread)
        self.call_soon(thread.switch)
        return future

    async def shutdown_asyncgens(self) -> None:
        pass

    # ── what the world uses ──

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> "NumberedTask":
        """Begin work as part of a process."""
        assert not process.is_dead, process
        if process not in self.processes:
            self.processes.append(process)
        context = contextvars.Context()
        context.run(PROCESS.set, process)
        return context.run(lambda: self._make_task(self, work))

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        """As `call_later`, of what happens in the world, whatever becomes of who caused it."""
        self.call_later(seconds, callback, *args, context=contextvars.Context())

    def ambush(self, steps: int, future: "asyncio.Future[None]") -> None:
        """Resolve `future` after so many more steps, whoever makes them."""
        self._ambush = (self.steps + steps, future)

    def kill(self, process: Process) -> None:
        """Nothing of it runs any more."""
        process.is_dead = True
        process.ready.clear()
        self.processes.remove(process)
        self.graves.append(process)

    def block(self, seconds: float) -> None:
        """Wait, in what runs as a thread; the others go on meanwhile."""
        if self._is_over or greenlet.getcurrent().parent is None:
            raise Ended
        self.call_later(seconds, greenlet.getcurrent().switch)
        hub = greenlet.getcurrent().parent
        assert hub is not None
        hub.switch()

    def run_steps(
        self, steps: int, *, until_s: float = float("inf"), is_done: Callable[[], bool] | None = None
    ) -> None:
        """Run at most so many callbacks, not beyond a time; `is_done` ends it earlier."""
        asyncio._set_running_loop(self)
        try:
            last = self.steps + steps
            while self.steps < last and not (is_done is not None and is_done()):
                if self._ambush is not None and self.steps >= self._ambush[0]:
                    self._spring()
                    continue
                if self._timers and self._timers[0][0] <= self._now:
                    self._take_due()
                runnable = [one for one in self.processes if one.ready and not one.is_paused]
                if not runnable:
                    if not self._jump(until_s):
                        return
                    continue
                process = runnable[0] if len(runnable) == 1 else runnable[int(self.chance.random() * len(runnable))]
                handle = process.ready.popleft()
                if not handle.cancelled():
                    self.steps += 1
                    self._now += STEP_S
                    handle._run()
                    if self.fault is not None:
                        return
        finally:
            asyncio._set_running_loop(None)

    def _spring(self) -> None:
        """At once: who waits for it goes on before anybody else."""
        assert self._ambush is not None
        (_, future), self._ambush = self._ambush, None
        before = len(self.world.ready)
        future.set_result(None)
        while len(self.world.ready) > before:
            handle = self.world.ready.pop()
            self.steps += 1
            handle._run()

    def bury(self) -> None:
        """Let go of everything that still waits, without running any of it for real."""
        self._is_over = True
        self.set_exception_handler(lambda loop, context: None)
        for process in [*self.processes, *self.graves]:
            for thread in process.threads:
                if not thread.dead:
                    thread.throw()
            for task in process.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not task.done():
                    _close(task.get_coro())
            process.ready.clear()
        self._timers.clear()
        self.close()

    def _jump(self, until_s: float) -> bool:
        while self._timers:
            when, _, handle = self._timers[0]
            if handle.cancelled() or self._owner(handle).is_dead:
                heapq.heappop(self._timers)
                continue
            if when > until_s:
                self._now = max(self._now, until_s)
                return False
            self._now = max(self._now, when)
            self._take_due()
            return True
        return False

    def _take_due(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            _, _, due = heapq.heappop(self._timers)
            owner = self._owner(due)
            if not due.cancelled() and not owner.is_dead:
                owner.ready.append(due)

    def _owner(self, handle: asyncio.Handle) -> Process:
        return handle._context.get(PROCESS, self.world)  # type: ignore[attr-defined, no-any-return]

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _make_task(self, loop: Any, work: Any, context: Any = None) -> "NumberedTask":
        task = NumberedTask(work, number=self._number(), loop=loop, context=context)
        process = PROCESS.get(self.world)
        process.tasks.append(task)
        if len(process.tasks) > 4_000:
            process.tasks = [one for one in process.tasks if not one.done()]
            process.threads = [one for one in process.threads if not one.dead]
        return task

    def _note_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A future that fails when nobody waits for it any more is no fault; a task that fails unseen is.
        if isinstance(context.get("future"), asyncio.Task) or "future" not in context:
            self.fault = self.fault or context


def _close(work: Any) -> None:
    """Its `finally` may want to wait, which nobody does any more."""
    for _ in range(3):
        try:
            work.close()
        except (RuntimeError, Exception):
            continue
        return
