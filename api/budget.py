"""How much a token may have under way at once, so that one that asks for much keeps nobody else waiting.

    request ─► its budget: a place of its token's, and one of all tokens' ─► handled and sent ─► both are free again
                 └─ none free: it waits in its token's line ─► too long, or the line is full: 429

Commands have none, as the engine's queue bounds them; but their bodies do, if they are large. Each API process counts
for itself.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Any

import msgspec

from api.accept import is_table
from api.parameters import AS_OF, names_in
from api.problems import TooMuchAtOnce


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """`of_token` requests of one token may be under way, `in_all` of all; `waiting` more of one token wait for at most
    `wait_s` seconds."""

    what: str
    of_token: int
    in_all: int = 1_000_000
    waiting: int = 0
    wait_s: float = 0.0


READS = Budget(what="reads", of_token=16, waiting=64, wait_s=10.0)
# What looks through much of the log, or writes out a table, for one answer.
SCANS = Budget(what="searches and tables", of_token=1, in_all=2, waiting=16, wait_s=30.0)
# Another process answers these, one after the other.
PAST = Budget(what="questions about the past", of_token=4, waiting=16, wait_s=60.0)
LISTENERS = Budget(what="listeners", of_token=100)
# Bodies above 64 KiB (`api.upload.LARGE_BYTES`), each of 8 MiB at most, until they are understood: 64 MiB of a token,
# 256 of all.
LARGE_BODIES = Budget(what="large bodies", of_token=8, in_all=32, waiting=64, wait_s=30.0)
# In the thread that understands bodies, or resting from it.
UNDERSTOOD = Budget(what="bodies being parsed", of_token=1, waiting=256, wait_s=30.0)

AS_OF_NAME = AS_OF.name.encode()


class _Line:
    """A token's: how many are under way, and those that wait in their order."""

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Places:
    """Who holds places of one budget; belongs to one event loop. Each `take` is followed by a `give_back`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lines: dict[str, _Line] = {}
        self._waiting: OrderedDict[str, _Line] = OrderedDict()  # in the order of their turns
        self._under_way = 0

    def take_at_once(self, token: str) -> bool:
        """Take a place, if one is free and nobody of that token waits for it."""
        line = self._lines.get(token)
        if line is None:
            line = self._lines[token] = _Line()
        if line.waiting or not self._is_free(line):
            return False
        self._take(line)
        return True

    async def take(self, token: str) -> None:
        """Wait for a place and take it.

        Raises:
            TooMuchAtOnce: none became free in time, or too many wait for one already.
        """
        if self.take_at_once(token):
            return
        line = self._lines[token]
        if len(line.waiting) >= self._budget.waiting:
            self._forget_if_idle(token, line)
            raise self._refusal()
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        self._waiting[token] = line
        try:
            async with asyncio.timeout(self._budget.wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came at the same moment
                self.give_back(token)
            else:
                line.waiting.remove(turn)
                if not line.waiting:
                    del self._waiting[token]
                self._forget_if_idle(token, line)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def give_back(self, token: str) -> None:
        line = self._lines[token]
        line.under_way -= 1
        self._under_way -= 1
        self._let_in()
        self._forget_if_idle(token, line)

    def _is_free(self, line: _Line) -> bool:
        return line.under_way < self._budget.of_token and self._under_way < self._budget.in_all

    def _take(self, line: _Line) -> None:
        line.under_way += 1
        self._under_way += 1

    def _let_in(self) -> None:
        """The one whose turn it is; its token's next turn comes after that of all others."""
        for token, line in self._waiting.items():
            if self._is_free(line):
                self._take(line)
                line.waiting.popleft().set_result(None)
                self._waiting.move_to_end(token)
                if not line.waiting:
                    del self._waiting[token]
                return

    def _forget_if_idle(self, token: str, line: _Line) -> None:
        if not line.under_way and not line.waiting:
            del self._lines[token]

    def _refusal(self) -> TooMuchAtOnce:
        return TooMuchAtOnce(self._budget.what, self._budget.of_token)


def all_places() -> dict[Budget, Places]:
    return {budget: Places(budget) for budget in (READS, SCANS, PAST, LISTENERS, LARGE_BODIES, UNDERSTOOD)}


def budget_of(declared: Budget, scope: Any) -> Budget:
    """Which budget a request takes from: its endpoint's, unless what it asks for takes more."""
    if declared is not READS:
        return declared
    query: bytes = scope["query_string"]
    if query and AS_OF_NAME in names_in(query):
        return PAST
    if is_table(scope["headers"]):
        return SCANS
    return READS
