"""What each process runs. Every one ends on SIGTERM or Ctrl-C within seconds; what it kept in memory is in the log.

Each imports what it needs alone: all of them start at once, on few cores, and `berth up` is ready when the last one is.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable

import uvloop

from eventlog.components import Health, reporting
from eventlog.tasks import end_tasks
from workers.connections import log_reader, to_nats
from workers.settings import Settings

THREADS_S_MAX = 1.0


def run(name: str, settings: Settings) -> None:
    """Run one process until it is told to stop."""
    if settings.metrics_port and name != "api":
        from prometheus_client import start_http_server

        start_http_server(settings.metrics_port, settings.host)
    uvloop.run(_until_told_to_stop(_process(name, settings)))


def _process(name: str, settings: Settings) -> Awaitable[None]:
    match name:
        case "api":
            from workers.serving import api

            return api(settings)
        case "engine":
            from workers.deciding import engine

            return engine(settings)
        case "projector":
            return project(settings)
        case "relay":
            return relay_events(settings)
        case "relay-rebuild":
            return relay_rebuild(settings)
        case "dispatcher":
            return dispatcher(settings)
        case "controller":
            return controller(settings)
        case "past":
            from workers.past.process import past_service

            return past_service(settings)
        case _:
            raise AssertionError(f"no process is named {name}")


async def project(settings: Settings) -> None:
    from projections import projector

    conninfo = settings.conninfo()
    async with reporting(conninfo, Health("projector")) as health:
        with log_reader(conninfo) as reader:
            await projector.run(conninfo, reader, health=health, checkpoint_events=settings.checkpoint_events)


async def relay_events(settings: Settings) -> None:
    from messaging import relay

    conninfo = settings.conninfo()
    async with reporting(conninfo, Health("relay")) as health, to_nats(settings, health) as client:
        with log_reader(conninfo) as reader:
            await relay.run(client, reader, conninfo, health=health)


async def relay_rebuild(settings: Settings) -> None:
    """By hand, after somebody has looked: the relay fills the new streams from the log."""
    from messaging import relay

    async with to_nats(settings) as client:
        await relay.rebuild(client)


async def dispatcher(settings: Settings) -> None:
    from messaging import dispatch

    conninfo = settings.conninfo()
    async with reporting(conninfo, Health("dispatcher")) as health, to_nats(settings, health) as client:
        with log_reader(conninfo) as reader:
            await dispatch.run(client, reader, conninfo, controllers=settings.controllers, health=health)


async def controller(settings: Settings) -> None:
    from workers.controllers.simulator import Simulator

    async with to_nats(settings) as client:
        simulators = [
            Simulator(
                client,
                name,
                delay_ms=settings.sim_delay_ms,
                fail_rate=settings.sim_fail_rate,
                journal=settings.sim_journal,
            )
            for name in settings.controllers
        ]
        await asyncio.gather(*(simulator.run() for simulator in simulators))


async def _until_told_to_stop(work: Awaitable[None]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    working, waiting = asyncio.ensure_future(work), asyncio.create_task(told.wait())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    _end_whatever_threads_do()
    await end_tasks(working, waiting)
    if not working.cancelled():
        working.result()


def _end_whatever_threads_do() -> None:
    """A thread can't be cancelled, and Python waits for each: a replay of the log, a checkpoint. None has anything to
    lose, as what it makes is made anew from the log."""
    timer = threading.Timer(THREADS_S_MAX, os._exit, (0,))
    timer.daemon = True
    timer.start()
