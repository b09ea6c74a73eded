"""Refuses commands for which the engine's queue has no room, in the connection itself: no task, route or log line.

A refusal must cost next to nothing, or refused clients take the time of admitted ones. Through `Path` it costs a
quarter of a command, here a tenth.
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
ANYBODY = (Actor("", "operator"), Actor("", "controller"))  # one for each part of the queue
LOG_EVERY_S = 1.0

log = structlog.get_logger()


class Admission:
    """Decides for a connection whether a request is handled at all.

    `room_for` gives how many commands of an actor there is room for; `not_commands` are paths of writes that are not
    commands.
    """

    def __init__(self, tokens: Tokens, room_for: Callable[[Actor], int], *, not_commands: frozenset[bytes]) -> None:
        self._tokens = tokens
        self._room_for = room_for
        self._not_commands = not_commands
        # Of this iteration of the event loop: its commands reach the queue only after all input was read.
        self._is_in_round = False
        self._let_in = 0
        self._room = 0  # for any actor
        self._refused: Counter[bytes] = Counter()
        # Cached 503 of the current second. Refused commands are never recorded, so they may share an id.
        self._answer = b""
        self._unreadable = 0

    def refusal(self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """The rest of a 503 (`Reply.rest`); None if the request is to be handled."""
        if method not in WRITES or url.partition(b"?")[0] in self._not_commands:
            return None
        if not self._is_in_round:
            self._is_in_round = True
            self._room = min(self._room_for(one) for one in ANYBODY)
            asyncio.get_running_loop().call_soon(self._round_ended)
        if self._let_in >= self._room:  # only now look up the actor: 2 of the 45 µs of a refusal
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
            asyncio.get_running_loop().call_later(LOG_EVERY_S, self._log_refused, id)
        return self._answer

    def note_unreadable(self, why: str) -> None:
        """Note a connection that was closed as its input was not HTTP. Anybody can cause that, so it is logged once a
        second at most."""
        if self._unreadable == 0:
            asyncio.get_running_loop().call_later(LOG_EVERY_S, self._log_unreadable, why)
        self._unreadable += 1
        HTTP_REQUESTS["other", "*", 400] += 1

    def _log_unreadable(self, first: str) -> None:
        log.info("request not readable", method=None, route="*", status=400, times=self._unreadable, why=first)
        self._unreadable = 0

    def _round_ended(self) -> None:
        self._is_in_round, self._let_in = False, 0

    def _log_refused(self, id: str) -> None:
        """Log and count the refusals of a second together: each by itself would cost more than the refusal."""
        log.warning("commands refused, the queue is full", command=id, refused=self._refused.total())
        for method, refused in self._refused.items():
            HTTP_REQUESTS[method.decode(), "*", 503] += refused
        self._refused.clear()
        self._answer = b""
