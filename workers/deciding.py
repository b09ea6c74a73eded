"""The engine's process; and the engine, for whoever has it in its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from commands.tokens import hash_of
from commands.writer.engine import Engine
from eventlog.tasks import end_tasks
from messaging import commands, reports, unix
from projections.resources import resource
from workers.connections import to_nats
from workers.progress import ProgressTable
from workers.settings import Settings

LOOK_AT_SECRET_S = 1.0

log = structlog.get_logger()


async def engine(settings: Settings) -> None:
    """The engine alone: on its socket at once, over NATS as soon as that is there."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(an_engine(settings))
        for path in settings.engine_sockets[:1]:
            await stack.enter_async_context(unix.served(path, writer))
        serving = asyncio.create_task(_serve_overto_nats(settings, writer))
        stack.push_async_callback(end_tasks, serving)
        failing = asyncio.create_task(writer.ended())
        stack.push_async_callback(end_tasks, failing)
        await asyncio.wait((serving, failing), return_when=asyncio.FIRST_COMPLETED)
        for ended in (serving, failing):
            if ended.done():
                ended.result()


async def _serve_overto_nats(settings: Settings, writer: Engine) -> None:
    async with to_nats(settings) as client:
        await commands.serve_commands(client, settings.cell, writer)
        await reports.serve_reports(client, writer)
        await asyncio.Event().wait()


@asynccontextmanager
async def an_engine(settings: Settings) -> AsyncIterator[Engine]:
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
