"""The relay, beside nats-py's `publish_async` of the same messages into the same stream."""

import time

import uvloop
from nats.aio.client import Client

from bench import row
from bench.servers import Servers
from eventlog.codec import decode
from eventlog.read import LogReader
from messaging import relay, subjects
from messaging.connect import connected
from messaging.event_json import message
from workers.settings import Settings

TARGET_RATIO = 1.5
BASELINE_EVENTS = 20_000  # enough for a rate


def measure(servers: Servers, *, is_short: bool) -> list[row.Row]:
    """Relays the log that is there."""
    return uvloop.run(_measure(servers, rounds=1 if is_short else 3))


async def _measure(servers: Servers, *, rounds: int) -> list[row.Row]:
    reader = LogReader(servers.conninfo)
    figures, baselines = [], []
    try:
        async with connected(**_settings(servers).nats_options()) as client:
            for _ in range(rounds):
                baselines.append(await _published_per_s(client, reader))
                await relay.rebuild(client)
                figures.append(await _relayed_per_s(client, reader))
                await relay.rebuild(client)
    finally:
        reader.close()
    figure, baseline = sorted(figures)[rounds // 2], sorted(baselines)[rounds // 2]
    ratio = figure / baseline
    target = f"≥ {TARGET_RATIO} × publish_async"
    return [row.Row("relay", figure, "events/s", target, ratio >= TARGET_RATIO, baseline, ratio)]


def relayed(servers: Servers) -> float:
    """The relay alone: events a second, from nothing to the log's end."""
    return uvloop.run(_relayed(servers))


async def _relayed(servers: Servers) -> float:
    reader = LogReader(servers.conninfo)
    try:
        async with connected(**_settings(servers).nats_options()) as client:
            return await _relayed_per_s(client, reader)
    finally:
        reader.close()


def _settings(servers: Servers) -> Settings:
    return Settings(nats=servers.nats.url, nats_credentials=servers.nats.credentials["relay"])


async def _relayed_per_s(client: Client, reader: LogReader) -> float:
    """All of it: reading the log, making the messages, publishing them."""
    relaying = relay.Relay(client, reader)
    await relaying.open()
    began = time.perf_counter()
    events = await relaying.catch_up()
    return events / (time.perf_counter() - began)


async def _published_per_s(client: Client, reader: LogReader) -> float:
    """Publishing alone: the messages are made before.

    Without `wait_stall`: with one, `asyncio.wait_for` makes a task of each message, which then is flushed by itself,
    and publishing takes 2.5 × as long. The window of 4,000 that are under way is nats-py's own; others are no faster.
    """
    stream = client.jetstream()
    await relay.make_streams(stream)
    rows = reader.page(0, BASELINE_EVENTS)
    log = decode(rows[0]).event.log
    messages = [(subjects.of_event(event), *message(event, log=log)) for event in rows]
    began = time.perf_counter()
    for subject, body, headers in messages:
        await stream.publish_async(subject, body, headers=headers)
    await stream.publish_async_completed()
    return len(messages) / (time.perf_counter() - began)
