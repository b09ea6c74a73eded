"""Hosts that are alike. Most hosts of a group have one of few capacities and little different room (empty ones are all
alike), so what is asked of all hosts is worked out once a kind, and told to each host by one `take`.
"""

import numpy as np
from numpy.typing import NDArray

# Whole numbers as float64, which scores are made of: exact up to 2^53, and no request is larger, so room beyond that
# needs no telling apart.
Amounts = NDArray[np.float64]


# Of a kind: the room, an amount a class, between one that is short (−1) where a host takes no new workload and one that
# is always short; the first that is short is then the code of a host, the last one's meaning that it fits. After these
# the capacity, an amount a class.
Line = tuple[int, ...]


class Kinds:
    """The kinds that hosts are of now, numbered anyhow; the number of one that no host is of any more is used again."""

    def __init__(self, classes_count: int, hosts_count: int) -> None:
        self.of = np.full(hosts_count, -1, dtype=np.intp)  # the kind of each host
        self._amounts: Amounts = np.empty((hosts_count, 2 * classes_count + 2))
        self._numbers: dict[Line, int] = {}
        self._lines: list[Line] = []
        self._hosts: list[int] = []  # how many are of each kind
        self._unused: list[int] = []

    def put(self, row: int, line: Line) -> None:
        """The host in this row is of this kind from now on."""
        number, old = self._numbers.get(line), self.of.item(row)
        if number == old:
            return
        if old >= 0:
            self._hosts[old] -= 1
            if not self._hosts[old]:
                del self._numbers[self._lines[old]]
                self._unused.append(old)
        if number is None:
            number = self._new(line)
        self._hosts[number] += 1
        self.of[row] = number

    @property
    def amounts(self) -> Amounts:
        """A row a kind; those of numbers that are not in use mean nothing."""
        return self._amounts[: len(self._lines)]

    def amounts_of(self, rows: list[int] | NDArray[np.intp]) -> Amounts:
        """A row a host."""
        return self._amounts.take(self.of.take(rows), 0)

    def first_of_each(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of these hosts, whose rows rise, the first of each kind, rising too."""
        first = np.full(len(self._lines), -1)
        first[self.of[rows[::-1]]] = rows[::-1]  # of several for one place, the last stays
        chosen = np.zeros(len(self.of), dtype=np.bool_)  # to sort them would take ten times as long
        chosen[first[first >= 0]] = True
        return np.flatnonzero(chosen)

    def counts(self, codes: NDArray[np.int16], length: int) -> list[int]:
        """How many hosts there are of each code below `length`, given the codes of the kinds."""
        counts: list[int] = np.bincount(codes, self._hosts, length).astype(np.int64).tolist()
        return counts

    def _new(self, line: Line) -> int:
        if self._unused:
            number = self._unused.pop()
            self._lines[number] = line
        else:
            number = len(self._lines)
            self._lines.append(line)
            self._hosts.append(0)
        self._numbers[line] = number
        self._amounts[number] = line
        return number
