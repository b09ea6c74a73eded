"""Asking the process that folds the past: one request, one answer, over NATS.

A question carries its end, and is given up when whoever asked goes away: what nobody awaits any more is dropped, here
before it is sent, there before and while it is folded for.
"""

import asyncio
import time
import uuid
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
        self._folding = asyncio.Semaphore(UNDER_WAY_MAX)
        self._verifying = asyncio.Semaphore(1)
        self._waiting = 0

    async def resource(self, stream: str, *, as_of: int) -> dict[str, Any] | None:
        """The resource at the end of the command at position `as_of`, or None."""
        request = {"do": "resource", "stream": stream, "as_of": as_of}
        answer = await self._in_turn(self._folding, request, RESOURCE_PATIENCE_S)
        found: dict[str, Any] | None = answer["resource"]
        return found

    async def verify(self, *, full: bool = False) -> dict[str, Any]:
        """{`position`, `events`, `violations`, `differences`}; `full`: those of the checkpoints too."""
        return await self._in_turn(self._verifying, {"do": "verify", "full": full}, VERIFY_PATIENCE_S)

    async def _in_turn(self, turns: asyncio.Semaphore, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        if self._waiting >= WAITING_MAX:
            raise Unavailable()
        self._waiting += 1
        try:
            async with turns:
                return await self._ask(request, patience_s)
        finally:
            self._waiting -= 1

    async def _ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        id = uuid.uuid4().hex
        try:
            asked = msgspec.json.encode({**request, "id": id, "ends_at": time.time() + patience_s})
            message = await self._client.request(self._subject, asked, timeout=patience_s)
        except nats.errors.Error:
            raise Unavailable(None) from None
        except asyncio.CancelledError:
            await self._client.publish(subjects.of_questions_given_up(self._subject), id.encode())
            raise
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if answer.get("unavailable"):
            raise Unavailable(None)
        return answer


async def serve_past(client: Client, cell: str, handler: Handler, give_up: Callable[[str], None]) -> None:
    """Answer questions from now on, one at a time: they share one fold. `give_up` is told the id of one that nobody
    awaits any more."""

    async def note(message: Msg) -> None:
        give_up(message.data.decode())

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
    await client.subscribe(subjects.of_questions_given_up(subjects.of_past(cell)), cb=note)
    await settled(client)
