"""The API's process."""

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial

from api.app import create_app
from api.connection import configuration, listening
from api.server import Server
from api.source import networks
from commands.writer.engine import Engine
from eventlog.read import log_changes
from eventlog.tasks import end_tasks
from messaging import gateway, past, reports, subjects, unix
from messaging.wire import EngineGateway
from projections.queries import ReadModel
from workers.connections import log_reader, to_nats
from workers.deciding import an_engine
from workers.readiness import Readiness
from workers.settings import Settings

CONNECT_S = 2
BACKLOG = 2048


async def api(settings: Settings) -> None:
    """HTTP; with `BERTH_ENGINE=local`, the engine too, on the same event loop."""
    conninfo = settings.conninfo()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(to_nats(settings))
        reader = stack.enter_context(log_reader(conninfo))
        model = await stack.enter_async_context(ReadModel(conninfo))
        here: Engine | None = None
        beside: unix.UnixGateway | None = None
        way: EngineGateway
        if settings.engine == "local":
            way = here = await stack.enter_async_context(an_engine(settings))
            await reports.serve_reports(client, here)
        elif settings.engine_sockets:
            way = beside = await stack.enter_async_context(unix.UnixGateway(settings.engine_sockets).connected())
        else:
            way = gateway.NatsGateway(client, settings.cell)

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
            component_statuses=readiness.component_statuses,
            relay_lag=relay_lag,
            room_for=way.room_for,
            rate_limit_per_s=settings.rate_limit,
            trusted_proxies=networks(settings.trusted_proxies),
            engine_metrics=beside.metrics if beside is not None else None,
        )
        server = Server(
            configuration(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                backlog=BACKLOG,
                server_header=False,
            ),
            stopping=app.state.end_streams,
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Until now a signal cancelled all that runs here; from now on requests under way get their answers first.
            loop.add_signal_handler(number, server.stop)
        serving = asyncio.create_task(server.serve(sockets=listening(server.config)))
        if here is not None:
            # Without its engine the process is of no use; the supervisor starts it again.
            failing = asyncio.create_task(here.ended())
            await asyncio.wait((serving, failing), return_when=asyncio.FIRST_COMPLETED)
            server.stop()
            await serving
            if failing.done():
                failing.result()
            await end_tasks(failing)
        await serving
