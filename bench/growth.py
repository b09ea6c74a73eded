"""The same figures with ten and a hundred times the hosts and VMs, and a chart of them: bench/results/growth.svg.

A site of half a million VMs takes a log of five million events, which is not written here: the fleet is folded in
memory, and kept as a checkpoint and as a read model of its position, from where the platform's own process goes on.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
import psycopg
from psycopg.sql import SQL
from psycopg.types.numeric import Int8BinaryDumper

from bench import berth, decision, fold, load, memory, over_http, servers, site
from bench.over_http import get, post
from bench.reads import PAGE
from bench.row import Row
from bench.servers import Servers
from bench.site import a_vm
from domain.command import CommandAccepted
from domain.fleet import Fleet
from domain.recorded import LogOpened, Recorded
from eventlog import checkpoints
from eventlog.codec import decode, encode
from eventlog.table import EVENTS_TABLE
from projections import changes, rows, schema
from projections.changes import Changes
from projections.definitions import SCHEMA
from projections.sums import Sums

CHART = Path(__file__).with_name("results") / "growth.svg"
FACTORS = (1, 10, 100)
HOSTS, VMS, RACKS = 1_000, 5_000, 25
FOLDED = 10_000  # provisionings by which folding is measured
WRITTEN_AT_ONCE = 10_000
POSTS, ONE_VM, PAGES, BY_RACK = 4_000, 5_000, 100, 100
CONNECTIONS, READ_CONNECTIONS = 32, 8

# What grows or falls, by name: the unit.
UNITS = {
    "fold": "events/s",
    "one decision": "decisions/s",
    "POST /v1/vms, 32 connections": "/s",
    "GET one VM": "/s",
    f"GET a page of {PAGE:,} hosts": "/s",
    "GET capacity by rack": "/s",
    "start from a checkpoint": "s",
    "memory of the API with the engine": "MiB",
}


def measure(*, is_short: bool) -> list[Row]:
    scale = 20 if is_short else 1
    _at(1, 20)  # warms up: what a young process does first takes up to half as long again
    found = {factor: _at(factor, scale) for factor in (FACTORS[:2] if is_short else FACTORS)}
    if not is_short:
        _draw(found)
    made = []
    for factor, figures in list(found.items())[1:]:
        for name, unit in UNITS.items():
            figure, baseline = figures[name], found[1][name]
            made.append(Row(f"{name}, {factor} × the site", figure, unit, "none", True, baseline, figure / baseline))
    return made


def _at(factor: int, scale: int) -> dict[str, float]:
    """All figures at one size."""
    hosts, vms, racks = (max(1, each * factor // scale) for each in (HOSTS, VMS, RACKS))
    fleet = Fleet()
    figures = {"fold": _grow(fleet, hosts=hosts, vms=vms, racks=racks, measured=FOLDED // scale)}
    with servers.running() as running:
        _keep(running, fleet)
        decisions = decision.decision_us(fleet, decisions=2_000 // scale)
        figures["one decision"] = 1e6 / decisions
        fleet = Fleet()  # its memory is for others now
        gc.collect()
        began = time.perf_counter()
        with over_http.an_api(running) as (port, token, pid):
            figures["start from a checkpoint"] = time.perf_counter() - began
            figures["memory of the API with the engine"] = berth.resident_mib(pid)
            figures |= _over_http(port, token, vms=vms, scale=scale)
    return figures


def _grow(fleet: Fleet, *, hosts: int, vms: int, racks: int, measured: int) -> float:
    """Hosts in racks, and VMs that run: the first are folded as they come; the last by way of their rows, in the time
    that is told as events a second."""
    fleet.fold(Recorded("log", 1, 1, 1, "bench", "", LogOpened("log-of-the-bench")))
    for position, (stream, event) in enumerate(site.events(hosts, racks=racks), start=2):
        fleet.fold(Recorded(stream, position, position, position, "bench", "", event))
    base = fleet.position
    first = max(0, vms - measured)
    for recorded in _provisioned(base, range(first), hosts):
        fleet.fold(recorded)
    rows = [encode(recorded) for recorded in _provisioned(fleet.position, range(first, vms), hosts)]
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    for row in rows:
        fleet.fold(decode(row))
    spent_s = time.perf_counter() - began
    gc.unfreeze()
    return len(rows) / spent_s


def _provisioned(base: int, numbers: range, hosts: int) -> Iterator[Recorded]:
    positions = count(base + 1)
    for n in numbers:
        for recorded in (*fold.events(0, n, hosts=hosts), *memory.ended(n)):
            position = next(positions)
            yield msgspec.structs.replace(recorded, version=position, position=position, at=position)


def _keep(servers: Servers, fleet: Fleet) -> None:
    """The log's first and last event, between them nothing; a checkpoint; and the read model of that position."""
    position = fleet.position + 1
    ended = CommandAccepted("c", "vm.provision", "admin", {})
    last = Recorded("command/bench/c", 1, position, position, "bench", "c", ended)
    first = Recorded("log", 1, 1, 1, "bench", "", LogOpened(fleet.log))
    fleet.fold(last)
    with psycopg.connect(servers.conninfo, autocommit=True) as connection:
        insert = SQL(
            "INSERT INTO {} (notification_id, originator_id, originator_version, topic, state)"
            " VALUES (%s, %s, %s, %s, %s)"
        ).format(EVENTS_TABLE)
        for row in (encode(first), encode(last)):
            connection.execute(insert, (row.position, row.stream, row.version, row.topic, row.state))
        checkpoints.write(servers.conninfo, checkpoints.snapshot(fleet))
        schema.make(connection, SCHEMA)
        connection.execute(schema.USE, (SCHEMA,))
        with connection.transaction(), connection.cursor(binary=True) as cursor:
            cursor.adapters.register_dumper(int, Int8BinaryDumper)
            _write_rows(cursor, fleet)
            summed = Changes(0)
            summed.upserts = {"sums": Sums.of(fleet).rows()}
            changes.write(cursor, summed)
        connection.execute(
            "UPDATE progress SET log = %s, position = %s, at = %s, is_complete = true", (fleet.log, position, fleet.at)
        )
        connection.execute("ANALYZE")


