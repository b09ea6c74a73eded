"""Durable provisionings through the engine, beside the raw append of the same number of events."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import uvloop

from bench import servers
from bench.row import Row
from bench.site import CAPACITY, a_vm
from commands.catalogue import COMMANDS
from commands.tokens import hash_of
from commands.writer import ids
from commands.writer.batch import COMMANDS_MAX
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Envelope, Item
from eventlog.append import LogConnection
from eventlog.codec import Row as LogRow
from eventlog.read import LogReader
from projections.resources import resource

ADMIN = Actor("admin", "admin")  # whose token the engine itself installs
IN_FLIGHT = 1024
STOCK_COMMANDS = 1000
FEW = 1_000
TARGET_PER_S, TARGET_RATIO = 12_000.0, 0.45
TARGETS_OF_FEW = {10_000: 0.9, 100_000: 0.6}


def measure(*, is_short: bool) -> list[Row]:
    """Each size has an engine and a PostgreSQL of its own; they are measured in turn, so that what else the machine
    does meanwhile meets all of them alike."""
    sizes = (FEW,) if is_short else (100, FEW, 10_000, 100_000)
    rounds, provisionings = (1, 500) if is_short else (5, 4_000)
    with ExitStack() as stack:
        conninfos = [stack.enter_context(servers.running()).conninfo for _ in range(len(sizes) + 1)]
        per_s, raw, ratio = uvloop.run(_measured(sizes, conninfos, rounds=rounds, provisionings=provisionings))
    rows = [Row("raw append of the same events", raw, "events/s", "the floor", True)]
    for hosts in sizes:
        few = per_s[FEW]
        name, figure = f"durable provisioning, {hosts:,} hosts", per_s[hosts]
        if hosts == FEW:
            target = f"≥ {TARGET_PER_S:,.0f}/s and {TARGET_RATIO} × raw append"
            rows.append(Row(name, figure, "/s", target, figure >= TARGET_PER_S and ratio >= TARGET_RATIO, raw, ratio))
        else:
            least = TARGETS_OF_FEW.get(hosts)
            target = f"≥ {least} × 1,000 hosts" if least else "none"
            rows.append(Row(name, figure, "/s", target, figure >= (least or 0) * few, few, figure / few))
    return rows


async def _measured(
    sizes: Sequence[int], conninfos: Sequence[str], *, rounds: int, provisionings: int
) -> tuple[dict[int, float], float, float]:
    """Medians: provisionings a second by hosts, the raw append of the events of `FEW`, and the ratio of their events a
    second to that."""
    figures: dict[int, list[float]] = {hosts: [] for hosts in sizes}
    raws, ratios = [], []
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(stocked(conninfo, hosts=hosts))
            for hosts, conninfo in zip(sizes, conninfos, strict=False)
        ]
        scratch = await LogConnection.connect(conninfos[-1])
        stack.push_async_callback(scratch.close)
        for engine in engines:
            await provision(engine, range(1_000))
        for round in range(rounds):
            numbers = range(1_000 + round * provisionings, 1_000 + (round + 1) * provisionings)
            for hosts, engine, conninfo in zip(sizes, engines, conninfos, strict=False):
                first, began = engine.fleet.position, time.perf_counter()
                await provision(engine, numbers)
                spent_s = time.perf_counter() - began
                figures[hosts].append(provisionings / spent_s)
                if hosts == FEW:
                    written = _written(conninfo, after=first, until=engine.fleet.position)
                    raws.append(await _raw_append_per_s(scratch, written))
                    ratios.append(len(written) / spent_s / raws[-1])
    per_s = {hosts: statistics.median(found) for hosts, found in figures.items()}
    return per_s, statistics.median(raws), statistics.median(ratios)


async def write_log(conninfo: str, *, hosts: int, provisionings: int) -> None:
    """A site and provisionings on it, as the log of a platform has them."""
    async with stocked(conninfo, hosts=hosts) as engine:
        await provision(engine, range(provisionings))


@asynccontextmanager
async def stocked(conninfo: str, *, hosts: int) -> AsyncIterator[Engine]:
    """An engine that leads, on a site of its own."""
    engine = Engine(conninfo, resource=resource, admin_token_hash=hash_of("bench"))
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


def site(hosts: int, *, racks: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """The commands that make a site to provision on, each with its body. Few hosts are larger: as many VMs fit."""
    capacity = {name: amount * max(1, FEW // hosts) for name, amount in CAPACITY.items()}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("tenant.create", {"name": "acme"}),
        ("tenant.create", {"name": "payments", "parent": "acme"}),
        ("group.create", {"name": "std"}),
        ("quota.set", {"group": "std", "tenant": "acme", "limits": {"cpu": 10**9}}),
        ("quota.set", {"group": "std", "tenant": "payments", "limits": {"cpu": 10**9}}),
    ]
    for n in range(racks):
        bodies.append(("rack.create", {"name": f"r{n:04d}", "region": "eu", "dc": f"dc-{n % 4}"}))
    for n in range(hosts):
        rack = {"rack": f"r{n % racks:04d}"} if racks else {}
        bodies.append(("host.register", {"name": f"h{n:06d}", "group": "std", "capacity": capacity, **rack}))
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


def _written(conninfo: str, *, after: int, until: int) -> list[LogRow]:
    """What the log holds there, with the log's first row before it."""
    reader = LogReader(conninfo)
    try:
        rows = reader.page(0, 1)
        while (last := max(after, rows[-1].position)) < until:
            rows += reader.page(last, min(5_000, until - last))
        return rows
    finally:
        reader.close()


async def _raw_append_per_s(scratch: LogConnection, written: list[LogRow]) -> float:
    """Rows that the engine wrote, appended to another log in batches of the engine's size, under new names."""
    base = await scratch.end()
    again = [
        LogRow(f"{row.stream}~{base}", base + n, base + n, row.topic, row.state)
        for n, row in enumerate(written, start=1)
    ]
    step = COMMANDS_MAX * 6
    began = time.perf_counter()
    for start in range(0, len(again), step):
        await scratch.append(base + start, again[start : start + step])
    return len(again) / (time.perf_counter() - began)
