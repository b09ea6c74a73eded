"""Asking the process that folds the past: one request, one answer, over NATS.

A question carries its end: what nobody awaits any more is dropped, here before it is sent, there before and while it is
folded for.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import psycopg
import structlog
from eventsourcing.persistence import PersistenceError
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.errors import Unavailable
from messaging import subjects
from messaging.connect import settled

RESOURCE_PATIENCE_S = 60.0
VERIFY_PATIENCE_S = 600.0
# The process answers one at a time. What waits here can still be dropped when whoever asked goes away.
UNDER_WAY_MAX = 2
WAITING_MAX = 64

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = structlog.get_logger()


class RemotePast:
    """Raises Unavailable when the process can't be reached or takes too long, and when too many ask."""

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_past(cell)
        self._under_way = asyncio.Semaphore(UNDER_WAY_MAX)
        self._waiting = 0

    async def resource(self, stream: str, *, as_of: int) -> dict[str, Any] | None:
        """The resource at the end of the command at position `as_of`, or None."""
        if self._waiting >= WAITING_MAX:
            raise Unavailable()
        self._waiting += 1
        try:
            async with self._under_way:
                answer = await self._ask({"do": "resource", "stream": stream, "as_of": as_of}, RESOURCE_PATIENCE_S)
        finally:
            self._waiting -= 1
        found: dict[str, Any] | None = answer["resource"]
        return found

    async def verify(self, *, full: bool = False) -> dict[str, Any]:
        """{`position`, `events`, `violations`, `differences`}; `full`: those of the checkpoints too."""
        return await self._ask({"do": "verify", "full": full}, VERIFY_PATIENCE_S)

    async def _ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        try:
            asked = msgspec.json.encode({**request, "ends_at": time.time() + patience_s})
            message = await self._client.request(self._subject, asked, timeout=patience_s)
        except nats.errors.Error:
            raise Unavailable(None) from None
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if answer.get("unavailable"):
            raise Unavailable(None)
        return answer


async def serve_past(client: Client, cell: str, handler: Handler) -> None:
    """Answer questions from now on, one at a time: they share one fold."""

    async def answer(message: Msg) -> None:
        try:
            told = await handler(msgspec.json.decode(message.data))
        except (Unavailable, psycopg.Error, PersistenceError) as error:
            log.warning("past not told", error=str(error).strip())
            told = {"unavailable": True}
        except Exception:
            # A bug of ours: whoever asked need not wait until its patience is over.
            log.exception("past not told")
            told = {"unavailable": True}
        await message.respond(msgspec.json.encode(told))

    await client.subscribe(subjects.of_past(cell), queue="past", cb=answer)
    await settled(client)
