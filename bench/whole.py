"""The whole system over HTTP: provisionings at a steady rate, until each VM is active and every reader has seen it.

All processes share two cores with this client. The highest rate at which nothing falls behind by more than a
second is found by short steps, and then held: in a short one, what comes a tenth too fast is not yet a second late. How
late each VM became active is read from the log afterwards, how far the projector and the relay were is looked at
meanwhile.
"""

import asyncio
import contextlib
import os
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator

import msgspec
import psycopg
import uvloop
from psycopg.sql import SQL, Identifier

from bench import berth, load
from bench.berth import Berth
from bench.load import at
from bench.row import Row
from eventlog.codec import Row as LogRow
from eventlog.codec import time_of
from eventlog.read import LogReader
from messaging import subjects
from messaging.connect import connected
from projections.definitions import SCHEMA
from workers.settings import Settings

LOOK_S = 0.1
DRAIN_S_MAX = 20.0
LAG_S_MAX = 1.0
DELAY_S = 0.05  # how long a simulated controller takes
TARGET_PER_S = 600.0
STEP, FINE_STEP = 1.5, 1.15
FIRST_PER_S = 200.0
SEARCH_S, HOLD_S = 5.0, 20.0


class Step(msgspec.Struct, frozen=True):
    """One rate, held for a while. Lags are the greatest that were seen; `active_*` is from scheduled to active; `cores`
    what each process used while requests were sent."""

    per_s: float
    refused: int
    active: int
    asked: int
    answered_per_s: float
    answer_p99_ms: float
    active_p50_s: float
    active_max_s: float
    projector_lag_s: float
    relay_lag_s: float
    cores: dict[str, float]

    @property
    def is_sustained(self) -> bool:
        late_s = max(self.answer_p99_ms / 1e3, self.active_max_s - DELAY_S, self.projector_lag_s, self.relay_lag_s)
        return not self.refused and self.active == self.asked and late_s <= LAG_S_MAX

    def __str__(self) -> str:
        lags = f"projector {self.projector_lag_s:.2f} s, relay {self.relay_lag_s:.2f} s behind at most"
        late = f"active after {self.active_p50_s:.2f} s (most {self.active_max_s:.2f} s)"
        missed = f"{self.asked - self.active} not active, {self.refused} refused"
        return f"{self.per_s:.0f}/s: answered in {self.answer_p99_ms:.0f} ms (p99), {late}, {lags}, {missed}"


def measure(platform: Berth, requests: Iterator[bytes], *, is_short: bool) -> list[Row]:
    best = step(platform, requests, per_s=40.0, seconds=2.0) if is_short else _best(platform, requests)
    figure = best.per_s if best.is_sustained else 0.0
    target = f"≥ {TARGET_PER_S:,.0f}/s, no lag over {LAG_S_MAX:g} s"
    return [Row("whole system, sustained to active", figure, "/s", target, figure >= TARGET_PER_S)]


def _best(platform: Berth, requests: Iterator[bytes]) -> Step:
    """The highest rate that was held: up by large steps until one fails (or down until one does not), then by small
    ones, and down by small ones until one is held for long."""
    found = step(platform, requests, per_s=FIRST_PER_S, seconds=SEARCH_S)
    while not found.is_sustained and found.per_s > 10:
        found = step(platform, requests, per_s=found.per_s / STEP, seconds=SEARCH_S)
    for factor in (STEP, FINE_STEP):
        while True:
            tried = step(platform, requests, per_s=found.per_s * factor, seconds=SEARCH_S)
            if not tried.is_sustained:
                break
            found = tried
    held = step(platform, requests, per_s=found.per_s, seconds=HOLD_S)
    while not held.is_sustained and held.per_s > 10:
        held = step(platform, requests, per_s=held.per_s / FINE_STEP, seconds=HOLD_S)
    return held


