"""Commands for which there is no room, answered by the connection itself: no task, no routing, no line in the log each.

What is refused must cost next to nothing, or those who are refused take the time of those who were admitted: through
`Path` a refusal was measured to cost a quarter of a command, here a tenth.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from api import problems
from api.auth import Tokens
from api.metrics import HTTP_REQUESTS
from commands.writer.gateway import Actor
from commands.writer.ids import uuid7
from domain.errors import Unavailable

WRITES = frozenset({b"POST", b"PUT", b"PATCH", b"DELETE"})
ANYBODY = (Actor("", "operator"), Actor("", "controller"))  # one for each line of the queue
TOLD_EVERY_S = 1.0

log = structlog.get_logger()


class Door:
    """Tells a connection what to answer before anything is done for a request.

    `room_for` is how many commands of an actor there is room for; `not_commands` are paths of writes that are none.
    """

    def __init__(self, tokens: Tokens, room_for: Callable[[Actor], int], *, not_commands: frozenset[bytes]) -> None:
        self._tokens = tokens
        self._room_for = room_for
        self._not_commands = not_commands
        # In this round of the event loop: commands are handed in when all that came was read.
        self._is_in_round = False
        self._let_in = 0
        self._room = 0  # for whoever asks
        self._refused: Counter[bytes] = Counter()
        self._answer = b""  # of this second: nothing comes of any of these commands, so one id serves them all
        self._unreadable = 0

    def refusal(self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """The rest of a 503 (`Reply.rest`); None: let it in, which leads to every other answer."""
        if method not in WRITES or url.partition(b"?")[0] in self._not_commands:
            return None
        if not self._is_in_round:
            self._is_in_round = True
            self._room = min(self._room_for(one) for one in ANYBODY)
            asyncio.get_running_loop().call_soon(self._round_ended)
        if self._let_in >= self._room:  # then it matters who asks, which costs 2 of 45 µs to find out
            known = self._tokens.cached(next((value for name, value in headers if name == b"authorization"), None))
            if known is None:
                return None
            if self._let_in >= self._room_for(Actor(known.name, known.role)):
                return self._refuse(method)
        self._let_in += 1
        return None

    def _refuse(self, method: bytes) -> bytes:
        self._refused[method] += 1
        if not self._answer:
            self._answer = problems.refusal(Unavailable(id := uuid7())).rest()
            asyncio.get_running_loop().call_later(TOLD_EVERY_S, self._tell, id)
        return self._answer

    def note_unreadable(self, why: str) -> None:
        """A connection was ended since nothing that it sent could be read any more. Strangers can do that as often as
        they like: so it is told once a second."""
        if self._unreadable == 0:
            asyncio.get_running_loop().call_later(TOLD_EVERY_S, self._tell_unreadable, why)
        self._unreadable += 1
        HTTP_REQUESTS["other", "*", 400] += 1

    def _tell_unreadable(self, first: str) -> None:
        log.info("request not readable", method=None, route="*", status=400, times=self._unreadable, why=first)
        self._unreadable = 0

    def _round_ended(self) -> None:
        self._is_in_round, self._let_in = False, 0

    def _tell(self, id: str) -> None:
        """Once a second, as counting and telling each by itself would cost more than answering it does."""
        log.warning("commands refused, the queue is full", command=id, refused=self._refused.total())
        for method, refused in self._refused.items():
            HTTP_REQUESTS[method.decode(), "*", 503] += refused
        self._refused.clear()
        self._answer = b""
