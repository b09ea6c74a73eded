"""Starting an engine on a long log: from a checkpoint that is as old as the newest ever gets, beside folding all of
it."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import psycopg
import uvloop
from psycopg.sql import SQL

from bench import site
from bench.row import Row
from bench.servers import Servers
from commands.writer.engine import Engine
from domain.command import CommandAccepted
from domain.fleet import Fleet
from domain.host import HostClaimed, HostReleased
from domain.operation import (
    OperationStarted,
    OperationStepStarted,
    OperationStepSucceeded,
    OperationSucceeded,
    Step,
)
from domain.quota import QuotaConsumed, QuotaReleased
from domain.recorded import LogOpened, Recorded
from domain.vm import KIND as VM
from domain.vm import VmActivated, VmCreating, VmDeleted, VmDeleting, VmScheduled
from eventlog import checkpoints
from eventlog.codec import Row as LogRow
from eventlog.codec import encode
from eventlog.table import EVENTS_TABLE
from projections.resources import resource

TARGET_S = 5.0
EVENTS_FEW, EVENTS = 50_000, (1_000_000, 10_000_000)
HOSTS = 1_000
LIVING_VMS = 100_000
CYCLES_AT_ONCE = 20_000

Command = list[tuple[str, Any]]  # (stream, event), but for the command's own

# One cycle's events as they stand in the log, but for @n (its number), @d (that of the VM which it deletes), @h (the
# host of both), and the beginning of the times.
TIMES_BEGIN = 555_555
NEW, OLD, NEW_WORK, OLD_WORK = "vm/payments/vm-@n", "vm/payments/vm-@d", "operation/o-@n", "operation/x-@n"
HOST, QUOTAS = "host/h@h", ("quota/std/payments", "quota/std/acme")
SHAPE = site.SHAPES[0]
COUNTED = {**SHAPE, "vms": 1}
TOLD = {"strategy": "best_fit", "group": "std", "considered": 1000, "reasons": [], "score": 0.5, "runner_up": None}
STEPS = (Step("vm.create", compensation="vm.delete"),)

CREATED: list[Command] = [
    [
        (NEW, VmScheduled("u-@n", "payments", "vm-@n", "std", "h@h", SHAPE, "o-@n", TOLD)),
        (HOST, HostClaimed(NEW, SHAPE)),
        *((quota, QuotaConsumed(NEW, COUNTED)) for quota in QUOTAS),
        (NEW_WORK, OperationStarted("vm.provision", NEW, STEPS, {"uid": "u-@n"}, 1)),
    ],
    [(NEW_WORK, OperationStepStarted("vm.create", 1, 10**15)), (NEW, VmCreating())],
    [
        (NEW_WORK, OperationStepSucceeded("vm.create", 1)),
        (NEW_WORK, OperationSucceeded()),
        (NEW, VmActivated(("10.0.0.@h",))),
    ],
]
DELETED: list[Command] = [
    [
        (OLD, VmDeleting("x-@n")),
        (OLD_WORK, OperationStarted("vm.delete", OLD, (Step("vm.delete"),), {"uid": "u-@d"}, 1)),
    ],
    [(OLD_WORK, OperationStepStarted("vm.delete", 1, 10**15))],
    [
        (OLD_WORK, OperationStepSucceeded("vm.delete", 1)),
        (OLD_WORK, OperationSucceeded()),
        (OLD, VmDeleted()),
        (HOST, HostReleased(OLD, SHAPE)),
        *((quota, QuotaReleased(OLD, COUNTED)) for quota in QUOTAS),
    ],
]

# Made where they are stored: ten million rows through a connection would take longer than all that is measured.
_COLUMNS = SQL("(notification_id, originator_id, originator_version, topic, state)")
_COPY = SQL("COPY {} {} FROM STDIN").format(EVENTS_TABLE, _COLUMNS)
_CYCLES = SQL("""
INSERT INTO {} {}
SELECT position,
    replace(replace(replace(stream, '@n', n::text), '@d', d), '@h', h),
    CASE WHEN topic LIKE 'command.%%' THEN 1 ELSE position END,
    topic,
    convert_to(replace(replace(replace(replace(state, %(begin)s, begin), '@n', n::text), '@d', d), '@h', h), 'UTF8')
