"""How much a token may have in progress at once, so that a token that asks for much makes no other wait.

    request ─► its budget: a slot of its token, and one of all tokens together ─► handled and sent ─► both are free
                 └─ none free: it waits behind its token's others ─► for too long, or behind too many: 429

Commands need no slot, as the engine's queue limits them; but large bodies do. Each API process counts for itself.
"""

import asyncio
from collections import OrderedDict, deque
from typing import Any

import msgspec

from api.accept import is_table
from api.parameters import AS_OF, names_in
from api.problems import TooMuchAtOnce


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most `of_token` requests of one token are in progress, and `in_all` of all; `waiting` more of a token wait for
    at most `wait_s` seconds."""

    what: str
    of_token: int
    in_all: int = 1_000_000
    waiting: int = 0
    wait_s: float = 0.0


READS = Budget(what="reads", of_token=16, waiting=64, wait_s=10.0)
# Searches through much of the log, and tables.
SCANS = Budget(what="searches and tables", of_token=1, in_all=2, waiting=16, wait_s=30.0)
# Other processes answer these, few at a time.
PAST = Budget(what="questions about the past", of_token=4, waiting=16, wait_s=60.0)
LISTENERS = Budget(what="listeners", of_token=100)
# Bodies above 64 KiB (`api.upload.LARGE_BYTES`) and up to 8 MiB, until they are parsed: 64 MiB of a token, 256 of all.
LARGE_BODIES = Budget(what="large bodies", of_token=8, in_all=32, waiting=64, wait_s=30.0)
# Parsed in the thread for bodies, or in the pause after that.
UNDERSTOOD = Budget(what="bodies being parsed", of_token=1, waiting=256, wait_s=30.0)

AS_OF_NAME = AS_OF.name.encode()


class _SlotsOfToken:
    """One token's requests: how many are in progress, and those that wait, in order."""

    def __init__(self) -> None:
        self.under_way = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Slots:
    """The slots of one budget; belongs to one event loop. Each `take` is followed by a `give_back`."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._by_token: dict[str, _SlotsOfToken] = {}
        self._waiting: OrderedDict[str, _SlotsOfToken] = OrderedDict()  # in the order of their turns
        self._under_way = 0

    def take_at_once(self, token: str) -> bool:
        """Take a slot, if one is free and no other request of the token waits for it."""
        own = self._by_token.get(token)
        if own is None:
            own = self._by_token[token] = _SlotsOfToken()
        if own.waiting or not self._is_free(own):
            return False
        self._take(own)
        return True

    async def take(self, token: str) -> None:
        """Wait for a slot and take it.

        Raises:
            TooMuchAtOnce: none became free in time, or too many wait for one already.
        """
        if self.take_at_once(token):
            return
        own = self._by_token[token]
        if len(own.waiting) >= self._budget.waiting:
            self._forget_if_idle(token, own)
            raise self._refusal()
        turn = asyncio.get_running_loop().create_future()
        own.waiting.append(turn)
        self._waiting[token] = own
        try:
            async with asyncio.timeout(self._budget.wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came at the same moment
                self.give_back(token)
            else:
                own.waiting.remove(turn)
                if not own.waiting:
                    del self._waiting[token]
                self._forget_if_idle(token, own)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def give_back(self, token: str) -> None:
        own = self._by_token[token]
        own.under_way -= 1
        self._under_way -= 1
        self._let_in()
        self._forget_if_idle(token, own)

    def _is_free(self, own: _SlotsOfToken) -> bool:
        return own.under_way < self._budget.of_token and self._under_way < self._budget.in_all

    def _take(self, own: _SlotsOfToken) -> None:
        own.under_way += 1
        self._under_way += 1

    def _let_in(self) -> None:
        """Start the next request; its token's next turn comes after that of all others."""
        for token, own in self._waiting.items():
            if self._is_free(own):
                self._take(own)
                own.waiting.popleft().set_result(None)
                self._waiting.move_to_end(token)
                if not own.waiting:
                    del self._waiting[token]
                return

    def _forget_if_idle(self, token: str, own: _SlotsOfToken) -> None:
        if not own.under_way and not own.waiting:
            del self._by_token[token]

    def _refusal(self) -> TooMuchAtOnce:
        return TooMuchAtOnce(self._budget.what, self._budget.of_token)


def all_slots() -> dict[Budget, Slots]:
    return {budget: Slots(budget) for budget in (READS, SCANS, PAST, LISTENERS, LARGE_BODIES, UNDERSTOOD)}


def budget_of(declared: Budget, scope: Any) -> Budget:
    """The budget of a request: its endpoint's, unless it asks for more than that is for."""
    if declared is not READS:
        return declared
    query: bytes = scope["query_string"]
    if query and AS_OF_NAME in names_in(query):
        return PAST
    if is_table(scope["headers"]):
        return SCANS
    return READS
