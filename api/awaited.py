"""Work that is done only for as long as somebody waits for its answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from eventlog.tasks import end_tasks

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody is left to be answered."""


async def while_awaited(receive: Any, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when the client goes away. The request's body is not read any more.

    Raises:
        ClientGone: the client went first.
    """
    working = asyncio.ensure_future(work)
    going = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        await end_tasks(working, going)


async def disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
