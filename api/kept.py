"""What many may ask for, even strangers, and costs something: made for one at a time, and kept for a moment."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """However many ask, `make` runs once in `for_s` seconds at most, and never twice at once. A failure is not kept."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], *, for_s: float) -> None:
        self._make = make
        self._for_s = for_s
        self._made: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        made = self._made
        if made is None or (made.done() and (self._is_old() or made.cancelled() or made.exception() is not None)):
            made = self._made = asyncio.create_task(self._timed())
        # Whoever asked first may go: the others wait for the same.
        return await asyncio.shield(made)

    async def _timed(self) -> T:
        try:
            return await self._make()
        finally:
            self._until = asyncio.get_running_loop().time() + self._for_s

    def _is_old(self) -> bool:
        return asyncio.get_running_loop().time() >= self._until
