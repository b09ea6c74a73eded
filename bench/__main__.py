"""`python -m bench [--short] [--only PART …] [--peer DIR]`: one table, and bench/results/latest.json in the form that
the contract gives (part.json, if it was not the whole of it)."""

import argparse
import contextlib
import itertools
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import (
    berth,
    decision,
    engine,
    fold,
    growth,
    latency,
    memory,
    over_http,
    past,
    peer,
    projecting,
    reads,
    relaying,
    servers,
    starting,
    takeover,
    upgrading,
    whole,
)
from bench.row import Row
from bench.site import a_vm
from workers.log import log_to_stderr

RESULTS = Path(__file__).with_name("results")
TABLE_CHARACTERS = 170
PLATFORM_HOSTS = 4_000  # room for 170,000 VMs


class Told(msgspec.Struct, frozen=True):
    """What was asked for. `peer` is the directory of a peer's runner, if there is one."""

    is_short: bool
    peer: Path | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only show that the benchmarks run; the figures mean little"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="these parts; else all of them")
    parser.add_argument("--peer", type=Path, help="directory of OpenStack Placement's runner, for a baseline more")
    asked = parser.parse_args()
    told = Told(asked.short, asked.peer)
    if told.peer is not None and not (told.peer / "run.py").is_file():
        parser.error(f"there is no run.py in {told.peer}")
    log_to_stderr("warning")  # as in a service; the default writes every batch to the terminal
    # Servers and directories go, as with Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    RESULTS.mkdir(exist_ok=True)
    load, began = os.getloadavg()[0], time.monotonic()
    rows: list[Row] = []
    is_whole = False
    try:
        for name in asked.only:
            for measured in PARTS[name](told):
                rows += measured
                print(f"{time.monotonic() - began:5.0f} s: measured {rows[-1].name}", file=sys.stderr)
        is_whole = not told.is_short and len(asked.only) == len(PARTS)
        if told.peer is None and "http" in asked.only:
            print("Not beside OpenStack Placement: `--peer DIR` says where its runner is", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted: this is what was measured", file=sys.stderr)
        return 130
    finally:  # what was measured is told, whatever became of the rest
        machine = (
            f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
            f" load {load:.1f} before and {os.getloadavg()[0]:.1f} at the end"
        )
        show(rows, machine)
        document = {"machine": machine, "rows": [msgspec.to_builtins(row) for row in rows]}
        (RESULTS / ("latest.json" if is_whole else "part.json")).write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _read_side(told: Told) -> Iterator[list[Row]]:
    """The relay relays what the projector's log holds."""
    with servers.running() as running:
        yield projecting.measure(running, is_short=told.is_short)
        yield relaying.measure(running, is_short=told.is_short)


def _http(told: Told) -> Iterator[list[Row]]:
    with servers.running() as running:
        rows = over_http.measure(running, is_short=told.is_short)
    yield rows
    if told.peer is not None:
        yield peer.measure(told.peer, rows[0], is_short=told.is_short)


def _reads(told: Told) -> Iterator[list[Row]]:
    with servers.running() as running:
        yield reads.measure(running, is_short=told.is_short)


@contextlib.contextmanager
def _on_two_cores() -> Iterator[None]:
    """What is promised of the whole system is promised of two; whatever is started meanwhile stays there."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _platform(told: Told) -> Iterator[list[Row]]:
    with _on_two_cores(), berth.running(hosts=100 if told.is_short else PLATFORM_HOSTS) as running:
        requests = (over_http.post(a_vm(n), running.token) for n in itertools.count())
        whole.step(running, requests, per_s=40.0, seconds=2.0)  # warms everything up
        yield latency.measure(running, requests, is_short=told.is_short)
        yield whole.measure(running, requests, is_short=told.is_short)


def _start(told: Told) -> Iterator[list[Row]]:
    for events in [starting.EVENTS_FEW] if told.is_short else starting.EVENTS:
        with servers.running() as running:
            yield starting.measure(running, events=events)


def _upgrade(told: Told) -> Iterator[list[Row]]:
    with servers.running() as running:
        yield upgrading.measure(running, events=upgrading.EVENTS_FEW if told.is_short else upgrading.EVENTS)


def _past(told: Told) -> Iterator[list[Row]]:
    with servers.running() as running:
        yield past.measure(running, is_short=told.is_short)


# Each has servers of its own.
PARTS: dict[str, Callable[[Told], Iterator[list[Row]]]] = {
    "fold": lambda told: iter([fold.measure(is_short=told.is_short)]),
    "decision": lambda told: iter([decision.measure(is_short=told.is_short)]),
    "memory": lambda told: iter([memory.measure(is_short=told.is_short)]),
    "engine": lambda told: iter([engine.measure(is_short=told.is_short)]),
    "read-side": _read_side,
    "http": _http,
    "reads": _reads,
    "platform": _platform,
    "start": _start,
    "upgrade": _upgrade,
    "past": _past,
    "take-over": lambda told: iter([takeover.measure(is_short=told.is_short)]),
    "growth": lambda told: iter([growth.measure(is_short=told.is_short)]),
}


def show(rows: list[Row], machine: str) -> None:
    table = Table(title=f"Berth on {machine}")
    for heading in ("what", "figure", "unit", "baseline", "ratio", "target", "reached"):
        table.add_column(heading, justify="left" if heading in ("what", "unit", "target") else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.figure:,.1f}",
            row.unit,
            f"{row.baseline:,.1f}" if row.baseline is not None else "",
            "" if row.ratio is None else f"{row.ratio:.2f}" if row.ratio >= 0.1 else f"{row.ratio:.4f}",
            row.target,
            "–" if row.target == "none" else "yes" if row.reached else "no",
        )
    # A pipe has no width: wide enough that no row is broken.
    Console(width=None if sys.stdout.isatty() else TABLE_CHARACTERS).print(table)


if __name__ == "__main__":
    sys.exit(main())
