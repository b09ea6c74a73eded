"""The scores of all hosts of a group for one request shape, kept by touching only what changed."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domain.scheduling.registry import STRATEGIES, reads_demand
from domain.scheduling.strategies import Scores
from domain.values import Resources, ordered

if TYPE_CHECKING:
    from domain.scheduling.table import HostTable

BLOCK_ROWS = 64

STATE = 0  # the code of a host that takes no new workload; 1 + k: short of the k-th class of the request

# Whole numbers as float64, which scores are made of: exact up to 2^53, and no request is larger, so room beyond that
# needs no telling apart.
Amounts = NDArray[np.float64]


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
        self._asked = np.array([[0], *([resources.get(name, 0)] for name in table.classes), [0]], dtype=np.float64)
        sentinel = 1 + len(table.classes)  # a class that no host has is short everywhere
        lines = [1 + table.class_index[name] if name in table.class_index else sentinel for name in self.classes]
        self._lines = np.array([0, *lines, sentinel])
        self._blocks_count = max(1, -(-len(table.names) // BLOCK_ROWS))
        self._rescore()

    def catch_up(self) -> None:
        """Rescore what changed since the last time: some 25 numpy calls, whose number of rows hardly matters."""
        table = self.table
        if self.demand is not None and (demand := table.demand()) is not self.demand:
            is_other = demand.weighed != self.demand.weighed  # what was undone leaves an equal one
            self.demand = demand
            if is_other:
                self._rescore()
                return
        if self._seen == table.now:
            return
        rows = table.since(self._seen)
        if rows is None:
            self._rescore()
            return
        self._seen = table.now
        chosen = np.array(rows)
        scores, codes = self._score(table.room.take(chosen, 1), table.capacity.take(chosen, 1))
        before, after = self.codes.take(chosen).tolist(), codes.tolist()
        if after.count(self.fits) != len(after):
            scores = np.where(codes == self.fits, scores, np.inf)
        if before != after:
            for old, new in zip(before, after, strict=True):
                self.counts[old] -= 1
                self.counts[new] += 1
            self.codes[chosen] = codes
        self.scores[chosen] = scores
        for block in {row // BLOCK_ROWS for row in rows}:
            line = self._grid[block]
            self._least[block] = line[line.argmin()]

    def best(self) -> tuple[int, int]:
        """The rows with the least and the second least (score, name); −1 where there is none."""
        row = self._first()
        if row < 0:
            return -1, -1
        scores, least, block = self.scores, self._least, row // BLOCK_ROWS
        kept, kept_least = scores[row], least[block]
        scores[row] = np.inf
        line = self._grid[block]
        least[block] = line[line.argmin()]
        second = self._first()
        scores[row], least[block] = kept, kept_least
        return row, second

    def reason(self, code: int) -> str:
        """The word for a code, as explanations give it."""
        return "state" if code == STATE else f"insufficient:{self.classes[code - 1]}"

    def _first(self) -> int:
        block = int(self._least.argmin())
        row = block * BLOCK_ROWS + int(self._grid[block].argmin())
        return row if self.scores[row] != np.inf else -1

    def _rescore(self) -> None:
        table = self.table
        self._seen = table.now
        scores, codes = self._score(table.room, table.capacity)
        self.codes = codes.astype(np.int16)
        self.counts = np.bincount(codes, minlength=self.fits + 1).tolist()
        self.scores = np.full(self._blocks_count * BLOCK_ROWS, np.inf)
        self.scores[: len(codes)] = np.where(codes == self.fits, scores, np.inf)
        self._grid = self.scores.reshape(-1, BLOCK_ROWS)
        self._least = self._grid.min(1)

    def _score(self, room: Amounts, capacity: Amounts) -> tuple[Scores, NDArray[np.intp]]:
        """Scores (those of hosts that don't fit mean nothing) and codes of some hosts."""
        after = room - self._asked
        codes = (after.take(self._lines, 0) < 0).argmax(0)
        if not len(capacity):  # without a class no host fits anything, so there is nothing to score
            return np.zeros(len(codes)), codes
        if self.demand is None:
            return self.strategy(after[1:-1], capacity), codes
        return self.strategy(after[1:-1], capacity, self._asked[1:-1], self.demand), codes
