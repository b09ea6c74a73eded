"""The scores of all hosts of a group for one request shape, kept by touching only what changed."""

from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domain.scheduling.kinds import Amounts
from domain.scheduling.registry import STRATEGIES, reads_demand
from domain.scheduling.strategies import Scores
from domain.values import Resources, ordered

if TYPE_CHECKING:
    from domain.scheduling.table import HostTable

BLOCK_ROWS = 256
KINDS_AT_ONCE = 512  # what is worked out of them stays in the processor's cache

STATE = 0  # the code of a host that takes no new workload; 1 + k: short of the k-th class of the request


class Shape:
    """Scores, the reason for which each host is dropped, and how many are dropped for each."""

    scores: Scores  # padded to whole blocks; inf where it does not fit
    codes: NDArray[np.int16]
    counts: list[int]  # by code
    _grid: Scores  # the scores, a line a block
    _least: Scores  # of each block
    _seen: int

    def __init__(self, table: "HostTable", resources: Resources, strategy: str) -> None:
        self.table = table
        self.strategy = STRATEGIES[strategy]
        self.demand = table.demand() if reads_demand(self.strategy) else None
        self.classes = ordered(resources)
        self.fits = 1 + len(self.classes)  # the code of a host that fits
        asked = [resources.get(name, 0) for name in table.classes]
        self._asked = np.array([0, *asked, 0, *(0 for _ in asked)], dtype=np.float64)
        self._asked_lines = self._asked[1 : 1 + len(asked), None]
        sentinel = 1 + len(table.classes)  # a class that no host has is short everywhere
        lines = [1 + table.class_index[name] if name in table.class_index else sentinel for name in self.classes]
        self._lines = np.array([0, *lines, sentinel])
        blocks_count = max(1, -(-len(table.names) // BLOCK_ROWS))
        self.scores = np.full(blocks_count * BLOCK_ROWS, inf)
        self.codes = np.empty(len(table.names), dtype=np.int16)
        self._grid = self.scores.reshape(-1, BLOCK_ROWS)
        self._rescore()

    def catch_up(self) -> None:
        """Rescore what changed since the last time: some 30 numpy calls, whose number of rows matters little."""
        table = self.table
        if self.demand is not None and (demand := table.demand()) is not self.demand:
            is_other = demand.weighed != self.demand.weighed  # what was undone leaves an equal one
            self.demand = demand
            if is_other:
                self._rescore()
                return
        now = table.now
        if self._seen == now:
            return
        rows = table.since(self._seen)
        if rows is None:
            self._rescore()
            return
        self._seen = now
        new_scores, new_codes = self._score(table.kinds.amounts_of(rows))
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
            elif not (was > low and score > low):  # it was the least (or one of them is not a number)
                unsure.add(block)
        for block in unsure:
            line = self._grid[block]
            least[block] = line.item(line.argmin())

    def best(self) -> list[tuple[int, float]]:
        """The rows with the least and the second least (score, name), and their scores; fewer if fewer fit."""
        least = self._least
        block = int(least.argmin())
        line, kept = self._grid[block], least.item(block)
        first = int(line.argmin())
        score = line.item(first)
        if score == inf:
            return []
        line[first] = inf  # and now the least of the others
        least[block] = line.item(line.argmin())
        other = int(least.argmin())
        second = int(self._grid[other].argmin())
        runner_up = self._grid.item(other, second)
        line[first], least[block] = score, kept
        found = [(block * BLOCK_ROWS + first, score)]
        if runner_up != inf:
            found.append((other * BLOCK_ROWS + second, runner_up))
        return found

    def reason(self, code: int) -> str:
        """The word for a code, as explanations give it."""
        return "state" if code == STATE else f"insufficient:{self.classes[code - 1]}"

    def _rescore(self) -> None:
        table = self.table
        self._seen = table.now
        amounts, kind_of = table.kinds.amounts, table.kinds.of
        scores, codes = np.empty(len(amounts)), np.empty(len(amounts), dtype=np.int16)
        for start in range(0, len(amounts), KINDS_AT_ONCE):
            part = slice(start, start + KINDS_AT_ONCE)
            scores[part], codes[part] = self._score(amounts[part])
        scores[codes != self.fits] = inf
        self.counts = table.kinds.counts(codes, self.fits + 1)
        codes.take(kind_of, out=self.codes, mode="clip")  # with the other modes `out` is filled by way of a copy
        scores.take(kind_of, out=self.scores[: len(kind_of)], mode="clip")
        self._least = self._grid.min(1)

    def _score(self, amounts: Amounts) -> tuple[Scores, NDArray[np.intp]]:
        """Scores (those of hosts that don't fit mean nothing) and codes of some hosts."""
        after = amounts - self._asked
        codes = np.signbit(after.take(self._lines, 1)).argmax(1)  # no zero here is −0.0
        count = len(self._asked_lines)
        if not count:  # without a class no host fits anything, so there is nothing to score
            return np.zeros(len(codes)), codes
        lines = after.T.copy()  # a line in one piece is half the price in all that follows
        if self.demand is None:
            return self.strategy(lines[1 : 1 + count], lines[2 + count :]), codes
        return self.strategy(lines[1 : 1 + count], lines[2 + count :], self._asked_lines, self.demand), codes
