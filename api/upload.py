"""How a request's body comes in: in time, bounded in bytes, and without taking others' turns.

≤ 64 KiB ─► read ───────────────────────────────────────────────────► ≤ 16 KiB: understood on the event loop
> 64 KiB ─► may the role give such a command? ─► a large body's place ─► read ─► else in a thread, then a rest

The thread shares Python's lock with the event loop. It gives it back often, and is a token's for a quarter of the time
at most: so nobody's large bodies, however many, make others wait for more than that.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from api.awaited import ClientGone
from api.budget import LARGE_BODIES, UNDERSTOOD
from api.connection import BODY_HAS_COME
from api.endpoint import Call
from api.problems import TooSlow
from commands.catalogue import permits
from domain.errors import Forbidden, TooLarge

COMMAND_BYTES_MAX = 1024 * 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
LARGE_BYTES = 64 * 1024
ON_LOOP_BYTES_MAX = 16 * 1024
# From when it is read; what came in the meantime gives it more.
BODY_S_MAX = 30.0
BODY_BYTES_PER_S_MIN = 64 * 1024
# How often the thread lets others have Python's lock: 5 ms is the default, and a request takes it several times.
SWITCHED_EVERY_S = 0.0005
RESTS = 3  # times as long as it took

# One thread: two large bodies at once would take the event loop's turns twice.
_apart = ThreadPoolExecutor(1, thread_name_prefix="large-body")

T = TypeVar("T")


async def read(call: Call, *, limit: int, permission: str = "", kinds: Collection[str] = ()) -> bytes:
    """The whole body of a command of one of these kinds. What is too large is refused before it is held.

    One that is large takes a place, which `understood` gives back.

    Raises:
        TooLarge: more than `limit` bytes were announced, or came.
        Forbidden: it is large, and the actor's role may give none of these commands. That is not recorded.
        TooMuchAtOnce: it is large, and too many large ones are under way.
        TooSlow: it did not come in time.
        ClientGone: it will never be whole.
    """
    announced = call.headers.get(b"content-length", b"0")
    size = int(announced) if announced.isdigit() else 0
    if size > limit:
        raise TooLarge(limit)
    is_large = size > LARGE_BYTES
    if is_large:
        await _let_in(call, permission, kinds)
    if BODY_HAS_COME in call.scope:
        return _body_of(await call.receive(), limit)
    loop = asyncio.get_running_loop()
    began = loop.time()
    chunks: list[bytes] = []
    size, is_whole = 0, False
    while not is_whole:
        try:
            async with asyncio.timeout_at(began + BODY_S_MAX + size / BODY_BYTES_PER_S_MIN):
                message = await call.receive()
        except TimeoutError:
            raise TooSlow(BODY_BYTES_PER_S_MIN) from None
        chunks.append(_body_of(message, limit - size))
        size += len(chunks[-1])
        is_whole = not message.get("more_body", False)
        if not is_large and size > LARGE_BYTES:  # nobody said how long it would be
            is_large, came = True, loop.time()
            await _let_in(call, permission, kinds)
            began += loop.time() - came
    return b"".join(chunks)


def _body_of(message: Any, most: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if len(body) > most:
        raise TooLarge(most)
    return body


async def _let_in(call: Call, permission: str, kinds: Collection[str]) -> None:
    if not any(permits(call.actor.role, kind) for kind in kinds):
        raise Forbidden(permission)
    await call.take_place_of(LARGE_BODIES)


async def understood(call: Call, body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of the body: in the thread, if it is not small.

    Raises:
        TooMuchAtOnce: too many of the token's wait for that.
    """
    if len(body) <= ON_LOOP_BYTES_MAX:
        return read(body)
    slots, token = call.context.slots[UNDERSTOOD], call.actor.name
    await slots.take(token)
    loop = asyncio.get_running_loop()
    took_s = 0.0

    def gently() -> T:
        nonlocal took_s
        usually_s, began = sys.getswitchinterval(), time.thread_time()
        sys.setswitchinterval(SWITCHED_EVERY_S)
        try:
            return read(body)
        finally:
            sys.setswitchinterval(usually_s)
            took_s = time.thread_time() - began

    try:
        return await loop.run_in_executor(_apart, gently)
    finally:
        call.give_place_back()
        loop.call_later(RESTS * took_s, slots.give_back, token)
