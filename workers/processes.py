"""What each process runs. Every one ends on SIGTERM or Ctrl-C within seconds; what it kept in memory is in the log."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import uvicorn
import uvloop
from nats.aio.client import Client
from prometheus_client import start_http_server

from api.app import create_app
from api.connection import configuration, listening
from api.source import networks
from commands.tokens import hash_of
from commands.writer.engine import Engine
from eventlog.components import Health, telling
from eventlog.read import LogReader, log_changes
from eventlog.tasks import end_tasks
from messaging import dispatch, gateway, past, relay, subjects, unix
from messaging.connect import connected
from messaging.wire import Served
from projections import projector
from projections.queries import ReadModel
from projections.rows import resource
from workers.controllers.simulator import Simulator
from workers.past import PastService
from workers.progress import ProgressTable
from workers.readiness import Readiness
from workers.settings import Settings

CONNECT_S = 2
GRACEFUL_STOP_S = 2
BACKLOG = 2048
LOOK_S = 1.0
LOOK_AT_SECRET_S = 1.0

log = structlog.get_logger()


def run(name: str, settings: Settings) -> None:
    """Run one process until it is told to stop."""
    processes: dict[str, Callable[[Settings], Awaitable[None]]] = {
        "api": api,
        "engine": engine,
        "projector": project,
        "relay": relay_events,
        "relay-rebuild": relay_rebuild,
        "dispatcher": dispatcher,
        "controller": controller,
        "past": past_service,
    }
    if settings.metrics_port and name != "api":
        start_http_server(settings.metrics_port, settings.host)
    uvloop.run(_until_told_to_stop(processes[name](settings)))


async def api(settings: Settings) -> None:
    """HTTP; with `BERTH_ENGINE=local`, the engine too, on the same event loop."""
    conninfo = settings.conninfo()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_nats(settings))
        reader = stack.enter_context(_reader(conninfo))
        model = await stack.enter_async_context(ReadModel(conninfo))
        here: Engine | None = None
        beside: unix.UnixGateway | None = None
        way: Served
        if settings.engine == "local":
            way = here = await stack.enter_async_context(_engine(settings))
            await gateway.serve_reports(client, here)
        elif settings.engine_sockets:
            way = beside = await stack.enter_async_context(unix.UnixGateway(settings.engine_sockets).connected())
        else:
            way = gateway.RemoteGateway(client, settings.cell)

        readiness = Readiness(
            conninfo,
            reader=reader,
            model=model,
            leads=lambda: way.is_leading,
            is_connected=lambda: client.is_connected,
        )

        async def relay_lag() -> int:
            stream = await client.jetstream(timeout=CONNECT_S).stream_info(subjects.EVENTS)
            return await asyncio.to_thread(reader.end) - stream.state.last_seq

        app = create_app(
            gateway=way,
            read_model=model,
            log_reader=reader,
            log_changes=partial(log_changes, conninfo),
            past=past.RemotePast(client, settings.cell),
            standings=readiness.standings,
            relay_lag=relay_lag,
            room_for=way.room_for,
            rate_limit_per_s=settings.rate_limit,
            trusted_proxies=networks(settings.trusted_proxies),
            engine_metrics=beside.metrics if beside is not None else None,
        )
        server = uvicorn.Server(
            configuration(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                backlog=BACKLOG,
                timeout_graceful_shutdown=GRACEFUL_STOP_S,
                server_header=False,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=listening(server.config)))
        if here is not None:
            # Without its engine the process is of no use; the supervisor starts it again.
            failing = asyncio.create_task(here.ended())
            await asyncio.wait((serving, failing), return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await serving
            if failing.done():
                failing.result()
            await end_tasks(failing)
        await serving


async def engine(settings: Settings) -> None:
    """The engine alone: on its socket at once, over NATS as soon as that is there."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(_engine(settings))
        for path in settings.engine_sockets[:1]:
            await stack.enter_async_context(unix.served(path, writer))
        serving = asyncio.create_task(_serve_over_nats(settings, writer))
        stack.push_async_callback(end_tasks, serving)
        failing = asyncio.create_task(writer.ended())
        stack.push_async_callback(end_tasks, failing)
        await asyncio.wait((serving, failing), return_when=asyncio.FIRST_COMPLETED)
        for ended in (serving, failing):
            if ended.done():
                ended.result()


