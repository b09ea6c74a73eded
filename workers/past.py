"""The process of the past: folds the log up to any position, for `as_of` and for verification.

One fold goes forward with the questions; a question about what lies before it begins a new one.
"""

import asyncio
from typing import Any

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.invariants import violations
from domain.values import kind_of
from eventlog.codec import decode
from eventlog.read import LogReader
from projections.history import history
from projections.projector import differences
from projections.rows import resource

PAGE_EVENTS = 5_000
COMPARISONS_MAX = 50
WAIT_S = 0.1
FOUND_MAX = 1_000


class PastService:
    """Answers requests of `messaging.past`, one at a time."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self._conninfo = conninfo
        self._reader = reader
        self._fleet = Fleet()
        self._turn = asyncio.Lock()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            match request["do"]:
                case "resource":
                    shown = await asyncio.to_thread(self._shown, request["stream"], request["as_of"])
                    return {"resource": shown, "position": request["as_of"]}
                case "verify":
                    return await self._verify()
                case unknown:
                    raise AssertionError(f"{unknown} is nothing that can be asked of the past")

    def _shown(self, stream: str, position: int) -> dict[str, Any] | None:
        """As it was shown at a command's end. An operation that is over has left the fleet, and is read from its own
        stream, which says all of it; a revoked token never leaves, and is shown no more."""
        kind = kind_of(stream)
        if kind == "operation":
            changes = history(row for row in self._reader.stream(stream) if row.position <= position)
            return changes[-1]["after"] if changes else None
        found = resource(self._folded_to(position), stream)
        return None if found is not None and kind == "token" and found["state"] == "revoked" else found

    def _folded_to(self, position: int) -> Fleet:
        if position < self._fleet.position:
            self._fleet = Fleet()
        _fold(self._reader, self._fleet, position)
        return self._fleet

    async def _verify(self) -> dict[str, Any]:
        """Replays everything; the comparison waits for the read model to stand where the fold does."""
        fleet = Fleet()
        found = await asyncio.to_thread(self._replay, fleet)
        for _ in range(COMPARISONS_MAX):
            try:
                differing = await asyncio.to_thread(differences, self._conninfo, fleet)
            except LookupError:
                # One of the two is ahead: fold on, or let it catch up.
                await asyncio.sleep(WAIT_S)
                await asyncio.to_thread(_fold, self._reader, fleet, None)
                continue
            found += violations(fleet)
            return {
                "position": fleet.position,
                "events": fleet.position,
                "violations": found[:FOUND_MAX],
                "differences": differing[:FOUND_MAX],
            }
        raise Unavailable(None)

    def _replay(self, fleet: Fleet) -> list[str]:
        """What is wrong with the record itself: a gap, a time that does not rise, an account that does not add up."""
        found: list[str] = []
        while rows := self._reader.page(fleet.position, PAGE_EVENTS):
            for row in rows:
                recorded = decode(row)
                if recorded.position != fleet.position + 1:
                    found.append(f"position {fleet.position + 1} is missing from the log")
                if recorded.at < fleet.at:
                    found.append(f"the event at position {recorded.position} is older than the one before it")
                fleet.fold(recorded)
        return found


def _fold(reader: LogReader, fleet: Fleet, until: int | None) -> None:
    """Fold on to `until`, or to the log's end. A position inside of a command is lifted by whoever asks."""
    while until is None or fleet.position < until:
        limit = PAGE_EVENTS if until is None else min(PAGE_EVENTS, until - fleet.position)
        rows = reader.page(fleet.position, limit)
        for row in rows:
            fleet.fold(decode(row))
        if not rows:
            return
