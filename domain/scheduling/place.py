"""Choosing a host in one group: the fast way by shape alone, or with the conditions of the request on top."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.scheduling import explain
from domain.scheduling.index import FITS, STATE, CapacityIndex, HostTable, Shape
from domain.scheduling.registry import filters
from domain.values import Resources
from domain.vm import Rule, Vm, Where

FILTERS = filters()


class PlacementRequest(msgspec.Struct, frozen=True):
    """`resources` without zero amounts."""

    tenant: str
    resources: Resources
    where: Where | None = None
    rules: tuple[Rule, ...] = ()


class Placement(msgspec.Struct, frozen=True):
    """`explanation` is JSON: strategy, hosts considered, hosts dropped by reason, the score and the runner-up."""

    group: str
    host: str
    explanation: dict[str, Any]


def place(
    index: CapacityIndex,
    request: PlacementRequest,
    *,
    group: str,
    strategy: str,
    members: Mapping[str, Sequence[Vm]],
) -> Placement:
    """The least (score, host name) among the hosts of `group` that pass every filter.

    Raises:
        NoCapacity: none passes; without alternatives, which only the caller can know.
    """
    table = index.table(group)
    shape = table.shape(request.resources, strategy)
    dropped = _dropped(request, table, members)
    if not dropped:
        row = shape.best()
        reasons = {shape.reason(code): count for code, count in enumerate(shape.counts) if code != FITS and count}
        second = shape.best(but=row) if row >= 0 else -1
    else:
        kept, reasons = _filtered(shape, dropped)
        scores = np.where(kept, shape.scores[: len(kept)], np.inf)
        row = _least(scores)
        if row >= 0:
            scores[row] = np.inf
        second = _least(scores)
    if row < 0:
        passing = _passing(table, dropped)
        raise explain.no_capacity(table, shape, passing, group=group, resources=request.resources, reasons=reasons)
    return Placement(
        group,
        table.names[row],
        {
            "strategy": strategy,
            "group": group,
            "considered": len(table.names),
            "reasons": explain.counted(reasons),
            "score": float(shape.scores[row]),
            "runner_up": {"host": table.names[second], "score": float(shape.scores[second])} if second >= 0 else None,
        },
    )


def fitting_hosts(
    index: CapacityIndex, request: PlacementRequest, *, group: str, members: Mapping[str, Sequence[Vm]]
) -> int:
    """How many hosts of the group would take it now."""
    table = index.table(group)
    shape = table.shape(request.resources, "first_fit")
    dropped = _dropped(request, table, members)
    if not dropped:
        return shape.counts[FITS]
    kept, _ = _filtered(shape, dropped)
    return int(kept.sum())


def load_after(index: CapacityIndex, request: PlacementRequest, *, group: str) -> float:
    """The load of the group with the request placed there: the largest used ÷ (used + available) over its classes."""
    used, free = index.totals(group)
    loads = [0.0]
    for name, amount in request.resources.items():
        total = used.get(name, 0) + free.get(name, 0)
        loads.append((used.get(name, 0) + amount) / total if total else 1.0)
    return max(loads)


def _dropped(
    request: PlacementRequest, table: HostTable, members: Mapping[str, Sequence[Vm]]
) -> list[tuple[str, NDArray[np.bool_]]]:
    return [found for filter in FILTERS for found in filter(request, table, members)]


def _filtered(shape: Shape, dropped: list[tuple[str, NDArray[np.bool_]]]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """The hosts that pass everything, and how many the first filter to drop them dropped."""
    codes = shape.codes
    alive = codes != STATE
    reasons = {"state": int((~alive).sum())}
    for reason, gone in dropped:
        reasons[reason] = reasons.get(reason, 0) + int((alive & gone).sum())
        alive &= ~gone
    for code, count in enumerate(np.bincount(codes[alive]).tolist()):
        if code != FITS and count:
            reasons[shape.reason(code)] = count
    return alive & (codes == FITS), {reason: count for reason, count in reasons.items() if count}


def _passing(table: HostTable, dropped: list[tuple[str, NDArray[np.bool_]]]) -> NDArray[np.bool_]:
    """The hosts that pass every filter but the capacity's."""
    passing = table.schedulable.copy()
    for _, gone in dropped:
        passing &= ~gone
    return passing


def _least(scores: NDArray[np.float64]) -> int:
    if not len(scores):
        return -1
    row = int(scores.argmin())
    return row if scores[row] != np.inf else -1
