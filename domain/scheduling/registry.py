"""Strategies and filters, found through entry points; the built-in ones register the same way.

A strategy has the signature of those in `strategies.py`. One with two more parameters, `asked` (a column, an amount a
class) and `demand` (a `Demand`: the shapes seen lately in the group), as in `fragmentation.py`, is given those too, and
its scores are made anew for all hosts whenever that demand changes.

A plug-in's filter has the signature of those in `filters.py` and runs after them, by name; the reason that it yields,
its own name as a rule, is what explanations give.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.scheduling.strategies import Scores

Strategy = Callable[..., Scores]
Filter = Callable[..., Iterator[tuple[str, NDArray[np.bool_]]]]

BUILT_IN_ORDER = ("place", "labels", "rules")


def _load(kind: str) -> dict[str, Any]:
    return {point.name: point.load() for point in sorted(entry_points(group=kind), key=lambda point: point.name)}


STRATEGIES: dict[str, Strategy] = _load("berth.strategies")


def reads_demand(strategy: Strategy) -> bool:
    return "demand" in signature(strategy).parameters


def filters() -> list[Filter]:
    """In the order in which they drop hosts, after the state and before the capacity, which are the index's own."""
    found = _load("berth.filters")
    names = [name for name in BUILT_IN_ORDER if name in found] + [n for n in found if n not in BUILT_IN_ORDER]
    return [found[name] for name in names]