def step(platform: Berth, requests: Iterator[bytes], *, per_s: float, seconds: float) -> Step:
    found = uvloop.run(_step(platform, requests, per_s=per_s, seconds=seconds))
    print(f"  {'held' if found.is_sustained else 'not held'} {found}", file=sys.stderr)
    return found


async def _step(platform: Berth, requests: Iterator[bytes], *, per_s: float, seconds: float) -> Step:
    reader = LogReader(platform.postgres)
    try:
        base = await asyncio.to_thread(reader.end)
        pids = platform.pids()
        used, began = _used_s(pids), time.perf_counter()
        async with _looking(platform) as seen:
            answered = await load.steady(platform.port, requests, per_s=per_s, seconds=seconds)
            passed_s = time.perf_counter() - began
            cores = {name: (used_s - used[name]) / passed_s for name, used_s in _used_s(pids).items()}
            done = answered.asked - answered.refused
            rows = await _until_active(reader, base, done)
        scheduled = {row.stream: time_of(row) for row in rows if row.topic == "vm.scheduled"}
        after_s = sorted((time_of(r) - scheduled[r.stream]) / 1e6 for r in rows if r.topic == "vm.activated")
        return Step(
            per_s,
            answered.refused,
            len(after_s),
            answered.asked,
            answered.per_s,
            answered.p99_ms,
            at(after_s, 0.5),
            at(after_s, 1.0),
            _lag_s(rows, seen["projector"]),
            _lag_s(rows, seen["relay"]),
            cores,
        )
    finally:
        reader.close()


def _used_s(pids: dict[str, int]) -> dict[str, float]:
    own = {name: berth.used_s(pid) for name, pid in pids.items() if name != "postgres"}
    return {**own, "postgres": berth.used_with_children_s(pids["postgres"]), "this client": berth.used_s(os.getpid())}


async def _until_active(reader: LogReader, base: int, count: int) -> list[LogRow]:
    """The log after `base`, once so many VMs have become active, or nothing has happened for long."""
    rows: list[LogRow] = []
    active, deadline = 0, time.monotonic() + DRAIN_S_MAX
    while active < count and time.monotonic() < deadline:
        page = await asyncio.to_thread(reader.page, rows[-1].position if rows else base, 5_000)
        rows += page
        active += sum(row.topic == "vm.activated" for row in page)
        if not page:
            await asyncio.sleep(LOOK_S)
    return rows


Seen = dict[str, list[tuple[float, int]]]


@contextlib.asynccontextmanager
async def _looking(platform: Berth) -> AsyncIterator[Seen]:
    """How far projector and relay are, again and again: (time in microseconds since 1970, position)."""
    seen: Seen = {"projector": [], "relay": []}
    settings = Settings(nats=platform.nats, nats_credentials=platform.data / "nats" / "relay.json")
    progress = SQL("SELECT position FROM {}.progress").format(Identifier(SCHEMA))

    async def look(connection: psycopg.AsyncConnection, stream) -> None:
        while True:
            found = await (await connection.execute(progress)).fetchone()
            assert found is not None
            seen["projector"].append((time.time() * 1e6, found[0]))
            info = await stream.stream_info(subjects.EVENTS)
            seen["relay"].append((time.time() * 1e6, info.state.last_seq))
            await asyncio.sleep(LOOK_S)

    async with (
        await psycopg.AsyncConnection.connect(platform.postgres, autocommit=True) as connection,
        connected(**settings.nats_options()) as client,
    ):
        looking = asyncio.create_task(look(connection, client.jetstream()))
        yield seen
        await asyncio.sleep(2 * LOOK_S)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


def _lag_s(rows: list[LogRow], seen: list[tuple[float, int]]) -> float:
    """The longest that an event which stood was not seen to have arrived."""
    positions, lag_us = [row.position for row in rows], 0.0
    for when_us, position in seen:
        index = bisect_left(positions, position + 1)  # the first that is still to come
        if index < len(rows):
            lag_us = max(lag_us, when_us - time_of(rows[index]))
    return lag_us / 1e6
