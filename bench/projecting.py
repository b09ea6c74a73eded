"""The projector catching up from nothing, beside a fold of the same log that writes no rows."""

import time

import uvloop

from bench import engine
from bench.row import Row
from bench.servers import Servers
from domain.fleet import Fleet
from eventlog.codec import decode
from eventlog.read import LogReader
from projections.projector import PAGE_EVENTS, Projector

TARGET_PER_S = 30_000.0


def measure(servers: Servers, *, is_short: bool) -> list[Row]:
    """Leaves a log of provisionings behind, for others to read."""
    write(servers.conninfo, hosts=100 if is_short else 1_000, provisionings=500 if is_short else 10_000)
    baseline = _folded_per_s(servers)
    figure = projected(servers)
    target = f"≥ {TARGET_PER_S:,.0f} events/s"
    return [
        Row("projector catching up", figure, "events/s", target, figure >= TARGET_PER_S, baseline, figure / baseline)
    ]


def write(conninfo: str, *, hosts: int, provisionings: int) -> None:
    """A log of provisionings."""
    uvloop.run(engine.write_log(conninfo, hosts=hosts, provisionings=provisionings))


def projected(servers: Servers) -> float:
    """Events a second, from nothing to the log's end."""
    reader = LogReader(servers.conninfo)
    projector = Projector(servers.conninfo, reader)
    try:
        projector.open()
        began = time.perf_counter()
        events = projector.catch_up()
        return events / (time.perf_counter() - began)
    finally:
        projector.close()
        reader.close()


def _folded_per_s(servers: Servers) -> float:
    reader, fleet = LogReader(servers.conninfo), Fleet()
    try:
        began = time.perf_counter()
        while page := reader.page(fleet.position, PAGE_EVENTS):
            for row in page:
                fleet.fold(decode(row))
        return fleet.position / (time.perf_counter() - began)
    finally:
        reader.close()