def _write_rows(cursor: psycopg.Cursor[Any], fleet: Fleet) -> None:
    entries = fleet.entries()
    while some := list(islice(entries, WRITTEN_AT_ONCE)):
        upserts: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for stream, entry in some:
            upserts[stream.partition("/")[0]].append(rows.row(stream, entry))
        written = Changes(0)
        written.upserts = dict(upserts)
        changes.write(cursor, written)


def _over_http(port: int, token: str, *, vms: int, scale: int) -> dict[str, float]:
    def per_s(requests: list[bytes], connections: int) -> float:
        load.run(port, requests[: max(1, len(requests) // 4)], connections=connections)  # warms up
        return load.run(port, requests[len(requests) // 4 :], connections=connections).per_s

    asked = {
        "GET one VM": [get(f"/v1/vms/payments/vm-{n * 7919 % vms}", token) for n in range(ONE_VM // scale)],
        f"GET a page of {PAGE:,} hosts": [get(f"/v1/hosts?limit={PAGE}", token)] * max(4, PAGES // scale),
        "GET capacity by rack": [get("/v1/capacity?by=rack", token)] * max(4, BY_RACK // scale),
    }
    figures = {name: per_s(requests, READ_CONNECTIONS) for name, requests in asked.items()}
    posts = [post(a_vm(vms + n), token) for n in range(POSTS // scale)]
    return {**figures, "POST /v1/vms, 32 connections": per_s(posts, CONNECTIONS)}


def _draw(found: dict[int, dict[str, float]]) -> None:
    """Each figure as a ratio to the smallest site's: a line that stays level does not depend on the size."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    factors = list(found)
    for name in UNITS:
        axes.plot(factors, [found[factor][name] / found[1][name] for factor in factors], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(factors, [f"{factor} ×\n{HOSTS * factor:,} hosts\n{VMS * factor:,} VMs" for factor in factors])
    axes.set_ylabel("figure ÷ figure of the smallest site")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    CHART.parent.mkdir(exist_ok=True)
    figure.savefig(CHART, metadata={"Date": None})
    pyplot.close(figure)
