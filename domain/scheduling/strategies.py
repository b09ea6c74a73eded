"""How hosts that fit are compared: each strategy gives a score per host, and the least wins.

A strategy is given what would stay free on each host after the placement, and the usable capacity: a line (a vector,
one element a host) for each resource class of the group, in a fixed order. Of a class that a host does not have,
nothing is free. Only elementwise float64 arithmetic in that fixed order, so that one host alone and a hundred thousand
at once give the same bits on any machine; a plug-in must keep to that, or replays differ. (Sums of whole numbers below
2^53 are exact in any order.) Hosts that don't fit are scored too, and what comes of it is not looked at.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
# As a list of lines or as one matrix, which goes through numpy's machinery once instead of once a class.
Lines = Sequence[NDArray[np.float64]] | NDArray[np.float64]

ONE = np.ones(())  # half the price of Python's 1.0 where hosts are few


def best_fit(free: Lines, capacity: Lines) -> Scores:
    """Least room left: the mean, over the group's classes, of the part that stays free."""
    return _sum(_parts(free, capacity)) / len(free)


def worst_fit(free: Lines, capacity: Lines) -> Scores:
    """Most room left: the negative of `best_fit`."""
    return -best_fit(free, capacity)


def first_fit(free: Lines, capacity: Lines) -> Scores:
    """The first host by name: all scores are equal."""
    return np.zeros(len(free[0]))


def balanced(free: Lines, capacity: Lines) -> Scores:
    """Classes used in proportion: the variance of the used parts over the classes that the host has."""
    present = (np.asarray(capacity) > 0).astype(np.float64)
    used = present - _parts(free, capacity)
    count = np.maximum(_sum(present), 1.0)
    deviation = (used - _sum(used) / count) * present
    return _sum(deviation * deviation) / count


def _parts(free: Lines, capacity: Lines) -> Scores:
    parts: Scores = np.divide(free, np.maximum(capacity, ONE))
    return parts


def _sum(lines: Scores) -> Scores:
    # Not np.sum: it may add pairwise, in an order that depends on the number of elements.
    total: Scores = np.add.accumulate(lines, 0)[-1]
    return total
