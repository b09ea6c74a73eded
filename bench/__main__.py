"""`python -m bench [--short]`: one table, and bench/results/latest.json in the form that the contract gives."""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench import decision, engine, fold
from bench.row import Row
from eventlog import schema
from workers import embedded

RESULTS = Path(__file__).with_name("results") / "latest.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="only show that the benchmarks run; the figures mean little"
    )
    is_short = parser.parse_args().short
    rows: list[Row] = []
    for measure in (fold.measure, decision.measure):
        rows += measure(is_short=is_short)
        print(f"measured {rows[-1].name}", file=sys.stderr)
    with a_database() as conninfo:
        rows += engine.measure(conninfo, is_short=is_short)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"machine": machine, "rows": [msgspec.to_builtins(row) for row in rows]}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    show(rows, machine)
    return 0


@contextmanager
def a_database() -> Iterator[str]:
    """A PostgreSQL of our own, as durable as in production, with an empty log; the service's connection string."""
    directory = Path(tempfile.mkdtemp(prefix="berth-bench-"))
    directory.chmod(0o755)
    postgres = embedded.Postgres(directory)
    with open(directory / "postgres.log", "ab") as log:
        process = embedded.bring_up(postgres, log)
    try:
        with psycopg.connect(postgres.owner("postgres"), autocommit=True) as connection:
            connection.execute("SELECT 1")
        password = postgres.service_password_file.read_text().strip()
        schema.prepare(postgres.owner(), service_role=embedded.SERVICE, service_password=password)
        yield postgres.service()
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


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
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
