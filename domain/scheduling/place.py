"""Choosing a host in one group: the fast way by shape alone, or with the conditions of the request on top."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from domain.scheduling import explain
from domain.scheduling.filters import PLACES
from domain.scheduling.index import CapacityIndex
from domain.scheduling.registry import BUILT_IN_ORDER, filters
from domain.scheduling.request import PlacementRequest
from domain.scheduling.shape_scores import STATE, ShapeScores
from domain.scheduling.table import HostTable, Mask
from domain.vm import Vm

FILTERS = filters()
PLUG_INS = FILTERS[len(BUILT_IN_ORDER) :]  # what is asked of a request without conditions


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

    `members`: for each set that the request's rules name, the VMs of the tenant that are in it now, the one to be
    placed left out.

    Raises:
        NoCapacity: none passes; without alternatives, which only the caller can know.
    """
    table = index.table(group)
    found = table.shape_scores(request.resources, strategy)
    dropped = _dropped(request, table, members)
    if dropped:
        kept, reasons = _filtered(found, dropped)
        best = _best(np.where(kept, found.scores[: len(kept)], np.inf))
    else:
        reasons = {found.reason(code): hosts for code, hosts in enumerate(found.counts[: found.fits]) if hosts}
        best = found.best()
    if not best:
        passing = found.codes != STATE
        for _, gone in dropped:
            passing &= ~gone
        raise explain.no_capacity(table, passing, group=group, resources=request.resources, reasons=reasons)
    (row, score), *others = best
    return Placement(
        group,
        table.names[row],
        {
            "strategy": strategy,
            "group": group,
            "considered": len(table.names),
            "reasons": explain.counted(reasons),
            "score": score,
            "runner_up": {"host": table.names[others[0][0]], "score": others[0][1]} if others else None,
        },
    )


def fitting_hosts(
    index: CapacityIndex, request: PlacementRequest, *, group: str, members: Mapping[str, Sequence[Vm]]
) -> int:
    """How many hosts of the group would take it now. Cheap where none does, as is asked for many groups at once."""
    table = index.table(group)
    policy = index.groups.get(group)
    # Whether it fits is the same under every strategy; the group's own is the one whose scores are likely kept.
    hosts, fits = table.fitting(request.resources, policy.strategy if policy is not None else "")
    if not hosts or not _has_places(request, table):
        return 0
    dropped = _dropped(request, table, members)
    if not dropped:
        return hosts
    kept = fits()
    for _, gone in dropped:
        kept = kept & ~gone
    return int(kept.sum())


def _has_places(request: PlacementRequest, table: HostTable) -> bool:
    """Does each place that the request names hold a host of the group?"""
    where = request.where
    return where is None or all(
        table.has(level, name) for level in PLACES if (name := getattr(where, level)) is not None
    )


def load_after(index: CapacityIndex, request: PlacementRequest, *, group: str) -> float:
    """The load of the group with the request placed there: the largest used ÷ (used + available) over its classes.

    1.0 for a class of which the group has nothing.
    """
    used, free = index.table(group).totals().sums()
    loads = [0.0]
    for name, amount in request.resources.items():
        total = used.get(name, 0) + free.get(name, 0)
        loads.append((used.get(name, 0) + amount) / total if total else 1.0)
    return max(loads)


def _dropped(
    request: PlacementRequest, table: HostTable, members: Mapping[str, Sequence[Vm]]
) -> list[tuple[str, Mask]]:
    conditions = PLUG_INS if request.where is None and not request.rules else FILTERS
    return [found for condition in conditions for found in condition(request, table, members)]


def _filtered(found: ShapeScores, dropped: list[tuple[str, Mask]]) -> tuple[Mask, dict[str, int]]:
    """The hosts that pass everything, and how many each reason was the first to drop, in the filters' order."""
    codes = found.codes
    alive = codes != STATE
    reasons = {"state": len(codes) - int(alive.sum())}
    for reason, gone in dropped:
        reasons[reason] = reasons.get(reason, 0) + int((alive & gone).sum())
        alive &= ~gone
    for code, hosts in enumerate(np.bincount(codes[alive], minlength=found.fits).tolist()[: found.fits]):
        if hosts:
            reasons[found.reason(code)] = hosts
    return alive & (codes == found.fits), {reason: hosts for reason, hosts in reasons.items() if hosts}


def _best(scores: NDArray[np.float64]) -> list[tuple[int, float]]:
    """As `ShapeScores.best`, of scores that may be changed."""
    found = []
    for _ in range(2):
        row = int(scores.argmin()) if len(scores) else -1
        if row < 0 or (score := scores.item(row)) == np.inf:
            break
        found.append((row, score))
        scores[row] = np.inf
    return found
