"""Classes of identical hosts: those with the same capacity and the same room, that do or do not take workload. A group
of many hosts has few of them (all its empty hosts of one model are one), so scores are computed once a class and handed
to each host by one `take`.
"""

import numpy as np
from numpy.typing import NDArray

from domain.host import Host
from domain.values import Overcommit, Resources, usable

# Whole numbers, as the float64 that scores are computed in: exact up to 2^53. No request is larger, so more room than
# that is cut to it.
Amounts = NDArray[np.float64]
ROOM_MAX = 2**53

# What defines a host class, as amounts:
#     −1 if its hosts take no new workload, else 0; the room of each resource class; −1; the capacity of each class.
# The position of the first amount below zero, after a request is subtracted, is why a host is dropped (`shape_scores`);
# the −1 after the rooms stops the search at hosts that fit. A resource class without capacity has no room either, even
# where what runs exceeds it: strategies may rely on that.
HostClass = tuple[int, ...]


class HostClasses:
    """Each host maps to a class number; the numbers of empty classes are reused."""

    def __init__(self, classes: list[str], hosts: list[Host], overcommit: Overcommit) -> None:
        self.classes = classes
        capacity = self._amounts_by_class([usable(host.capacity, overcommit) for host in hosts])
        used = self._amounts_by_class([host.used for host in hosts])
        room = np.where(capacity > 0, np.clip(capacity - used, -ROOM_MAX, ROOM_MAX), 0)
        takes_workload = [0 if host.is_schedulable else -1 for host in hosts]
        amounts = np.vstack((takes_workload, room, np.full(len(hosts), -1), capacity)).T.copy()
        found: dict[bytes, int] = {}  # keyed by bytes, 100,000 hosts take half the time that tuples would
        packed, size = amounts.tobytes(), amounts[:1].nbytes
        numbers = [found.setdefault(packed[at : at + size], len(found)) for at in range(0, len(packed), size or 1)]
        self.of = np.array(numbers, dtype=np.intp)  # the class number of each host
        self._sizes: list[int] = np.bincount(self.of).tolist()  # how many hosts each class has
        self._classes: list[HostClass] = [tuple(np.frombuffer(one, dtype=np.int64).tolist()) for one in found]
        self._numbers = {one: number for number, one in enumerate(self._classes)}
        self._unused: list[int] = []  # numbers of empty classes
        self._amounts: Amounts = np.empty(amounts.shape)  # a row a class; there are never more classes than hosts
        for number, one in enumerate(self._classes):
            self._amounts[number] = one
        # The most that one host has, by class.
        self.largest: Resources = dict(zip(classes, capacity.max(1).tolist() if hosts else (), strict=True))
        self._has_vast_room = any(amount > ROOM_MAX for amount in self.largest.values())

    def put(self, row: int, host: Host) -> None:
        """Replace the host in this row; its capacity must be as before."""
        old, used = self.of.item(row), host.used
        capacity = self._classes[old][2 + len(self.classes) :]
        amounts = [0 if host.is_schedulable else -1]
        for name, amount in zip(self.classes, capacity, strict=True):
            amounts.append(amount - used.get(name, 0) if amount else 0)
        if self._has_vast_room:
            amounts = [min(amount, ROOM_MAX) for amount in amounts]
        new = (*amounts, -1, *capacity)
        number = self._numbers.get(new)
        if number == old:
            return
        self._sizes[old] -= 1
        if not self._sizes[old]:
            del self._numbers[self._classes[old]]
            self._unused.append(old)
        if number is None:
            number = self._add(new)
        self._sizes[number] += 1
        self.of[row] = number

    @property
    def amounts(self) -> Amounts:
        """A row a class number; ignore those that `of` does not hold."""
        return self._amounts[: len(self._classes)]

    def amounts_of(self, rows: list[int] | NDArray[np.intp]) -> Amounts:
        """A row a host."""
        return self._amounts.take(self.of.take(rows), 0)

    def fitting(self, classes: list[int], amounts: list[int]) -> NDArray[np.bool_]:
        """The hosts that take workload and have room for these amounts of these resource classes (by index)."""
        room = self.amounts.take([0, *(1 + k for k in classes)], 1)
        found: NDArray[np.bool_] = (room >= np.array([0, *amounts], dtype=np.float64)).all(1).take(self.of)
        return found

    def first_of_each(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """The first host of each class among `rows`; `rows` must ascend, and the result does."""
        first = np.full(len(self._classes), -1)
        first[self.of[rows[::-1]]] = rows[::-1]  # of several assignments to one element numpy keeps the last
        chosen = np.zeros(len(self.of), dtype=np.bool_)  # a mask ascends by itself: a tenth of the time of sorting
        chosen[first[first >= 0]] = True
        return np.flatnonzero(chosen)

    def counts(self, codes: NDArray[np.int16], length: int) -> list[int]:
        """How many hosts have each code below `length`, given the code of each class."""
        counts: list[int] = np.bincount(codes, self._sizes, length).astype(np.int64).tolist()
        return counts

    def _add(self, new: HostClass) -> int:
        if self._unused:
            number = self._unused.pop()
            self._classes[number] = new
        else:
            number = len(self._classes)
            self._classes.append(new)
            self._sizes.append(0)
        self._numbers[new] = number
        self._amounts[number] = new
        return number

    def _amounts_by_class(self, amounts: list[Resources]) -> NDArray[np.int64]:
        """A row a resource class, a column a host."""
        shape = (len(self.classes), len(amounts))
        return np.array([[a.get(name, 0) for a in amounts] for name in self.classes], dtype=np.int64).reshape(shape)
