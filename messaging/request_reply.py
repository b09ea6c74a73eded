"""Answering requests that come over NATS, many at once but not without bound."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from messaging.connect import settled

CONCURRENT_MAX = 20_000  # more wait in NATS' own buffers

log = structlog.get_logger()


async def serve(client: Client, subject: str, answer: Callable[[Msg], Awaitable[bytes | None]]) -> None:
    """Answer requests to `subject` from now on; None leaves one to whoever else is subscribed to it."""
    slots = asyncio.Semaphore(CONCURRENT_MAX)
    tasks: set[asyncio.Task[None]] = set()

    async def one(message: Msg) -> None:
        try:
            if (reply := await answer(message)) is not None:
                await message.respond(reply)
        except nats.errors.Error as error:
            log.warning("reply not sent", subject=message.subject, error=str(error))
        finally:
            slots.release()

    async def receive(message: Msg) -> None:
        await slots.acquire()
        task = asyncio.create_task(one(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.subscribe(subject, cb=receive)
    await settled(client)
