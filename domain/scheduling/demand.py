"""What a group is asked for: the shapes of the VMs that were placed in it and live, each with a weight.

A function of the VMs as they stand, so a replay, a checkpoint and an undone command all leave the same. Weights count
VMs by the digits of their number: they rarely change, and with them every score that they enter.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from domain.scheduling.host_classes import Amounts
from domain.vm import Vm

SHAPES_MAX = 256
COPIES_MAX = 2**20  # of one shape on one host: beyond that, one more or less makes no difference
SIZE_MAX = 1000  # the size of a shape that fills the largest host

Shape = tuple[tuple[str, int], ...]  # (class, amount), by class
ZERO = np.zeros(())


class ShapeCounts:
    """How many VMs of each shape hold a place, by the group in which they were placed."""

    def __init__(self) -> None:
        self._by_group: dict[str, dict[Shape, int]] = {}

    def of(self, group: str) -> Mapping[Shape, int]:
        return self._by_group.get(group, {})

    def vm_changed(self, old: Vm | None, new: Vm | None) -> list[str]:
        """The groups whose demand this changes."""
        before = old is not None and old.host is not None
        after = new is not None and new.host is not None
        if before and after and old is not None and new is not None and old.resources is new.resources:
            return []
        changed = []
        if before and old is not None and self._add(old, -1):
            changed.append(old.group)
        if after and new is not None and self._add(new, 1):
            changed.append(new.group)
        return changed

    def _add(self, vm: Vm, more: int) -> bool:
        counts = self._by_group.get(vm.group)
        if counts is None:
            counts = self._by_group[vm.group] = {}
        shape = _by_class(tuple(vm.resources.items()))
        was = counts.get(shape, 0)
        if was + more:
            counts[shape] = was + more
        else:
            del counts[shape]
            if not counts:
                del self._by_group[vm.group]
        return _digits(was) != _digits(was + more)


@lru_cache(maxsize=4096)
def _by_class(shape: Shape) -> Shape:
    # Few shapes, many VMs: sorted anew for each, it was a tenth of the fold.
    return tuple(sorted(shape))


class Demand:
    """The shapes that some host of a group could take, and what hosts are worth to them.

    The weight of a shape is its size (the largest part, in thousandths, that it takes of any class of the largest
    host) times the number of base-4 digits of its count: what is asked often counts more, but the few large ones keep
    their room. Of more than `SHAPES_MAX`, those of least weight are left out.
    """

    def __init__(self, counts: Mapping[Shape, int], largest: Mapping[str, int]) -> None:
        """`largest`: of each class, the most that one host of the group has."""
        weighed = []
        for shape, count in counts.items():
            if all(amount <= largest.get(name, 0) for name, amount in shape):
                size = max(-(-SIZE_MAX * amount // largest[name]) for name, amount in shape)
                weighed.append((size * _digits(count), shape))
        self.weighed = sorted(weighed, key=lambda one: (-one[0], one[1]))[:SHAPES_MAX]
        self._weights = np.array([weight for weight, _ in self.weighed], dtype=np.float64)
        # By class, then shape; NaN where a shape does not ask for a class, which then limits nothing.
        amounts = [[dict(shape).get(name, np.nan) for _, shape in self.weighed] for name in largest]
        self._amounts = np.array(amounts, dtype=np.float64).reshape(len(largest), len(self.weighed), 1)

    def worth(self, free: Amounts) -> Amounts:
        """Per host Σ weight × how many of that shape its free amounts would take; `free` has a row a class.

        All are whole numbers below 2^53, so the sum is exact in whatever order it is added.
        """
        parts = np.maximum(free, ZERO)[:, None] / self._amounts
        copies: Amounts = np.fmin.reduce(parts, 0, initial=COPIES_MAX)
        np.floor(copies, copies)
        worth: Amounts = self._weights.dot(copies)
        return worth


def _digits(count: int) -> int:
    """In base 4; none for 0."""
    return (count.bit_length() + 1) // 2
