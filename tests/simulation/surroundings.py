"""What the real code takes from outside, given by the simulation for as long as it runs: time, chance, the connections
to PostgreSQL, threads. Nothing in the code knows of it."""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from types import ModuleType
from typing import Any

import psycopg
import structlog

import messaging.dispatch
import messaging.relay
import messaging.wire
from commands.writer import batch, engine, ids, leader, receipts
from eventlog import checkpoints
from eventlog.append import LogConnection
from projections import projector
from tests.simulation import connections, postgres
from tests.simulation.checkpoints import Checkpoints
from tests.simulation.loop import PROCESS, STARTED_AT_S, SimulatedLoop

PACKAGES = ("domain", "eventlog", "commands", "projections", "messaging", "workers")


class Clock:
    """The `time` module as a process of the simulation sees it."""

    def __init__(self, loop: SimulatedLoop, chance: random.Random) -> None:
        self._loop = loop
        self._chance = chance
        self._worked_s = 0.0

    def monotonic(self) -> float:
        return self._loop.time()

    def time(self) -> float:
        return STARTED_AT_S + self._loop.time() + PROCESS.get(self._loop.world).skew_s

    def time_ns(self) -> int:
        return int(self.time() * 1_000_000) * 1_000

    def perf_counter(self) -> float:
        """Work takes no time on the loop's clock; here it seems to, so that batches close early now and then."""
        self._worked_s += self._chance.random() * 0.002
        return self._worked_s

    def thread_time_ns(self) -> int:
        return round(self.perf_counter() * 1e9)

    def sleep(self, seconds: float) -> None:
        self._loop.block(seconds)


class Secrets:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def token_urlsafe(self, size: int) -> str:
        return f"{self._chance.getrandbits(size * 8):x}"


class Collector:
    """The fleets of a hundred simulated engines need not be frozen."""

    def collect(self) -> None:
        pass

    def freeze(self) -> None:
        pass

    def set_threshold(self, *counts: int) -> None:
        pass


class InlineExecutor:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class InlineThread:
    def __init__(self, *, target: Callable[..., Any], args: tuple[Any, ...], **_: Any) -> None:
        self._work = partial(target, *args)

    def start(self) -> None:
        self._work()

    def is_alive(self) -> bool:
        return False


@contextlib.contextmanager
def simulated(
    loop: SimulatedLoop, chance: random.Random, server: postgres.Server, *, tell: Callable[[str], None]
) -> Iterator[None]:
    """Everything that is read while this is open comes from the simulation."""
    clock = Clock(loop, chance)

    async def connect(conninfo: str, *, application_name: str = "", **_: Any) -> connections.Connection:
        await asyncio.sleep(connections.LATENCY_S)
        return connections.Connection(server, server.open_backend(application_name))

    def connect_blocking(conninfo: str, **_: Any) -> connections.BlockingConnection:
        loop.block(connections.LATENCY_S)
        return connections.BlockingConnection(server, server.open_backend(""))

    kept = Checkpoints(server)
    changes: list[tuple[Any, str, Any]] = [
        (module, "time", clock) for module in _modules() if getattr(module, "time", None) is sys.modules["time"]
    ]
    changes += [
        (psycopg.AsyncConnection, "connect", connect),
        (LogConnection, "_execute_append", connections.execute_append),
        (psycopg, "connect", connect_blocking),
        (ids, "secrets", Secrets(chance)),
        (ids, "randbits", chance.getrandbits),
        (engine, "LogReader", lambda conninfo: connections.SimulatedReader(server)),
        (engine, "gc", Collector()),
        (projector, "gc", Collector()),
        (projector, "ThreadPoolExecutor", InlineExecutor),
        (checkpoints, "Thread", InlineThread),
        *((checkpoints, name, getattr(kept, name)) for name in ("restore", "kept", "write")),
        # Small ones, so that what comes rarely comes often.
        (engine, "FOLD_PAGE_EVENTS", chance.choice([3, 50, 5_000])),
        (leader, "PAGE_EVENTS", chance.choice([3, 50, 5_000])),
        (batch, "COMMANDS_MAX", chance.choice([1, 4, 256])),
        (receipts, "RECEIPTS_MAX", chance.choice([300, 100_000])),
        (messaging.wire, "ANSWERS_MAX", chance.choice([200, 10_000])),
        (messaging.relay, "PAGE_EVENTS", chance.choice([1, 7, 500])),
        (messaging.dispatch, "PAGE_EVENTS", chance.choice([2, 30, 5_000])),
        (messaging.dispatch, "AT_ONCE_MAX", chance.choice([1, 5, 500])),
        (projector, "PAGE_EVENTS", chance.choice([5, 40, 4_000])),
        (projector, "REFOLD_PAGE_EVENTS", chance.choice([7, 100, 10_000])),
    ]
    told = structlog.get_config()
    former = [(owner, name, vars(owner)[name]) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        structlog.configure(processors=[_teller(loop, tell)], wrapper_class=structlog.make_filtering_bound_logger(20))
        yield
    finally:
        structlog.configure(**told)
        for owner, name, value in reversed(former):
            setattr(owner, name, value)


def _modules() -> list[ModuleType]:
    return [module for name, module in sorted(sys.modules.items()) if name.partition(".")[0] in PACKAGES]


def _teller(loop: SimulatedLoop, tell: Callable[[str], None]) -> Callable[..., Any]:
    def process(logger: Any, method: str, event: dict[str, Any]) -> Any:
        said = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
        tell(f"{PROCESS.get(loop.world)}: {event['event']} {said}")
        raise structlog.DropEvent

    return process
