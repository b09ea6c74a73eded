"""`python -m bench.overload [--seconds N]`: what is done of what is asked, at the most that is done and at twice that.

One API process with the engine in it, as in `over_http`. Requests come when they come, whether or not those before them
were answered (an open loop): clients that wait for an answer before they ask again can't overload anything. Most and
twice are measured in turn, three times, since the machine is not ours alone.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench import load, over_http, servers
from bench.site import a_vm
from workers.log import log_to_stderr

HOSTS = 8_000  # room for 340,000 VMs
TURNS = 3
MOST_CONNECTIONS = (32, 256)
WARM_S, SWEEP_S = 3.0, 3.0
FILL_S = 3.0  # until the queue is full, more is taken than is done
TICK_S = 0.005
DRAIN_S_MAX = 15.0
TARGET_RATIO = 0.9


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Of the API process: `cpu_ms` is the time that it took a command that was done, refusals included, `rss_mib` its
    memory at the end. `done` is all that was done; latencies are of what was done."""

    name: str
    asked_per_s: float
    done_per_s: float
    refused_per_s: float = 0.0
    p50_ms: float
    p99_ms: float
    refused_p99_ms: float = 0.0
    cpu_ms: float
    rss_mib: float
    done: int


class _Line(asyncio.Protocol):
    """One kept-alive connection, lent to one request at a time."""

    def __init__(self, free: "deque[_Line]", tell: "Tally") -> None:
        self._free, self._tell = free, tell
        self._buffer = b""
        self._sent_at = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._sent_at:
            self._tell.lost += 1
        if self in self._free:  # kept alive for seconds only
            self._free.remove(self)

    def send(self, request: bytes) -> None:
        assert self.transport is not None
        self._sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(load.HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        found = head.find(load.LENGTH)
        length = int(head[found + len(load.LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._buffer) < head_end + len(load.HEAD_END) + length:
            return
        took_s = time.perf_counter() - self._sent_at
        status = int(head[9:12])
        assert status in (202, 503), self._buffer.decode(errors="replace")
        assert status == 202 or b"retry-after: " in head, head
        (self._tell.done_s if status == 202 else self._tell.refused_s).append(took_s)
        self._buffer, self._sent_at = b"", 0.0
        self._free.append(self)


class Tally:
    """`counted` is what was asked, done and refused from when the queue was full until the asking ended."""

    def __init__(self) -> None:
        self.done_s: list[float] = []
        self.refused_s: list[float] = []
        self.lost = 0
        self.asked = 0
        self.counted = (0, 0, 0)

    def counts(self) -> tuple[int, int, int]:
        return self.asked, len(self.done_s), len(self.refused_s)


async def _ask(port: int, requests: Iterator[bytes], *, per_s: float, seconds: float) -> Tally:
    """Ask at a rate for a while, then wait for what is still to be answered."""
    loop = asyncio.get_running_loop()
    tally, free = Tally(), deque[_Line]()
    began = loop.time()
    before: tuple[int, int, int] | None = None
    connecting: set[asyncio.Task[None]] = set()

    async def on_a_new_line(request: bytes) -> None:
        _, line = await loop.create_connection(lambda: _Line(free, tally), "127.0.0.1", port)
        line.send(request)

    while (passed_s := loop.time() - began) < FILL_S + seconds:
        if before is None and passed_s >= FILL_S:
            before = tally.counts()
        for _ in range(int(passed_s * per_s) - tally.asked):
            tally.asked += 1
            request = next(requests)
            if free:
                free.pop().send(request)
            else:
                task = asyncio.create_task(on_a_new_line(request))
                connecting.add(task)
                task.add_done_callback(connecting.discard)
        await asyncio.sleep(TICK_S)
    deadline = loop.time() + DRAIN_S_MAX
    assert before is not None
    asked, done, refused = tally.counts()
    tally.counted = asked - before[0], done - before[1], refused - before[2]
    while len(tally.done_s) + len(tally.refused_s) + tally.lost < tally.asked:
        assert loop.time() < deadline, "requests were not answered"
        await asyncio.sleep(0.02)
    for line in list(free):
        assert line.transport is not None
        line.transport.close()
    return tally


def overload(port: int, requests: Iterator[bytes], *, per_s: float, seconds: float, pid: int) -> Phase:
    before_s = cpu_s(pid)
    tally = uvloop.run(_ask(port, requests, per_s=per_s, seconds=seconds))
    spent_s = cpu_s(pid) - before_s
    assert not tally.lost, f"{tally.lost} connections were lost"
    done_s, refused_s = sorted(tally.done_s), sorted(tally.refused_s)
    asked, done, refused = tally.counted
    return Phase(
        name="twice",
        asked_per_s=asked / seconds,
        done_per_s=done / seconds,
        refused_per_s=refused / seconds,
        p50_ms=_at(done_s, 0.5) * 1e3,
        p99_ms=_at(done_s, 0.99) * 1e3,
        refused_p99_ms=_at(refused_s, 0.99) * 1e3,
        cpu_ms=spent_s / len(done_s) * 1e3,
        rss_mib=rss_mib(pid),
        done=len(done_s),
    )


def most(
    port: int, requests: Iterator[bytes], *, connections: int, seconds: float, guess_per_s: float, pid: int
) -> Phase:
    """As fast as this many clients go that wait for each answer."""
    count = max(connections, int(guess_per_s * seconds))
    before_s = cpu_s(pid)
    answered = load.run(port, list(itertools.islice(requests, count)), connections=connections)
    return Phase(
        name=f"most, {connections} connections",
        asked_per_s=answered.per_s,
        done_per_s=answered.per_s,
        p50_ms=answered.p50_ms,
        p99_ms=answered.p99_ms,
        cpu_ms=(cpu_s(pid) - before_s) / count * 1e3,
        rss_mib=rss_mib(pid),
        done=count,
    )


def cpu_s(pid: int) -> float:
    """What the process has used, in it and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase (default 10)")
    seconds = parser.parse_args().seconds
    log_to_stderr("warning")
    phases: list[Phase] = []
    with servers.running() as running, over_http.an_api(running) as (port, token, pid):
        over_http.stock(port, token, hosts=HOSTS)
        requests = (over_http.post(a_vm(n), token) for n in itertools.count())
        at, connections = max(
            (most(port, requests, connections=many, seconds=SWEEP_S, guess_per_s=800, pid=pid).done_per_s, many)
            for many in MOST_CONNECTIONS
        )
        overload(port, requests, per_s=2 * at, seconds=WARM_S, pid=pid)  # its connections and its queue stay allocated
        for _ in range(TURNS):
            phases.append(most(port, requests, connections=connections, seconds=seconds, guess_per_s=at, pid=pid))
            at = phases[-1].done_per_s
            print(f"most {at:,.0f}/s", file=sys.stderr)
            phases.append(overload(port, requests, per_s=2 * at, seconds=seconds, pid=pid))
    show(phases)
    return 0


def show(phases: list[Phase]) -> None:
    table = Table(title=f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for heading in (
        "phase",
        "asked/s",
        "done/s",
        "refused/s",
        "p50 ms",
        "p99 ms",
        "503 p99 ms",
        "CPU ms",
        "RSS MiB",
        "KiB a command",
    ):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    before: Phase | None = None
    for phase in phases:
        grown = "" if before is None else f"{(phase.rss_mib - before.rss_mib) * 1024 / phase.done:.1f}"
        figures = (phase.asked_per_s, phase.done_per_s, phase.refused_per_s, phase.p50_ms, phase.p99_ms)
        table.add_row(
            phase.name,
            *(f"{n:,.0f}" for n in (*figures, phase.refused_p99_ms)),
            f"{phase.cpu_ms:.2f}",
            f"{phase.rss_mib:,.0f}",
            grown,
        )
        before = phase
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    mosts, twices = phases[::2], phases[1::2]
    ratio = statistics.median(two.done_per_s / one.done_per_s for one, two in zip(mosts, twices, strict=True))
    print(f"goodput at twice the capacity: {ratio:.2f} of the most (target {TARGET_RATIO})")


if __name__ == "__main__":
    sys.exit(main())
