"""The process of the past: folds the log up to any position, for `as_of` and for verification.

Two folds go forward with the questions, as they come in pairs: a moment before, a moment after. A question about what
lies before both, or far behind, begins a new one at the last checkpoint before it. Each holds a whole fleet: one that
is left is freed at once, and all of them when nobody has asked for a while.
"""

import asyncio
import gc
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.invariants import violations
from domain.values import kind_of
from eventlog import checkpoints
from eventlog.checkpoints import Head
from eventlog.codec import Row, UnknownTopic, decode
from eventlog.read import LogReader, OtherHistory
from projections.differences import Apart, Ledger, differences
from projections.history import history
from projections.rows import resource

PAGE_EVENTS = 5_000
COMPARISONS_MAX = 50
WAIT_S = 0.1
FOUND_MAX = 1_000
FOLDS_KEPT = 2
IDLE_S = 60.0
GIVEN_UP_KEPT = 1_000

GoOn = Callable[[], None]  # asked before each page; raises Unavailable when nobody awaits the answer any more


class PastService:
    """Answers requests of `messaging.past`, one at a time."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self._conninfo = conninfo
        self._reader = reader
        self._fleets: list[Fleet] = []  # the one that was asked last at the end
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._given_up: OrderedDict[str, None] = OrderedDict()

    def give_up(self, id: str) -> None:
        """Whoever asked this question has gone."""
        self._given_up[id] = None
        while len(self._given_up) > GIVEN_UP_KEPT:
            self._given_up.popitem(last=False)

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Unavailable when whoever asked stopped waiting (`ends_at`, seconds since 1970, or the question was
        given up) before it was told."""
        id, ends_at = request.get("id", ""), request.get("ends_at", math.inf)

        def must_be_awaited() -> None:
            if time.time() > ends_at or id in self._given_up:
                raise Unavailable(None)

        async with self._turn:
            must_be_awaited()
            match request["do"]:
                case "resource":
                    try:
                        ask = partial(self._shown, request["stream"], request["as_of"], go_on=must_be_awaited)
                        return {"resource": await asyncio.to_thread(ask), "position": request["as_of"]}
                    finally:
                        self._free_when_idle()
                case "verify":
                    return await self._verify(full=bool(request.get("full")), go_on=must_be_awaited)
                case unknown:
                    raise AssertionError(f"{unknown} is nothing that can be asked of the past")

    def _free_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._free_all)

    def _free_all(self) -> None:
        if self._turn.locked():  # somebody is told something just now: later
            self._free_when_idle()
        else:
            self._free(self._fleets)

    def _free(self, fleets: list[Fleet]) -> None:
        """A fleet and its indexes refer to each other, so that only the collector frees them, and it comes seldom."""
        if fleets:
            fleets.clear()
            gc.collect()

    def _shown(self, stream: str, position: int, *, go_on: GoOn) -> dict[str, Any] | None:
        """As it was shown at a command's end. An operation that is over has left the fleet, and is read from its own
        stream, which says all of it; a revoked token never leaves, and is shown no more."""
        kind = kind_of(stream)
        if kind == "operation":
            changes = history(row for row in self._reader.stream(stream) if row.position <= position)
            return changes[-1]["after"] if changes else None
        try:
            fleet = self._folded_to(position, go_on=go_on)
        except OtherHistory:  # the folds that were kept are of a log that was replaced
            self._free(self._fleets)
            fleet = self._folded_to(position, go_on=go_on)
        found = resource(fleet, stream)
        return None if found is not None and kind == "token" and found["state"] == "revoked" else found

    def _folded_to(self, position: int, *, go_on: GoOn) -> Fleet:
        fleet = max(
            (fleet for fleet in self._fleets if fleet.position <= position),
            key=lambda fleet: fleet.position,
            default=None,
        )
        if fleet is None or self._is_far(fleet, position):
            fleet = None
            left = self._fleets[: max(0, len(self._fleets) - FOLDS_KEPT + 1)]
            del self._fleets[: len(left)]
            self._free(left)  # before another one is made
            fleet = Fleet()
            checkpoints.restore(self._conninfo, fleet, until=position)
        else:
            self._fleets.remove(fleet)
        self._fleets.append(fleet)  # it is whole after each page, so whoever asks next can use what was done for this
        _fold(self._reader, fleet, position, go_on=go_on)
        return fleet

    def _is_far(self, fleet: Fleet, position: int) -> bool:
        """Whether it takes longer to fold on than to restore a checkpoint: an entry costs about as much as an event."""
        if position - fleet.position <= PAGE_EVENTS:
            return False
        heads = [head for head in checkpoints.kept(self._conninfo) if head.position <= position]
        return bool(heads) and heads[-1].position - fleet.position > heads[-1].entries

    async def _verify(self, *, full: bool, go_on: GoOn) -> dict[str, Any]:
        """Replays everything; the comparison waits for the read model to stand where the fold does. In full, each
        checkpoint is compared with the replay on its way."""
        heads = await asyncio.to_thread(checkpoints.kept, self._conninfo) if full else []
        differing_from = partial(checkpoints.differences, self._conninfo)
        replay = Replay(self._reader, heads, differences=differing_from, go_on=go_on)
        seen: set[int | None] = set()
        for _ in range(COMPARISONS_MAX):
            await asyncio.to_thread(replay.to_the_end)
            fleet = replay.fleet
            differing: list[str] = []
            try:
                if not replay.is_stopped:
                    differing = await asyncio.to_thread(differences, self._conninfo, fleet, ledger=replay.ledger)
            except Apart as apart:
                if apart.position is not None and apart.position > await asyncio.to_thread(self._reader.end):
                    so = f"the log ends at {fleet.position}: it lost what came after, or was replaced."
                    differing = [f"The read model stands at {apart.position}, but {so}"]
                else:
                    # One of the two is ahead: fold on, or let it catch up.
                    seen.add(apart.position)
                    await asyncio.sleep(WAIT_S)
                    continue
            return replay.told(differing)
        if len(seen) > 1:
            raise Unavailable(None)
        return replay.told([f"The read model stands still at {seen.pop()}: does the projector run?"])


