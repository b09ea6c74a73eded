"""Reads that show a token its own writes: where the last one stands that was answered through this process.

A write is answered when it is committed, some milliseconds before the read model shows it. So for a while the reads of
the token that wrote wait until it does; nobody else's do, and nobody's once it is shown.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable

from commands.writer.gateway import Answer
from domain.errors import Unavailable
from projections.queries import ReadModel

REMEMBERED_S = 10.0
WAIT_S_MAX = 1.0
TOKENS_MAX = 10_000
NOTHING = (0, 0.0)


class OwnWrites:
    """By token, the position of its newest write and until when it is remembered."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def note(self, token: str, answers: Iterable[Answer], *, shown: int) -> None:
        """Remember what was done, unless it is `shown` already. A refusal has done nothing; an operation that failed
        was begun."""
        done = [
            answer.position
            for answer in answers
            if answer.problem is None or answer.problem["code"] == "operation_failed"
        ]
        newest, _ = self._newest.get(token, NOTHING)
        if not done or (position := max(done)) <= shown or position <= newest:
            return
        self._newest[token] = position, time.monotonic() + REMEMBERED_S
        self._newest.move_to_end(token)
        if len(self._newest) > TOKENS_MAX:
            self._newest.popitem(last=False)

    def forget_all(self) -> None:
        """The log is another one: these positions mean nothing in it."""
        self._newest.clear()

    async def wait_until_shown(self, token: str, read_model: ReadModel) -> None:
        """At most WAIT_S_MAX; what is not shown by then is read as it is."""
        if token not in self._newest:
            return
        position, until = self._newest[token]
        if read_model.position < position and time.monotonic() < until:
            try:
                await read_model.wait_for(position, timeout_s=WAIT_S_MAX)
            except Unavailable:
                return
        # Another write may have been answered meanwhile.
        if self._newest.get(token, NOTHING)[0] == position:
            del self._newest[token]
