"""`python -m bench [--short]`: one table, and bench/results/latest.json in the form that the contract gives."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import decision, engine, fold, memory, over_http, projecting, relaying, servers, whole
from bench.row import Row
from workers.__main__ import log_to_stderr

RESULTS = Path(__file__).with_name("results") / "latest.json"
TABLE_CHARACTERS = 140


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only show that the benchmarks run; the figures mean little"
    )
    is_short = parser.parse_args().short
    log_to_stderr("warning")  # as in a service; the default writes every batch to the terminal
    rows: list[Row] = []
    for measured in measurements(is_short=is_short):
        rows += measured
        print(f"measured {rows[-1].name}", file=sys.stderr)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"machine": machine, "rows": [msgspec.to_builtins(row) for row in rows]}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    show(rows, machine)
    return 0


def measurements(*, is_short: bool) -> Iterator[list[Row]]:
    """Each with servers of its own, but that the relay relays what the projector's log holds."""
    yield fold.measure(is_short=is_short)
    yield decision.measure(is_short=is_short)
    yield memory.measure(is_short=is_short)
    with servers.running() as running:
        provisioned = engine.measure(running.conninfo, is_short=is_short)
        yield provisioned
    with servers.running() as running:
        yield engine.measure_many(running.conninfo, provisioned[-1], is_short=is_short)
    with servers.running() as running:
        yield projecting.measure(running, is_short=is_short)
        yield relaying.measure(running, is_short=is_short)
    with servers.running() as running:
        yield over_http.measure(running, is_short=is_short)
    yield whole.measure(is_short=is_short)


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
            f"{row.ratio:.2f}" if row.ratio is not None else "",
            row.target,
            "yes" if row.reached else "no",
        )
    # A pipe has no width: wide enough that no row is broken.
    Console(width=None if sys.stdout.isatty() else TABLE_CHARACTERS).print(table)


if __name__ == "__main__":
    sys.exit(main())
