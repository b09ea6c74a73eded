"""Verification: the whole log once more, what must hold at all times, and whether the read model shows what is so."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.invariants import violations
from eventlog import checkpoints
from eventlog.checkpoints import Head
from eventlog.codec import Row, UnknownTopic, decode
from eventlog.read import LogReader, OtherHistory
from projections.differences import Apart, Ledger, differences
from workers.past.folds import PAGE_EVENTS, Steps

COMPARISONS_MAX = 50
WAIT_S = 0.1
FOUND_MAX = 1_000


def verification(conninfo: str, reader: LogReader, *, full: bool) -> Steps[dict[str, Any]]:
    """Replays everything; the comparison waits for the read model to stand where the fold does. In full, each
    checkpoint is compared with the replay on its way.

    Raises:
        Unavailable: the read model moves on, and was never met.
    """
    heads = checkpoints.kept(conninfo) if full else []
    replay = Replay(reader, heads, differences=partial(checkpoints.differences, conninfo))
    seen: set[int | None] = set()
    for _ in range(COMPARISONS_MAX):
        yield from replay.to_the_end()
        fleet = replay.fleet
        differing: list[str] = []
        try:
            if not replay.is_stopped:
                differing = differences(conninfo, fleet, ledger=replay.ledger)
        except Apart as apart:
            if apart.position is not None and apart.position > reader.end():
                so = f"the log ends at {fleet.position}: it lost what came after, or was replaced."
                differing = [f"The read model is at position {apart.position}, but {so}"]
            else:
                # One of the two is ahead: fold on, or let it catch up.
                seen.add(apart.position)
                yield WAIT_S
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
    ) -> None:
        self.fleet = Fleet()
        self.ledger = Ledger()
        self.found: list[str] = []
        self.differing: list[str] = []
        self.is_stopped = False
        self._reader = reader
        self._heads = {head.position: head for head in heads}
        self._differences = differences
        self._looks_at = 0

    def to_the_end(self) -> Steps[None]:
        """To the log's present end, which is looked at too; a page at each step."""
        try:
            while not self.is_stopped and (rows := self._page()):
                yield 0.0
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
        self._looks_at = fleet.position + fleet.size()

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