class Replay:
    """The whole log once more: what stands at its end, what the ledgers must hold, and what is wrong with the record
    itself in `found`. It stops for good at an event that can't be understood.

    The accounts are looked at on the way too, at ends of commands, each time when as many events have passed as the
    fleet has members: often in a small one, and never dearer than the fold. What `differences` says of the checkpoints
    on the way is in `differing`.
    """

    def __init__(
        self,
        reader: LogReader,
        heads: Sequence[Head] = (),
        *,
        differences: Callable[[Head, Fleet], list[str]],
        go_on: GoOn = lambda: None,
    ) -> None:
        self.fleet = Fleet()
        self.ledger = Ledger()
        self.found: list[str] = []
        self.differing: list[str] = []
        self.is_stopped = False
        self._reader = reader
        self._heads = {head.position: head for head in heads}
        self._differences = differences
        self._go_on = go_on
        self._looks_at = 0

    def to_the_end(self) -> None:
        """To the log's present end, which is looked at too."""
        try:
            while not self.is_stopped and (rows := self._page()):
                self._go_on()
                for row in rows:
                    if not self._fold(row):
                        self.is_stopped = True
                        break
                    if row.position in self._heads:
                        self.differing += self._differences(self._heads[row.position], self.fleet)
        except OtherHistory as error:
            self.found.append(f"while it was verified, {error}: it lost its end, or was replaced")
            self.is_stopped = True
        self._look()

    def told(self, differing: Sequence[str]) -> dict[str, Any]:
        """The answer of a verification, with what differs in the read model."""
        return {
            "position": self.fleet.position,
            "events": self.fleet.position,
            "violations": self.found[:FOUND_MAX],
            "differences": [*self.differing, *differing][:FOUND_MAX],
        }

    def _page(self) -> list[Row]:
        return self._reader.follow(self.fleet.position, self.fleet.at, PAGE_EVENTS)

    def _look(self) -> None:
        fleet = self.fleet
        self.found += (f"at position {fleet.position}: {violation}" for violation in violations(fleet))
        self._looks_at = fleet.position + len(fleet.entries)

    def _fold(self, row: Row) -> bool:
        fleet = self.fleet
        try:
            recorded = decode(row)
            if recorded.at != fleet.at and fleet.position > self._looks_at and len(self.found) < FOUND_MAX:
                self._look()
            if recorded.position != fleet.position + 1:
                self.found.append(f"position {fleet.position + 1} is missing from the log")
            if recorded.at < fleet.at:
                self.found.append(f"the event at position {recorded.position} is older than the one before it")
            self.ledger.note(recorded, fleet.fold(recorded), fleet)
        except (UnknownTopic, msgspec.MsgspecError, AssertionError, AttributeError, LookupError, TypeError) as error:
            # Nothing that Berth wrote does this: it was changed behind its back, or written by a newer version.
            self.found.append(f"the event at position {row.position} can't be understood: {error!r}")
            return False
        return True


def _fold(reader: LogReader, fleet: Fleet, until: int, *, go_on: GoOn) -> None:
    """Fold on to `until`. A position inside of a command is lifted by whoever asks.

    Raises:
        OtherHistory: the log does not hold what the fleet was folded from.
    """
    while True:
        go_on()
        rows = reader.follow(fleet.position, fleet.at, min(PAGE_EVENTS, until - fleet.position))
        for row in rows:
            fleet.fold(decode(row))
        if not rows or fleet.position == until:
            return
