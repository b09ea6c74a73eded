"""A version in which the view of one kind changed, on a long log: until its read model is served, beside making all of
it."""

import time

import psycopg

from bench import starting
from bench.row import Row
from bench.servers import Servers
from eventlog import checkpoints
from eventlog.checkpoints import Checkpointer
from eventlog.read import LogReader
from projections import inheriting, schema
from projections.definitions import DEFINITIONS, SCHEMA, SCHEMA_PREFIX
from projections.projector import Projector

TARGET_S = 60.0
EVENTS_FEW, EVENTS = 50_000, 10_000_000
CHANGED = "vm"  # the kind with most rows of what lives
LATER = f"{SCHEMA_PREFIX}of_a_later_version"


def measure(servers: Servers, *, events: int) -> list[Row]:
    with psycopg.connect(servers.postgres.owner(), autocommit=True) as connection:
        starting.write_log(connection, events=events)
    baseline, position = _served(servers, in_schema=SCHEMA)
    assert checkpoints.kept(servers.conninfo) or events <= checkpoints.EVENTS_BETWEEN_MIN
    later = DEFINITIONS | {CHANGED: "of a later version"}
    inheriting.DEFINITIONS = schema.DEFINITIONS = later
    try:
        figure, _ = _served(servers, in_schema=LATER)
    finally:
        inheriting.DEFINITIONS = schema.DEFINITIONS = DEFINITIONS
    name = f"a changed view of {CHANGED}s served, {position:,} events"
    return [Row(name, figure, "s", f"< {TARGET_S:g} s", figure < TARGET_S, baseline, figure / baseline)]


def _served(servers: Servers, *, in_schema: str) -> tuple[float, int]:
    """Seconds until a read model stands at the log's end, and where that is."""
    reader = LogReader(servers.conninfo)
    checkpointer = Checkpointer(servers.conninfo)
    projector = Projector(servers.conninfo, reader, in_schema=in_schema, checkpointer=checkpointer)
    try:
        began = time.perf_counter()
        projector.open()
        projector.catch_up()
        projector.complete()
        spent_s = time.perf_counter() - began
        checkpointer.settle()
        return spent_s, projector.position
    finally:
        projector.close()
        reader.close()
