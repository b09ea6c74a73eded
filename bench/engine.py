"""Durable provisionings through the engine, beside the raw append of the same number of events."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import uvloop

from bench.row import Row
from bench.site import CAPACITY, a_vm
from commands.catalogue import COMMANDS
from commands.writer import ids
from commands.writer.batch import COMMANDS_MAX
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Envelope, Item
from eventlog.append import LogConnection
from eventlog.codec import Row as LogRow
from eventlog.read import LogReader
from projections.rows import resource

ADMIN = Actor("bench", "admin")
IN_FLIGHT = 1024
STOCK_COMMANDS = 1000
TARGET_PER_S, TARGET_RATIO = 12_000.0, 0.45
MANY_HOSTS, TARGET_MANY_RATIO = 10_000, 0.9


def measure(conninfo: str, *, is_short: bool) -> list[Row]:
    hosts, provisionings = (100, 500) if is_short else (1_000, 20_000)
    per_s, events_per_s, raw = uvloop.run(_measured(conninfo, hosts=hosts, provisionings=provisionings))
    ratio = events_per_s / raw
    return [
        Row("raw append of the same events", raw, "events/s", "the floor", True),
        Row(
            f"durable provisioning, {hosts:,} hosts",
            per_s,
            "/s",
            f"≥ {TARGET_PER_S:,.0f}/s and {TARGET_RATIO} × raw append",
            per_s >= TARGET_PER_S and ratio >= TARGET_RATIO,
            raw,
            ratio,
        ),
    ]


def measure_many(conninfo: str, few: Row, *, is_short: bool) -> list[Row]:
    """The same with many hosts, beside the figure with few."""
    hosts, provisionings = (500, 500) if is_short else (MANY_HOSTS, 10_000)
    per_s, _, _ = uvloop.run(_measured(conninfo, hosts=hosts, provisionings=provisionings))
    ratio = per_s / few.figure
    target = f"≥ {TARGET_MANY_RATIO} × that"
    name = f"durable provisioning, {hosts:,} hosts"
    return [Row(name, per_s, "/s", target, ratio >= TARGET_MANY_RATIO, few.figure, ratio)]


async def _measured(conninfo: str, *, hosts: int, provisionings: int) -> tuple[float, float, float]:
    """Provisionings and their events per second, and the raw append of those events."""
    async with stocked(conninfo, hosts=hosts) as engine:
        await provision(engine, range(100))
        first = engine.fleet.position
        began = time.perf_counter()
        await provision(engine, range(100, 100 + provisionings))
        spent_s = time.perf_counter() - began
        events = engine.fleet.position - first
    raw = await _raw_append_per_s(conninfo, events=min(events, 100_000), after=first)
    return provisionings / spent_s, events / spent_s, raw


async def write_log(conninfo: str, *, hosts: int, provisionings: int) -> None:
    """A site and provisionings on it, as the log of a platform has them."""
    async with stocked(conninfo, hosts=hosts) as engine:
        await provision(engine, range(provisionings))


@asynccontextmanager
async def stocked(conninfo: str, *, hosts: int) -> AsyncIterator[Engine]:
    """An engine that leads, on a site of its own."""
    engine = Engine(conninfo, resource=resource)
    await engine.start()
    try:
        await engine.ready()
        commands = site(hosts)
        for start in range(0, len(commands), STOCK_COMMANDS):
            for answer in await engine.submit(_envelope(commands[start : start + STOCK_COMMANDS])):
                assert answer.problem is None, answer.problem
        yield engine
    finally:
        await engine.stop()


def site(hosts: int) -> list[tuple[str, dict[str, Any]]]:
    """The commands that make a site to provision on, each with its body."""
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("tenant.create", {"name": "acme"}),
        ("tenant.create", {"name": "payments", "parent": "acme"}),
        ("group.create", {"name": "std"}),
        ("quota.set", {"group": "std", "tenant": "acme", "limits": {"cpu": 10**9}}),
        ("quota.set", {"group": "std", "tenant": "payments", "limits": {"cpu": 10**9}}),
    ]
    for n in range(hosts):
        bodies.append(("host.register", {"name": f"h{n:06d}", "group": "std", "capacity": CAPACITY}))
    return bodies


async def provision(engine: Engine, numbers: range) -> None:
    """A fixed number of requests always under way, as from that many clients."""
    left = iter(numbers)

    async def client() -> None:
        for n in left:
            answers = await engine.submit(_envelope([("vm.provision", a_vm(n))]))
            assert answers[0].problem is None, answers[0].problem

    await asyncio.gather(*(client() for _ in range(min(IN_FLIGHT, len(numbers)))))


def _envelope(bodies: list[tuple[str, dict[str, Any]]]) -> Envelope:
    items = []
    for kind, body in bodies:
        id = ids.uuid7()
        items.append(Item(id, COMMANDS[kind].model_validate(body), body, id))
    return Envelope(ADMIN, tuple(items), time.time() + 600.0)


async def _raw_append_per_s(conninfo: str, *, events: int, after: int) -> float:
    """Rows that the engine wrote, appended again under new names and positions, in batches of the engine's size."""
    reader = LogReader(conninfo)
    written = [row for start in range(0, events, 5_000) for row in reader.page(after + start, 5_000)][:events]
    end = reader.end()
    reader.close()
    again = [LogRow(f"{row.stream}~", end + n, end + n, row.topic, row.state) for n, row in enumerate(written, start=1)]
    step = COMMANDS_MAX * 6
    connection = await LogConnection.connect(conninfo)
    try:
        began = time.perf_counter()
        for start in range(0, len(again), step):
            await connection.append(end + start, again[start : start + step])
        return len(again) / (time.perf_counter() - began)
    except psycopg.Error as error:
        raise RuntimeError(f"the raw append failed: {error}") from error
    finally:
        await connection.close()
