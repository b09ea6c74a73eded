"""One value that anybody may ask for and that costs something: computed once at a time and kept for a moment."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class BriefCache(Generic[T]):
    """`make` runs at most once in `for_s` seconds and never concurrently, however many ask. A failure is not cached."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], *, for_s: float) -> None:
        self._make = make
        self._for_s = for_s
        self._made: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        made = self._made
        if made is None or (made.done() and (self._is_old() or made.cancelled() or made.exception() is not None)):
            made = self._made = asyncio.create_task(self._timed())
        # Shielded: the others wait for the same value even if who asked first goes away.
        return await asyncio.shield(made)

    async def _timed(self) -> T:
        try:
            return await self._make()
        finally:
            self._until = asyncio.get_running_loop().time() + self._for_s

    def _is_old(self) -> bool:
        return asyncio.get_running_loop().time() >= self._until
