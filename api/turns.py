"""Long looks through the log take turns: one of them at a time, for half a millisecond, and then all others.

A look that makes thousands of events into JSON on the event loop, without a pause, is what every other request waits
for. In a thread it would be no better: threads give Python's lock back after 5 ms at the earliest.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

TURN_S = 0.0005

T = TypeVar("T")
Made = TypeVar("Made")


class Turns:
    """Of one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def take(self, rest: Iterator[T], make: Callable[[T], Awaitable[Made]]) -> list[Made]:
        """What is made of the next ones, as many as a turn has time for, and one at least; empty when none are left.

        `make` may wait for the database, but for nobody else: all other looks wait with it.
        """
        async with self._turn:
            ends = time.perf_counter() + TURN_S
            made: list[Made] = []
            for one in rest:
                made.append(await make(one))
                if time.perf_counter() >= ends:
                    await asyncio.sleep(0)  # those that ask for little, before the next look
                    break
            return made
