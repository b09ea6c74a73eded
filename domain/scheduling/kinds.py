"""Hosts that are alike. Most hosts of a group have one of few capacities and little different room (empty ones are all
alike), so what is asked of all hosts is worked out once a kind, and told to each host by one `take`.
"""

import numpy as np
from numpy.typing import NDArray

from domain.host import Host
from domain.values import Overcommit, Resources, usable

# Whole numbers as float64, which scores are made of: exact up to 2^53, and no request is larger, so room beyond that
# needs no telling apart.
Amounts = NDArray[np.float64]
ROOM_MAX = 2**53

# Of a kind: the room, an amount a class, between one that is short (−1) where a host takes no new workload and one that
# is always short; the first that is short is then the code of a host, the last one's meaning that it fits. After these
# the capacity, an amount a class. Where there is no capacity there is no room, also if what runs stands above it:
# strategies may rely on that.
Line = tuple[int, ...]


class Kinds:
    """The kinds that hosts are of now, numbered anyhow; the number of one that no host is of any more is used again."""

    def __init__(self, classes: list[str], hosts: list[Host], overcommit: Overcommit) -> None:
        self.classes = classes
        capacity = self._amounts_by_class([usable(host.capacity, overcommit) for host in hosts])
        used = self._amounts_by_class([host.used for host in hosts])
        room = np.where(capacity > 0, np.clip(capacity - used, -ROOM_MAX, ROOM_MAX), 0)
        takes_workload = [0 if host.is_schedulable else -1 for host in hosts]
        lines = np.vstack((takes_workload, room, np.full(len(hosts), -1), capacity)).T.copy()
        found: dict[bytes, int] = {}  # a hundred thousand bytes are made and looked up in half the time of tuples
        packed, size = lines.tobytes(), lines[:1].nbytes
        numbers = [found.setdefault(packed[at : at + size], len(found)) for at in range(0, len(packed), size or 1)]
        self.of = np.array(numbers, dtype=np.intp)  # the kind of each host
        self._hosts: list[int] = np.bincount(self.of).tolist()  # how many are of each kind
        self._lines: list[Line] = [tuple(np.frombuffer(line, dtype=np.int64).tolist()) for line in found]
        self._numbers = {line: number for number, line in enumerate(self._lines)}
        self._unused: list[int] = []
        self._amounts: Amounts = np.empty(lines.shape)  # a row a kind, of which there are no more than hosts
        for number, line in enumerate(self._lines):
            self._amounts[number] = line
        # The most that one host has, by class.
        self.largest: Resources = dict(zip(classes, capacity.max(1).tolist() if hosts else (), strict=True))
        self._has_vast_room = any(amount > ROOM_MAX for amount in self.largest.values())

    def put(self, row: int, host: Host) -> None:
        """This is the host in this row from now on; its capacity is as before."""
        old, used = self.of.item(row), host.used
        known = self._lines[old][1 + len(self.classes) :]
        amounts = [0 if host.is_schedulable else -1]
        for k, name in enumerate(self.classes, 1):
            amounts.append(known[k] - used.get(name, 0) if known[k] else 0)
        if self._has_vast_room:
            amounts = [min(amount, ROOM_MAX) for amount in amounts]
        amounts += known
        line = tuple(amounts)
        number = self._numbers.get(line)
        if number == old:
            return
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

    def fitting(self, classes: list[int], amounts: list[int]) -> NDArray[np.bool_]:
        """The hosts that take workload and have room for so much of these classes."""
        room = self.amounts.take([0, *(1 + k for k in classes)], 1)
        found: NDArray[np.bool_] = (room >= np.array([0, *amounts], dtype=np.float64)).all(1).take(self.of)
        return found

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

    def _amounts_by_class(self, amounts: list[Resources]) -> NDArray[np.int64]:
        """One line a class, one element a host."""
        shape = (len(self.classes), len(amounts))
        return np.array([[a.get(name, 0) for a in amounts] for name in self.classes], dtype=np.int64).reshape(shape)
