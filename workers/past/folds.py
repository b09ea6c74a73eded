"""A few fleets, each folded up to some position, which go forward with the questions.

Two are kept, as questions come in pairs: a moment before, a moment after. A question about what lies before both, or
far behind, begins a new one at the last checkpoint before it. One that is left is freed before another is made.
"""

import gc
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from domain.fleet import Fleet
from eventlog import checkpoints
from eventlog.codec import decode
from eventlog.read import LogReader, OtherHistory

PAGE_EVENTS = 5_000
FOLDS_KEPT = 2
WAIT_S = 0.002

T = TypeVar("T")
# What is done a step at a time; it yields how many seconds the next step has to wait.
Steps = Generator[float, None, T]


class _Fold:
    def __init__(self, fleet: Fleet, restoring: "Future[bool]", *, begun_for: int) -> None:
        self.fleet = fleet
        self.until: int | None = None  # where it is being folded to
        self._restoring = restoring
        self._begun_for = begun_for

    @property
    def position(self) -> int:
        """Where it stands, or will stand when whoever folds is done."""
        if self.until is not None:
            return self.until
        return self.fleet.position if self._restoring.done() else self._begun_for

    @property
    def is_taken(self) -> bool:
        return self.until is not None or not self._restoring.done()

    @property
    def is_restored(self) -> bool:
        """Raises what went wrong."""
        return self._restoring.done() and (self._restoring.result() or True)

    @property
    def is_lost(self) -> bool:
        """Its checkpoint could not be read."""
        return self._restoring.done() and self._restoring.exception() is not None


class Folds:
    """For one thread, which takes steps for several questions in turn."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self._conninfo = conninfo
        self._reader = reader
        self._kept: list[_Fold] = []  # the one that was asked for last at the end
        # A checkpoint of a million resources takes seconds: in a thread, so that other questions go on.
        self._restoring = ThreadPoolExecutor(FOLDS_KEPT, thread_name_prefix="restore")

    @property
    def positions(self) -> list[int]:
        return [fold.position for fold in self._kept]

    def at(self, position: int) -> Steps[Fleet]:
        """The fleet at a position, a page of the log at each step. It is the caller's until the caller's next step.

        A position inside of a command is lifted by whoever asks.
        """
        while True:
            while (fold := self._take(position)) is None:
                yield WAIT_S  # all that may be kept are being folded for others
            try:
                while not fold.is_restored:
                    yield WAIT_S
                yield from self._forward(fold.fleet, position)
                return fold.fleet
            except OtherHistory:
                pass
            finally:
                fold.until = None
            self._leave(fold)  # it is of a log that was replaced

    def free(self) -> bool:
        """All of them, when nobody asks any more; False if one is still being restored for somebody who left."""
        self._leave(*(fold for fold in self._kept if not fold.is_taken))
        return not self._kept

    def _take(self, position: int) -> _Fold | None:
        """One to be folded on to the position; None while it must be waited for."""
        self._leave(*(fold for fold in self._kept if fold.is_lost and fold.until is None))
        fold = max(
            (fold for fold in self._kept if fold.position <= position), key=lambda fold: fold.position, default=None
        )
        if fold is None or self._is_far(fold, position):
            fold = self._new(position)
        elif fold.is_taken:
            return None
        if fold is not None:
            fold.until = position
            self._kept.remove(fold)
            self._kept.append(fold)
        return fold

    def _is_far(self, fold: _Fold, position: int) -> bool:
        """Whether it takes longer to fold on than to restore a checkpoint: an entry costs about as much as an event."""
        if position - fold.position <= PAGE_EVENTS:
            return False
        if fold.is_taken:
            return True
        heads = [head for head in checkpoints.kept(self._conninfo) if head.position <= position]
        return bool(heads) and heads[-1].position - fold.position > heads[-1].entries

    def _new(self, position: int) -> _Fold | None:
        if len(self._kept) >= FOLDS_KEPT:
            idle = [fold for fold in self._kept if not fold.is_taken]
            if not idle:
                return None
            self._leave(*idle[: len(self._kept) - FOLDS_KEPT + 1])  # before another one is made
        fleet = Fleet()
        restoring = self._restoring.submit(checkpoints.restore, self._conninfo, fleet, until=position)
        self._kept.append(fold := _Fold(fleet, restoring, begun_for=position))
        return fold

    def _leave(self, *folds: _Fold) -> None:
        """A fleet and its indexes refer to each other, so that only the collector frees them, and it comes seldom."""
        if folds:
            self._kept = [fold for fold in self._kept if fold not in folds]
            for fold in folds:
                del fold.fleet
            gc.collect()

    def _forward(self, fleet: Fleet, position: int) -> Steps[None]:
        """
        Raises:
            OtherHistory: the log does not hold what the fleet was folded from.
        """
        while True:
            rows = self._reader.follow(fleet.position, fleet.at, min(PAGE_EVENTS, position - fleet.position))
            for row in rows:
                fleet.fold(decode(row))
            if not rows or fleet.position == position:
                return
            yield 0.0  # it is whole after each page: whoever asks next can use what was done for this