FROM generate_series(%(first)s::bigint, %(last)s) AS n,
    unnest(%(streams)s::text[], %(topics)s::text[], %(states)s::text[])
        WITH ORDINALITY AS event (stream, topic, state, k),
    LATERAL (SELECT (n - %(living)s)::text, lpad((n %% %(hosts)s)::text, 6, '0'), (%(at)s + n)::text) c (d, h, begin),
    LATERAL (SELECT %(base)s + (n - %(first)s) * %(length)s + k) p (position)
""").format(EVENTS_TABLE, _COLUMNS)


def measure(servers: Servers, *, events: int) -> list[Row]:
    late = min(checkpoints.EVENTS_BETWEEN_MIN, events // 10)
    with psycopg.connect(servers.postgres.owner(), autocommit=True) as connection:
        living, cycles = write_log(connection, events=events - late)
        baseline, fleet = uvloop.run(_started(servers.conninfo))
        checkpoints.write(servers.conninfo, checkpoints.snapshot(fleet))
        cycles = range(cycles.stop, cycles.stop + late // len(_templates(CREATED + DELETED)))
        _add(connection, CREATED + DELETED, cycles, living=living, base=fleet.position, at=fleet.at // 10)
    figure, fleet = uvloop.run(_started(servers.conninfo))
    assert len(fleet.streams(VM, tenant="payments")) == living
    name = f"engine's start, {fleet.position:,} events, from a checkpoint"
    return [Row(name, figure, "s", f"< {TARGET_S:g} s", figure < TARGET_S, baseline, figure / baseline)]


def write_log(
    connection: psycopg.Connection[Any], *, events: int, hosts: int = HOSTS, racks: int = 0
) -> tuple[int, range]:
    """A log of VMs that come and go, about so long; answers how many live at its end, and the numbers of those that
    came when as many lived."""
    connection.execute("SET synchronous_commit = off")
    living = min(LIVING_VMS, events // 25)
    base = _begin(connection, hosts=hosts, racks=racks)
    base = _add(connection, CREATED, range(living), living=living, base=base, at=0, hosts=hosts)
    cycles = range(living, living + (events - base) // len(_templates(CREATED + DELETED)))
    _add(connection, CREATED + DELETED, cycles, living=living, base=base, at=0, hosts=hosts)
    return living, cycles


async def _started(conninfo: str) -> tuple[float, Fleet]:
    """Seconds until it decides, and its fleet."""
    gc.collect()
    began = time.perf_counter()
    engine = Engine(conninfo, resource=resource)
    await engine.start()
    await engine.ready()
    spent_s = time.perf_counter() - began
    await engine.stop()
    return spent_s, engine.fleet


def _begin(connection: psycopg.Connection[Any], *, hosts: int, racks: int) -> int:
    """The site; answers the log's end."""
    events = [("log", LogOpened("bench")), *site.events(hosts, racks=racks)]
    with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
        for n, (stream, event) in enumerate(events, start=1):
            row = encode(Recorded(stream, n, n, n, "bench", "c", event))
            copy.write_row((row.position, row.stream, row.version, row.topic, row.state))
    return len(events)


def _add(
    connection: psycopg.Connection[Any],
    commands: Sequence[Command],
    cycles: range,
    *,
    living: int,
    base: int,
    at: int,
    hosts: int = HOSTS,
) -> int:
    """Append as many of these cycles, after `base` and the tenth part of `at`; answers the log's end."""
    rows = _templates(commands)
    for first in range(cycles.start, cycles.stop, CYCLES_AT_ONCE):
        last = min(first + CYCLES_AT_ONCE, cycles.stop) - 1
        values = {
            "begin": str(TIMES_BEGIN),
            "first": first,
            "last": last,
            "living": living,
            "hosts": hosts,
            "at": at + 1_000_000,
            "base": base,
            "length": len(rows),
            "streams": [row.stream for row in rows],
            "topics": [row.topic for row in rows],
            "states": [row.state.decode() for row in rows],
        }
        connection.execute(_CYCLES, values)
        base += (last - first + 1) * len(rows)
    return base


def _templates(commands: Sequence[Command]) -> list[LogRow]:
    rows = []
    for number, events in enumerate(commands):
        receipt = CommandAccepted(f"i{number}-@n", "bench", "operator", {"name": "vm-@n"}, key=f"i{number}-@n")
        for stream, event in [*events, (f"command/bench/i{number}-@n", receipt)]:
            rows.append(encode(Recorded(stream, 0, 0, TIMES_BEGIN * 10 + number, "bench", f"i{number}-@n", event)))
    return rows
