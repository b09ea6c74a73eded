"""A page of a list as of a moment long ago, on a log of a million events: the first time, and again.

The moment is as far behind a checkpoint as one can be, of those that the projector leaves.
"""

import asyncio
import statistics
import time
import uuid
from typing import Any

import msgspec
import psycopg

from bench import starting
from bench.row import Row
from bench.servers import Servers
from domain.fleet import Fleet
from eventlog import checkpoints
from eventlog.checkpoints import Checkpointer
from eventlog.codec import decode
from eventlog.read import LogReader
from messaging.past import OfList, OfResource
from projections.as_of import list_as_of
from projections.listing import CapacityQuery, ListQuery, Portion
from projections.queries import ReadModel
from projections.resources import resource
from workers.past.pool import Pool
from workers.past.process import launching
from workers.settings import Settings

EVENTS_FEW, EVENTS = 50_000, 1_000_000
HOSTS_FEW, HOSTS = 1_000, 10_000
HOSTS_OF_A_RACK = 40
PAGE = 5_000
LIMIT = 1_000
TIMES = 9
FIRST_S_MAX, AGAIN_S_MAX = 2.0, 0.1


def measure(servers: Servers, *, is_short: bool) -> list[Row]:
    events, hosts = (EVENTS_FEW, HOSTS_FEW) if is_short else (EVENTS, HOSTS)
    with psycopg.connect(servers.postgres.owner(), autocommit=True) as connection:
        starting.write_log(connection, events=events, hosts=hosts, racks=hosts // HOSTS_OF_A_RACK)
    reader = LogReader(servers.conninfo)
    checkpointer = Checkpointer(servers.conninfo)
    fleet, began = Fleet(), time.perf_counter()
    while rows := reader.follow(fleet.position, fleet.at, PAGE):
        for row in rows:
            fleet.fold(decode(row))
        checkpointer.note(fleet)
        checkpointer.settle()
    folding_s = time.perf_counter() - began
    # As far behind a checkpoint as can be: just before the last of them.
    last = max((head.position for head in checkpoints.kept(servers.conninfo)), default=2 * PAGE)
    moment = reader.command_end(last - PAGE)
    reader.close()
    return asyncio.run(_asked(servers, moment, fleet, folding_s=folding_s, hosts=hosts, events=events))


class _Asking:
    """The past, without NATS between."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list_(self, query: ListQuery, *, as_of: int) -> Portion:
        return msgspec.json.decode(
            await self._pool.answer(OfList(id=uuid.uuid4().hex, query=query, as_of=as_of)), type=Portion
        )

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion:
        raise AssertionError("capacity is not measured")


async def _asked(
    servers: Servers, moment: int, fleet: Fleet, *, folding_s: float, hosts: int, events: int
) -> list[Row]:
    model = ReadModel(servers.conninfo)
    settings = Settings(
        postgres=servers.postgres.service_without_password(),
        postgres_password_file=servers.postgres.service_password_file,
    )
    async with Pool(launching(settings)) as pool:
        past = _Asking(pool)
        await pool.answer(OfResource(id="up", stream="operation/none", as_of=moment))  # its process is up

        async def page(cursor: str | None = None) -> tuple[float, dict[str, Any]]:
            began = time.perf_counter()
            found = await list_as_of(model, past, "host", as_of=moment, limit=LIMIT, cursor=cursor)
            return time.perf_counter() - began, found

        first_s, found = await page()
        again_s = statistics.median([(await page())[0] for _ in range(TIMES)])
        whole_s, shown = again_s, len(found["items"])
        while (cursor := found["next_cursor"]) is not None:
            spent_s, found = await page(cursor)
            whole_s, shown = whole_s + spent_s, shown + len(found["items"])
    assert shown == hosts
    began = time.perf_counter()
    for name in sorted(fleet.capacity.hosts)[:LIMIT]:
        msgspec.json.encode(resource(fleet, f"host/{name}"))
    documents_s = time.perf_counter() - began
    what = f"of {hosts:,} hosts as of then, {events:,} events"
    return [
        _row(f"a page {what}, the first time", first_s, FIRST_S_MAX, folding_s),
        _row(f"a page {what}, again", again_s, AGAIN_S_MAX, documents_s),
        Row(f"all pages {what}, again", 1_000 * whole_s, "ms", "–", True),
    ]


def _row(name: str, figure_s: float, most_s: float, baseline_s: float) -> Row:
    is_reached, ratio = figure_s < most_s, figure_s / baseline_s
    return Row(name, 1_000 * figure_s, "ms", f"< {1_000 * most_s:g} ms", is_reached, 1_000 * baseline_s, ratio)
