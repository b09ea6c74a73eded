"""Tokens that this process has not met yet, looked up in the read model for all who wait at once.

unknown here ─► shown?  one query after another, each for up to 256 ──────────── found ─► kept
                  └─ not found ─► at the log's end? ten turns a second at most, each for up to 64 ─► found, or 401

Known tokens never come here. A guessed one costs the second look, whose turns are few, so that any number of guesses
costs what ten a second cost; a good one is found by the first, which waits for no guess: not after a restart either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog
from eventsourcing.persistence import PersistenceError
from psycopg import Error as DatabaseError

from domain.errors import Unavailable
from eventlog.read import LogReader, OtherHistory
from eventlog.tasks import end_tasks
from projections.queries import ReadModel, TokenRow

LOG_END_WAIT_S = 1.0
WAIT_S_MAX = 5.0
WAITING_MAX = 4_096
SHOWN_AT_ONCE = 256
AT_END_AT_ONCE = 64
AT_END_EVERY_S = 0.1

log = structlog.get_logger()


class LookedUp(msgspec.Struct, frozen=True):
    """`is_current`: the read model shows all from before the live tail began, so that nothing between is missed."""

    token: TokenRow | None
    is_current: bool


class TokenLookUps:
    """Asked by `api/auth.py`; belongs to one event loop. `began_at` is the position of the live tail's beginning."""

    def __init__(self, read_model: ReadModel, log_reader: LogReader, *, began_at: Callable[[], int]) -> None:
        self._read_model = read_model
        self._log_reader = log_reader
        self._began_at = began_at
        self._shown = Lane(self._find_shown, at_once=SHOWN_AT_ONCE)
        self._at_end = Lane(self._find_at_end, at_once=AT_END_AT_ONCE, every_s=AT_END_EVERY_S)

    async def look_up(self, hash: str, at_end: bool) -> tuple[TokenRow | None, bool]:
        """The token by the hash of its secret; `at_end`: as it is at the log's present end.

        Raises:
            Unavailable: too many wait, or nobody can say just now whether there is such a token.
        """
        found = await (self._at_end if at_end else self._shown).ask(hash)
        return found.token, found.is_current

    async def stop(self) -> None:
        await self._shown.stop()
        await self._at_end.stop()

    async def _find_shown(self, hashes: Sequence[str]) -> dict[str, LookedUp]:
        is_current = self._read_model.position >= self._began_at()
        found = await self._read_model.tokens_by_hash(hashes)
        if found:
            await self._must_be_of_this_log()
        return {hash: LookedUp(found.get(hash), is_current) for hash in hashes}

    async def _find_at_end(self, hashes: Sequence[str]) -> dict[str, LookedUp]:
        end = await asyncio.to_thread(self._log_reader.end)
        is_behind = False
        try:
            await self._read_model.wait_for(end, timeout_s=LOG_END_WAIT_S)
        except Unavailable:
            log.warning("read model is behind", position=self._read_model.position, end=end)
            is_behind = True
        is_current = self._read_model.position >= self._began_at()
        found = await self._read_model.tokens_by_hash(hashes)
        await self._must_be_of_this_log()
        # Of a read model that is behind, nobody can say that there is no such token.
        told = found.keys() if is_behind else hashes
        return {hash: LookedUp(found.get(hash), is_current) for hash in told}

    async def _must_be_of_this_log(self) -> None:
        """The read model may still be that of a log that was replaced."""
        try:
            await asyncio.to_thread(self._log_reader.follow, self._read_model.position, self._read_model.at, 0)
        except OtherHistory:
            raise Unavailable() from None


Find = Callable[[Sequence[str]], Awaitable[dict[str, LookedUp]]]


class Lane:
    """One question at a time, for the first that wait; those who come meanwhile go with the next. Nobody is told
    anything about a hash that `find` leaves out."""

    def __init__(self, find: Find, *, at_once: int, every_s: float = 0.0) -> None:
        self._find = find
        self._at_once = at_once
        self._every_s = every_s
        self._waiting: dict[str, asyncio.Future[LookedUp]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, hash: str) -> LookedUp:
        """Raises Unavailable: too many wait, or it took too long."""
        future = self._waiting.get(hash)
        if future is None:
            if len(self._waiting) >= WAITING_MAX:
                raise Unavailable()
            future = self._waiting[hash] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all())
        # It may be shared: unlike wait_for, wait leaves it alone when this caller goes.
        await asyncio.wait((future,), timeout=WAIT_S_MAX)
        if not future.done():
            raise Unavailable()
        return future.result()

    async def stop(self) -> None:
        if self._asking is not None:
            await end_tasks(self._asking)

    async def _ask_for_all(self) -> None:
        loop = asyncio.get_running_loop()
        asked: dict[str, asyncio.Future[LookedUp]] = {}
        try:
            while self._waiting:
                next_at = loop.time() + self._every_s
                asked = {hash: self._waiting.pop(hash) for hash in list(self._waiting)[: self._at_once]}
                try:
                    found = await self._find(list(asked))
                except (Unavailable, PersistenceError, DatabaseError, OSError) as error:
                    _fail(asked, error)
                else:
                    for hash, answer in found.items():
                        asked[hash].set_result(answer)
                    _fail(asked, Unavailable())
                await asyncio.sleep(max(0.0, next_at - loop.time()))
        finally:
            self._asking = None
            _fail(asked, Unavailable())
            _fail(self._waiting, Unavailable())
            self._waiting.clear()


def _fail(asked: Mapping[str, "asyncio.Future[LookedUp]"], error: Exception) -> None:
    """Those that have no answer yet."""
    for future in asked.values():
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever asked may be gone; nobody need look at it then
