"""How hosts that fit are compared: each strategy gives a score per host, and the least wins.

A strategy is given, for each resource class of the group in a fixed order, what would stay free on each host after the
placement, and the usable capacity: int64 vectors, one element a host. Of a class that a host does not have, nothing is
free. Only elementwise float64 arithmetic in that fixed order, so that one host alone and a hundred thousand at once
give the same bits on any machine; a plug-in must keep to that, or replays differ.
"""

import numpy as np
from numpy.typing import NDArray

Amounts = NDArray[np.int64]
Scores = NDArray[np.float64]


def best_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Least room left: the mean, over the group's classes, of the part that stays free."""
    return _mean_free(free, capacity)


def worst_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Most room left: the negative of `best_fit`."""
    return -_mean_free(free, capacity)


def first_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """The first host by name: all scores are equal."""
    return np.zeros(len(free[0]))


def balanced(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Classes used in proportion: the variance of the used parts over the classes that the host has."""
    present = [(cap > 0).astype(np.float64) for cap in capacity]
    used = [there - part for there, part in zip(present, _free_parts(free, capacity), strict=True)]
    count = np.maximum(_sum(present), 1.0)
    mean = _sum(used) / count
    deviations = [(part - mean) * there for part, there in zip(used, present, strict=True)]
    return _sum([deviation * deviation for deviation in deviations]) / count


def _mean_free(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    return _sum(_free_parts(free, capacity)) / len(free)


def _free_parts(free: list[Amounts], capacity: list[Amounts]) -> list[Scores]:
    return [left / np.maximum(cap, 1) for left, cap in zip(free, capacity, strict=True)]


def _sum(vectors: list[Scores]) -> Scores:
    # Not np.sum: it adds pairwise, in an order that depends on the number of elements.
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total
