"""What placement is measured against: the volume bound, chance, and scores from the literature that Berth leaves out.

A score here has the form of a strategy (domain/scheduling/strategies.py) and is found as a plug-in's would be.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cli.replay.stage import total_capacity
from cli.replay.trace import Request, Trace
from domain.scheduling.demand import Demand
from domain.scheduling.index import CapacityIndex
from domain.scheduling.strategies import Lines, Scores

SEED = 1
RANDOM = "random"

Line = NDArray[np.float64]


class Bound(NamedTuple):
    """What no packing can exceed. `at_first_refusal`: of each class; None if the volume never forces a refusal."""

    placed: int
    refused: int
    at_first_refusal: dict[str, float] | None
    empty_hosts: int


def scores(index: CapacityIndex, group: str) -> dict[str, Callable[..., Scores]]:
    """By name; `random` must be asked for all hosts at every decision, as nothing tells it that it is out of date."""
    chance = np.random.default_rng(SEED)
    return {
        RANDOM: lambda free, capacity: chance.random(len(free[0])),
        "dot_product": dot_product,
        "smallest_leftover": smallest_leftover,
        "fgd": Fgd(index, group),
    }


def dot_product(free: Lines, capacity: Lines, asked: Line, demand: Demand) -> Scores:
    """Alignment: what is asked · what is free, as parts of the host (Tetris: Grandl et al., SIGCOMM 2014)."""
    whole = np.maximum(capacity, 1.0)
    return -_sum((asked / whole) * ((np.asarray(free) + asked) / whole))


def smallest_leftover(free: Lines, capacity: Lines) -> Scores:
    """The least largest part left over: the ∞-norm among the norms of Panigrahy et al., "Heuristics for Vector Bin
    Packing", 2011."""
    return np.max(np.asarray(free) / np.maximum(capacity, 1.0), axis=0)


class Fgd:
    """The gradient as Weng et al., ATC 2023, state it, over all classes: what is free is a fragment for a shape if that
    does not fit, else only the classes that it does not ask for; shapes weigh by how often they are asked for."""

    def __init__(self, index: CapacityIndex, group: str) -> None:
        self._index = index
        self._group = group
        self._seen: Demand | None = None

    def __call__(self, free: Lines, capacity: Lines, asked: Line, demand: Demand) -> Scores:
        if demand is not self._seen:  # the counts of then, until all scores are made anew
            self._seen = demand
            table = self._index.table(self._group)
            counts = self._index.shape_counts(self._group)
            self._counts = np.array(list(counts.values()), dtype=np.float64)
            shapes = [[dict(shape).get(name, 0) for shape in counts] for name in table.classes]
            self._shapes = np.array(shapes, dtype=np.float64)[:, :, None]
            largest = table.host_classes.largest
            self._whole = np.array([largest[name] for name in table.classes], dtype=np.float64)[:, None]
        after = np.asarray(free, dtype=np.float64)
        return self._fragments(after) - self._fragments(after + asked)

    def _fragments(self, free: Line) -> Scores:
        fits = np.ones((len(self._counts), free.shape[1]))
        for line, amounts in zip(free, self._shapes, strict=True):
            fits *= line >= amounts
        # Per class, those to whom what is free of it is of no use. Whole numbers: exact in any order.
        useless = [self._counts.sum() - (self._counts * (amounts[:, 0] > 0)) @ fits for amounts in self._shapes]
        return _sum(np.array(useless) * np.maximum(free, 0.0) / np.maximum(self._whole, 1.0))


def _sum(lines: Line) -> Scores:
    total: Scores = lines[0]
    for line in lines[1:]:
        total = total + line
    return total


def volume_bound(trace: Trace) -> Bound:
    """Rules left aside, and the hosts taken as one: any packing keeps within it.

    Of the VMs that want to run at a time, no more can run than fit by volume if in each class the smallest are taken
    first; so at least the others are refused, at whatever time they are most. A refusal is forced when all that want
    to run no longer fit; until then hosts are at most as full as with all of them. Of hosts, as many are in use as it
    takes of the largest, in the class that takes most.
    """
    capacity = total_capacity(trace)
    wanted: dict[str, Request] = {}
    used = dict.fromkeys(capacity, 0)
    fullest = dict.fromkeys(capacity, 0)  # of any moment at which a request comes, until one can't be placed
    refused, is_refused, peak, empty = 0, False, 0, len(trace.machines)
    for n, request in enumerate(trace.requests):
        if request.action == "create":
            wanted[request.vm] = request
            if not is_refused:
                fullest = {name: max(amount, used[name]) for name, amount in fullest.items()}
            for name, amount in request.resources.items():
                used[name] = used.get(name, 0) + amount
            is_refused = is_refused or any(amount > capacity.get(name, 0) for name, amount in used.items())
        elif (gone := wanted.pop(request.vm, None)) is not None:
            for name, amount in gone.resources.items():
                used[name] -= amount
        if len(wanted) > peak:
            peak, empty = len(wanted), _empty_hosts(trace, used)
        # Until the next deletion the excess only grows.
        if n + 1 == len(trace.requests) or trace.requests[n + 1].action == "delete":
            refused = max(refused, _excess(wanted.values(), used, capacity))
    creations = sum(request.action == "create" for request in trace.requests)
    first = {name: fullest[name] / total for name, total in capacity.items()}
    return Bound(creations - refused, refused, first if is_refused else None, empty)


def _excess(wanted: Collection[Request], used: Mapping[str, int], capacity: Mapping[str, int]) -> int:
    """How many of the largest must go until the rest fits, in the class where that is most."""
    most = 0
    for name, amount in used.items():
        over, gone = amount - capacity.get(name, 0), 0
        if over > 0:
            for size in sorted((request.resources.get(name, 0) for request in wanted), reverse=True):
                if over <= 0:
                    break
                over -= size
                gone += 1
        most = max(most, gone)
    return most


def _empty_hosts(trace: Trace, used: Mapping[str, int]) -> int:
    needed = 0
    for name, amount in used.items():
        left, hosts = amount, 0
        for size in sorted((machine.capacity.get(name, 0) for machine in trace.machines), reverse=True):
            if left <= 0:
                break
            left -= size
            hosts += 1
        needed = max(needed, hosts)
    return len(trace.machines) - needed
