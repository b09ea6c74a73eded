"""How hosts that fit are compared: each strategy gives a score per host, and the least wins.

A strategy is given, for each resource class of the group in a fixed order, what would stay free on each host after the
placement, and the usable capacity (both int64 vectors, one element a host). A class that a host does not have counts as
nothing free. Only elementwise arithmetic in that fixed order, so the same inputs give the same bits on any machine.
"""

import numpy as np
from numpy.typing import NDArray

Amounts = NDArray[np.int64]
Scores = NDArray[np.float64]


def best_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Least room left: the mean of what stays free, as a part of the capacity."""
    return _mean_free(free, capacity)


def worst_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Most room left."""
    return -_mean_free(free, capacity)


def first_fit(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """The first host by name."""
    return np.zeros(len(free[0]) if free else 0)


def balanced(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    """Classes used in proportion: the variance of the used parts over the classes that the host has."""
    fractions = [
        np.where(cap > 0, 1.0 - left / np.maximum(cap, 1), 0.0) for left, cap in zip(free, capacity, strict=True)
    ]
    present = [(cap > 0).astype(np.float64) for cap in capacity]
    count = np.maximum(_sum(present), 1.0)
    mean = _sum(fractions) / count
    deviations = [there * (used - mean) * (used - mean) for used, there in zip(fractions, present, strict=True)]
    return _sum(deviations) / count


def _mean_free(free: list[Amounts], capacity: list[Amounts]) -> Scores:
    return _sum([left / np.maximum(cap, 1) for left, cap in zip(free, capacity, strict=True)]) / len(free)


def _sum(vectors: list[Scores]) -> Scores:
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return total
