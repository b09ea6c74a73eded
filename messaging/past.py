"""Asking the process that folds the past: one request, one answer, over NATS.

A question carries its end, and is given up when whoever asked goes away: what nobody awaits any more is dropped, here
before it is sent, there before and while it is folded for.
"""

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.errors import Unavailable
from messaging import subjects
from messaging.connect import settled
from projections.listing import CapacityQuery, ListQuery, Portion, ScopeThen

FOLD_PATIENCE_S = 60.0
VERIFY_PATIENCE_S = 600.0
# What waits here can still be dropped when whoever asked goes away. So many at once keep all that fold busy.
UNDER_WAY_MAX = 8
WAITING_MAX = 64
ANSWERING_MAX = 256  # of one process of the past, for all who ask it


class _Question(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", omit_defaults=True):
    """`ends_at` (seconds since 1970) is when nobody awaits the answer any more."""

    id: str = ""
    ends_at: float = math.inf


class OfResource(_Question, frozen=True, kw_only=True, omit_defaults=True, tag="resource"):
    """The resource at the end of the command at position `as_of`."""

    stream: str
    as_of: int


class OfList(_Question, frozen=True, kw_only=True, omit_defaults=True, tag="list"):
    """Rows of a list at the end of the command at position `as_of`."""

    query: ListQuery
    as_of: int


class OfCapacity(_Question, frozen=True, kw_only=True, omit_defaults=True, tag="capacity"):
    """Rows of capacity at the end of the command at position `as_of`."""

    query: CapacityQuery
    as_of: int


class OfClasses(_Question, frozen=True, kw_only=True, omit_defaults=True, tag="classes"):
    """Every resource class, and count, that a list at `as_of` may show."""

    scope: ScopeThen | None
    as_of: int


class OfVerification(_Question, frozen=True, kw_only=True, omit_defaults=True, tag="verify"):
    """Whether all is as it must be; `full`: the checkpoints too."""

    full: bool = False


OfPosition = OfResource | OfList | OfCapacity | OfClasses
Question = OfPosition | OfVerification

Handler = Callable[[Question], Awaitable[Any]]

log = structlog.get_logger()

_UNAVAILABLE = b'{"unavailable":true}'

_question = msgspec.json.Decoder(Question).decode
_document = msgspec.json.Decoder(dict[str, Any]).decode
_portion = msgspec.json.Decoder(Portion).decode
_names = msgspec.json.Decoder(list[str]).decode


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
        found: dict[str, Any] | None = _document(await self._fold_for(OfResource(stream=stream, as_of=as_of)))[
            "resource"
        ]
        return found

    async def list_(self, query: ListQuery, *, as_of: int) -> Portion:
        return _portion(await self._fold_for(OfList(query=query, as_of=as_of)))

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion:
        return _portion(await self._fold_for(OfCapacity(query=query, as_of=as_of)))

    async def classes(self, scope: ScopeThen | None, *, as_of: int) -> list[str]:
        return _names(await self._fold_for(OfClasses(scope=scope, as_of=as_of)))

    async def verify(self, *, full: bool = False) -> dict[str, Any]:
        """{`position`, `events`, `violations`, `differences`}; `full`: those of the checkpoints too."""
        return _document(await self._in_turn(self._verifying, OfVerification(full=full), VERIFY_PATIENCE_S))

    async def _fold_for(self, question: OfPosition) -> bytes:
        return await self._in_turn(self._folding, question, FOLD_PATIENCE_S)

    async def _in_turn(self, turns: asyncio.Semaphore, question: Question, patience_s: float) -> bytes:
        if self._waiting >= WAITING_MAX:
            raise Unavailable()
        self._waiting += 1
        try:
            async with turns:
                return await self._ask(question, patience_s)
        finally:
            self._waiting -= 1

    async def _ask(self, question: Question, patience_s: float) -> bytes:
        id = uuid.uuid4().hex
        try:
            asked = msgspec.json.encode(msgspec.structs.replace(question, id=id, ends_at=time.time() + patience_s))
            message = await self._client.request(self._subject, asked, timeout=patience_s)
        except nats.errors.Error:
            raise Unavailable(None) from None
        except asyncio.CancelledError:
            await self._client.publish(subjects.of_questions_given_up(self._subject), id.encode())
            raise
        if message.data == _UNAVAILABLE:
            raise Unavailable(None)
        return message.data


async def serve_past(client: Client, cell: str, handler: Handler, give_up: Callable[[str], None]) -> None:
    """Answer questions from now on, as many at once as `handler` takes. `give_up` is told the id of one that nobody
    awaits any more."""
    answering: set[asyncio.Task[None]] = set()

    async def note(message: Msg) -> None:
        give_up(message.data.decode())

    async def begin(message: Msg) -> None:
        if len(answering) >= ANSWERING_MAX:
            await message.respond(_UNAVAILABLE)
            return
        task = asyncio.create_task(answer(message))
        answering.add(task)
        task.add_done_callback(answering.discard)

    async def answer(message: Msg) -> None:
        try:
            told = msgspec.json.encode(await handler(_question(message.data)))
        except Unavailable:
            told = _UNAVAILABLE
        except Exception:
            # A bug of ours: whoever asked need not wait until its patience is over.
            log.exception("question about the past not answered")
            told = _UNAVAILABLE
        await message.respond(told)

    await client.subscribe(subjects.of_past(cell), queue="past", cb=begin)
    await client.subscribe(subjects.of_questions_given_up(subjects.of_past(cell)), cb=note)
    await settled(client)