async def _serve_over_nats(settings: Settings, writer: Engine) -> None:
    async with _nats(settings) as client:
        await gateway.serve_commands(client, settings.cell, writer)
        await gateway.serve_reports(client, writer)
        await asyncio.Event().wait()


async def project(settings: Settings) -> None:
    conninfo = settings.conninfo()
    async with telling(conninfo, Health("projector")) as health:
        with _reader(conninfo) as reader:
            await projector.run(conninfo, reader, health=health, checkpoint_events=settings.checkpoint_events)


async def relay_events(settings: Settings) -> None:
    conninfo = settings.conninfo()
    async with telling(conninfo, Health("relay")) as health, _nats(settings, health) as client:
        with _reader(conninfo) as reader:
            await relay.run(client, reader, conninfo, health=health)


async def relay_rebuild(settings: Settings) -> None:
    """By hand, after somebody has looked: the relay fills the new streams from the log."""
    async with _nats(settings) as client:
        await relay.rebuild(client)


async def dispatcher(settings: Settings) -> None:
    conninfo = settings.conninfo()
    async with telling(conninfo, Health("dispatcher")) as health, _nats(settings, health) as client:
        with _reader(conninfo) as reader:
            await dispatch.run(client, reader, conninfo, controllers=settings.controllers, health=health)


async def controller(settings: Settings) -> None:
    async with _nats(settings) as client:
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


async def past_service(settings: Settings) -> None:
    conninfo = settings.conninfo()
    async with telling(conninfo, Health("past")) as health, _nats(settings, health) as client:
        with _reader(conninfo) as reader:
            await past.serve_past(client, settings.cell, PastService(conninfo, reader).answer)
            while True:
                if client.is_connected:
                    health.ok()
                await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine, on its way to leading."""
    file = settings.admin_token_file
    secret = _secret_in(file) if file is not None else None
    async with ProgressTable(settings.conninfo()) as progress:
        writer = Engine(
            settings.conninfo(),
            resource=resource,
            progress=progress,
            controllers=settings.controllers,
            admin_token_hash=hash_of(secret) if secret is not None else None,
            step_timeout_s=settings.step_timeout_s,
        )
        await writer.start()
        watching = asyncio.create_task(_watch(file, secret, writer)) if file is not None else None
        try:
            yield writer
        finally:
            if watching is not None:
                await end_tasks(watching)
            await writer.stop()


async def _watch(file: Path, secret: str | None, writer: Engine) -> None:
    """Whoever owns the installation can put another secret into the file, and gets in with it."""
    while True:
        await asyncio.sleep(LOOK_AT_SECRET_S)
        found = await asyncio.to_thread(_secret_in, file)
        if found is not None and found != secret and writer.is_leading:
            await writer.install_admin_token(hash_of(found))
            log.info("admin token installed", file=str(file))
            secret = found


def _secret_in(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except OSError as unreadable:
        log.debug("no admin token in the file", file=str(file), reason=unreadable.strerror)
        return None


def _nats(settings: Settings, health: Health | None = None) -> AbstractAsyncContextManager[Client]:
    return connected(health, **settings.nats_options())


@contextlib.contextmanager
def _reader(conninfo: str) -> Iterator[LogReader]:
    reader = LogReader(conninfo)
    try:
        yield reader
    finally:
        reader.close()


async def _until_told_to_stop(work: Awaitable[None]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    working, waiting = asyncio.ensure_future(work), asyncio.create_task(told.wait())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    await end_tasks(working, waiting)
    if not working.cancelled():
        working.result()
