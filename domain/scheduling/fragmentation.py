"""Placing where it fragments least, after Weng et al., "Beware of Fragmentation", USENIX ATC 2023.

Their score is the gradient of the expected fragmentation: how much more of a host's free resources the shapes that are
usually asked for can't use, with the newcomer there than without. Three things differ here. A fragment is what is left
over beside as many *copies* of a shape as fit, where theirs is all or nothing; what is free shrinks by the same
everywhere, so what remains of the gradient is the copies that are lost. It is over every class, not GPUs alone. And
shapes weigh by their size and, in steps, by the logarithm of their count (demand.py): weighed by count, as theirs, the
rare large request finds its room taken. docs/placement.md has what that brings.
"""

import numpy as np
from numpy.typing import NDArray

from domain.scheduling.demand import Demand
from domain.scheduling.strategies import Lines, Scores, best_fit


def least_fragmentation(free: Lines, capacity: Lines, asked: NDArray[np.float64], demand: Demand) -> Scores:
    """The worth of what the newcomer takes, in copies of the shapes seen lately; among equals, best fit."""
    after = np.asarray(free, dtype=np.float64)
    worth = demand.worth(np.concatenate((after + asked, after), 1))
    lost = worth[: after.shape[1]] - worth[after.shape[1] :]
    return lost + best_fit(free, capacity)
