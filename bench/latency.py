"""From the commit of an event until the read model shows it, and until NATS has it, while commands come steadily.

Each provisioning is three commands: the client's, and the controller's two reports. One observer hears of all three
moments by the same clock: PostgreSQL's notification of the commit, the projector's of its own, and the message itself.
What it hears of a commit late, by a millisecond or so, makes the latencies shorter by that. The baseline is how long
the answers to the client's requests took meanwhile, from when each was due.

One VM is read all the while, beside the same reads when nothing is written: decisions and appends must not block reads.
"""

import asyncio
import contextlib
import itertools
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator

import psycopg
import uvloop
from psycopg.sql import SQL, Identifier

from bench import load
from bench.berth import Berth
from bench.load import at
from bench.over_http import get
from bench.row import Row
from eventlog.table import EVENTS_TABLE, LOG_CHANNEL
from messaging import subjects
from messaging.connect import connected
from projections.tables import CHANNEL
from workers.settings import Settings

COMMANDS_A_PROVISIONING = 3
COMMANDS_PER_S = 600.0
READS_PER_S = 100.0
SETTLE_S = 2.0
TARGET_READ_MS, TARGET_NATS_MS = 50.0, 20.0

Moments = list[tuple[int, float]]  # (position that was reached, when)


def measure(platform: Berth, requests: Iterator[bytes], *, is_short: bool) -> list[Row]:
    seconds, per_s = (2.0, 60.0) if is_short else (20.0, COMMANDS_PER_S)
    return uvloop.run(_measure(platform, requests, per_s=per_s, seconds=seconds))


async def _measure(platform: Berth, requests: Iterator[bytes], *, per_s: float, seconds: float) -> list[Row]:
    rate = per_s / COMMANDS_A_PROVISIONING
    one_vm = itertools.repeat(get("/v1/vms/payments/vm-0", platform.token))
    alone = await load.steady(platform.port, one_vm, per_s=READS_PER_S, seconds=seconds / 2)
    async with _observed(platform) as (committed, shown, relayed):
        answered, read = await asyncio.gather(
            load.steady(platform.port, requests, per_s=rate, seconds=seconds),
            load.steady(platform.port, one_vm, per_s=READS_PER_S, seconds=seconds),
        )
        await asyncio.sleep(SETTLE_S)
    for sent in (alone, answered, read):
        assert not sent.refused, f"{sent.refused} of {sent.asked} were refused"
    name = f"GET one VM, p99, at {per_s:,.0f} commands/s"
    rows = [Row(name, read.p99_ms, "ms", "none", True, alone.p99_ms, read.p99_ms / alone.p99_ms)]
    for what, moments, target_ms in (("read model", shown, TARGET_READ_MS), ("NATS", relayed, TARGET_NATS_MS)):
        late_ms = sorted(_late_ms(committed, moments))
        p99_ms = at(late_ms, 0.99)
        p50_ms, answer_p50_ms, answer_p99_ms = at(late_ms, 0.5), answered.p50_ms, answered.p99_ms
        name, target = f"commit → {what}, p99, at {per_s:,.0f} commands/s", f"< {target_ms:g} ms"
        rows.append(Row(name, p99_ms, "ms", target, p99_ms < target_ms, answer_p99_ms, p99_ms / answer_p99_ms))
        rows.append(Row(f"commit → {what}, p50", p50_ms, "ms", "none", True, answer_p50_ms, p50_ms / answer_p50_ms))
    return rows


def _late_ms(committed: Moments, moments: Moments) -> Iterator[float]:
    """For each commit, how long after it its last event was there."""
    positions = [position for position, _ in moments]
    for position, when in committed:
        index = bisect_left(positions, position)
        assert index < len(moments), f"nothing was heard of position {position}"
        yield max(0.0, moments[index][1] - when) * 1e3


@contextlib.asynccontextmanager
async def _observed(platform: Berth) -> AsyncIterator[tuple[Moments, Moments, Moments]]:
    committed: Moments = []
    shown: Moments = []
    relayed: Moments = []
    settings = Settings(nats=platform.nats, nats_credentials=platform.data / "nats" / "reader.json")
    async with (
        await psycopg.AsyncConnection.connect(platform.postgres, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(platform.postgres, autocommit=True) as asking,
        connected(**settings.nats_options()) as client,
    ):
        end = SQL("SELECT max(notification_id) FROM {}").format(EVENTS_TABLE)

        async def last() -> int:
            found = await (await asking.execute(end)).fetchone()
            assert found is not None
            return int(found[0])

        async def listen() -> None:
            async for told in listening.notifies():
                when = time.perf_counter()
                if told.channel == LOG_CHANNEL:
                    # Another commit may stand by now: its events then count as committed earlier than they were.
                    if (position := await last()) > (committed[-1][0] if committed else begun_at):
                        committed.append((position, when))
                else:
                    shown.append((int(told.payload.split()[1]), when))

        begun_at = await last()
        for channel in (LOG_CHANNEL, CHANNEL):
            await listening.execute(SQL("LISTEN {}").format(Identifier(channel)))
        # The command's own event is its last: with it the command is there.
        messages = await client.jetstream().subscribe(
            subjects.COMMAND_EVENTS, stream=subjects.EVENTS, ordered_consumer=True, deliver_policy="new"
        )

        async def receive() -> None:
            async for message in messages.messages:
                relayed.append((message.metadata.sequence.stream, time.perf_counter()))

        tasks = [asyncio.create_task(listen()), asyncio.create_task(receive())]
        yield committed, shown, relayed
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
