"""The scores of all hosts of a group for one request shape, kept by touching only what changed."""

from collections.abc import Callable
from math import inf

import numpy as np
from numpy.typing import NDArray

from domain.scheduling.changes import RowChanges
from domain.scheduling.demand import Demand
from domain.scheduling.host_classes import Amounts, HostClasses
from domain.scheduling.registry import STRATEGIES, reads_demand
from domain.scheduling.strategies import Scores
from domain.values import Resources, ordered

BLOCK_ROWS = 256
CLASSES_AT_ONCE = 512  # the intermediate arrays of so many host classes stay in the processor's cache

STATE = 0  # the code of a host that takes no new workload; 1 + k: short of the k-th class of the request


class ShapeScores:
    """Scores, the reason for which each host is dropped, and how many are dropped for each."""

    scores: Scores  # padded to whole blocks; inf where it does not fit
    codes: NDArray[np.int16]
    counts: list[int]  # by code
    _grid: Scores  # the same scores, a row a block
    _least: Scores  # of each block
    _read: int  # how far into the changes

    def __init__(
        self,
        hosts: HostClasses,
        changes: RowChanges,
        *,
        resources: Resources,
        strategy: str,
        demand: Callable[[], Demand],
    ) -> None:
        """`demand` gives the group's of now; it is called only for a strategy that reads it."""
        self._hosts = hosts
        self._changes = changes
        self._strategy = STRATEGIES[strategy]
        self._demand_now = demand
        self._demand = demand() if reads_demand(self._strategy) else None
        self.classes = ordered(resources)
        self.fits = 1 + len(self.classes)  # the code of a host that fits
        asked = [resources.get(name, 0) for name in hosts.classes]
        self._asked = np.array([0, *asked, 0, *(0 for _ in asked)], dtype=np.float64)
        self._asked_lines = self._asked[1 : 1 + len(asked), None]
        # The columns of a host class that decide whether the request fits, in the order of the codes. A resource class
        # that no host has is short everywhere, as is the −1 at the end.
        always_short = 1 + len(hosts.classes)
        index = {name: 1 + k for k, name in enumerate(hosts.classes)}
        self._deciding = np.array([0, *(index.get(name, always_short) for name in self.classes), always_short])
        blocks_count = max(1, -(-len(hosts.of) // BLOCK_ROWS))
        self.scores = np.full(blocks_count * BLOCK_ROWS, inf)
        self.codes = np.empty(len(hosts.of), dtype=np.int16)
        self._grid = self.scores.reshape(-1, BLOCK_ROWS)
        self._rescore()

    def catch_up(self) -> None:
        """Rescore what changed since the last time: some 30 numpy calls, whose number of rows matters little."""
        if self._demand is not None and (demand := self._demand_now()) is not self._demand:
            is_other = demand.weighed != self._demand.weighed  # undoing a decision leaves an equal one
            self._demand = demand
            if is_other:
                self._rescore()
                return
        end = self._changes.end
        if self._read == end:
            return
        rows = self._changes.since(self._read)
        if rows is None:
            self._rescore()
            return
        self._read = end
        new_scores, new_codes = self._score(self._hosts.amounts_of(rows))
        scores, codes, least, unsure = self.scores, self.codes, self._least, set()
        for row, score, code in zip(rows, new_scores.tolist(), new_codes.tolist(), strict=True):
            if code != self.fits:
                score = inf
            if (old := codes.item(row)) != code:
                codes[row] = code
                self.counts[old] -= 1
                self.counts[code] += 1
            was, block = scores.item(row), row // BLOCK_ROWS
            scores[row] = score
            if score <= (low := least.item(block)):
                least[block] = score
            elif not (was > low and score > low):  # it was the least (or one of them is NaN)
                unsure.add(block)
        for block in unsure:
            scores_of_block = self._grid[block]
            least[block] = scores_of_block.item(scores_of_block.argmin())

    def best(self) -> list[tuple[int, float]]:
        """The rows with the least and the second least (score, name), and their scores; fewer if fewer fit."""
        least = self._least
        block = int(least.argmin())
        scores_of_block, kept = self._grid[block], least.item(block)
        first = int(scores_of_block.argmin())
        score = scores_of_block.item(first)
        if score == inf:
            return []
        scores_of_block[first] = inf  # left out for a moment, to find the least of the others
        least[block] = scores_of_block.item(scores_of_block.argmin())
        other = int(least.argmin())
        second = int(self._grid[other].argmin())
        runner_up = self._grid.item(other, second)
        scores_of_block[first], least[block] = score, kept
        found = [(block * BLOCK_ROWS + first, score)]
        if runner_up != inf:
            found.append((other * BLOCK_ROWS + second, runner_up))
        return found

    def reason(self, code: int) -> str:
        """The word for a code, as explanations give it."""
        return "state" if code == STATE else f"insufficient:{self.classes[code - 1]}"

    def _rescore(self) -> None:
        self._read = self._changes.end
        amounts, number_of = self._hosts.amounts, self._hosts.of
        scores, codes = np.empty(len(amounts)), np.empty(len(amounts), dtype=np.int16)
        for start in range(0, len(amounts), CLASSES_AT_ONCE):
            part = slice(start, start + CLASSES_AT_ONCE)
            scores[part], codes[part] = self._score(amounts[part])
        scores[codes != self.fits] = inf
        self.counts = self._hosts.counts(codes, self.fits + 1)
        codes.take(number_of, out=self.codes, mode="clip")  # other modes fill `out` through a copy
        scores.take(number_of, out=self.scores[: len(number_of)], mode="clip")
        self._least = self._grid.min(1)

    def _score(self, amounts: Amounts) -> tuple[Scores, NDArray[np.intp]]:
        """Scores (meaningless where the request does not fit) and codes of hosts or host classes, a row each."""
        after = amounts - self._asked
        codes = np.signbit(after.take(self._deciding, 1)).argmax(1)  # no zero here is −0.0
        count = len(self._asked_lines)
        if not count:  # without a class no host fits anything, so there is nothing to score
            return np.zeros(len(codes)), codes
        lines = after.T.copy()  # contiguous: half the price in all that follows
        free, capacity = lines[1 : 1 + count], lines[2 + count :]
        if self._demand is None:
            return self._strategy(free, capacity), codes
        return self._strategy(free, capacity, self._asked_lines, self._demand), codes
