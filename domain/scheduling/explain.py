"""Why nothing fits: reasons with counts, the host that lacks least, and the largest request of that shape that would
fit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import NoCapacity
from domain.scheduling.index import HostTable, Shape
from domain.values import Resources


def counted(reasons: dict[str, int]) -> list[dict[str, Any]]:
    return [{"reason": reason, "hosts": hosts} for reason, hosts in reasons.items()]


def no_capacity(
    table: HostTable,
    shape: Shape,
    passing: NDArray[np.bool_],
    *,
    group: str,
    resources: Resources,
    reasons: dict[str, int],
) -> NoCapacity:
    """The refusal; `passing` are the hosts that only the capacity dropped."""
    rows = np.flatnonzero(passing)
    free = {name: _free(table, name, rows) for name in resources}
    return NoCapacity(
        group,
        resources,
        len(table.names),
        counted(reasons),
        _nearest(table, rows, free, resources) if len(rows) else None,
        _largest_fit(free, resources) if len(rows) else None,
        [],
    )


def _free(table: HostTable, name: str, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    k = table.class_index.get(name)
    if k is None:
        return np.zeros(len(rows), dtype=np.int64)
    return np.maximum(table.capacity[k][rows] - table.used[k][rows], 0)


def _nearest(
    table: HostTable, rows: NDArray[np.intp], free: dict[str, NDArray[np.int64]], resources: Resources
) -> dict[str, Any]:
    lack = np.zeros(len(rows))
    for name, amount in resources.items():
        lack = lack + np.maximum(amount - free[name], 0) / amount
    best = int(lack.argmin())
    short = {name: amount - int(free[name][best]) for name, amount in resources.items() if free[name][best] < amount}
    return {"host": table.names[int(rows[best])], "short": short}


def _largest_fit(free: dict[str, NDArray[np.int64]], resources: Resources) -> Resources | None:
    """Exact in integers: per host the limiting class k bounds every amount to floor(amount × free_k ÷ amount_k).

    An amount that comes to 0 is told as 1: all classes have something free there, so that still fits.
    """
    part = np.min([free[name] / amount for name, amount in resources.items()], axis=0)
    best = int(part.argmax())
    if part[best] <= 0:
        return None
    room = {name: int(free[name][best]) for name in resources}
    limiting = min(resources, key=lambda name: room[name] / resources[name])
    top, bottom = room[limiting], resources[limiting]
    return {name: max(1, min(room[name], amount * top // bottom)) for name, amount in resources.items()}
