"""The process `past`: questions come over NATS, and its pool answers them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from eventlog.components import Health, reporting
from messaging import past
from workers import child
from workers.connections import to_nats
from workers.past.pool import Launch, Pool
from workers.settings import Settings, variable_of

ROOT = Path(__file__).resolve().parent.parent.parent
LOOK_S, LOOK_AGAIN_S = 1.0, 0.1
NOBODY = "No process that folds the past is running."


def launching(settings: Settings) -> Launch:
    """How a pool begins its workers: each with a log file of its own, where this process has one."""

    def launch(name: str, pool: socket.socket) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **settings.environment()}
        with ExitStack() as stack:
            stderr: IO[bytes] = sys.stderr.buffer
            if settings.log_file is not None:
                file = settings.log_file.with_stem(f"{settings.log_file.stem}-{name}")
                environment[variable_of("log_file")] = str(file)
                stderr = stack.enter_context(open(file, "ab"))
            return child.spawn(
                [sys.executable, "-m", "workers", "past-worker"],
                log=stderr,
                stdin=pool.fileno(),
                signal_at_our_death=signal.SIGKILL,  # it has nothing to lose
                environment=environment,
                directory=ROOT,
            )

    return launch


async def past_service(settings: Settings) -> None:
    async with (
        reporting(settings.conninfo(), Health("past")) as health,
        to_nats(settings, health) as client,
        Pool(launching(settings)) as pool,
    ):
        await past.serve_past(client, settings.cell, pool.answer, pool.give_up)
        while True:
            if not pool.is_ready:
                health.troubled(NOBODY)
            elif client.is_connected:
                health.ok()
            await asyncio.sleep(LOOK_S if pool.is_ready else LOOK_AGAIN_S)
