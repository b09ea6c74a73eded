"""One placement decision: choosing a host alone, among hosts that fill up, with twenty shapes in turn."""

import time

from bench.row import Row
from bench.site import SHAPES, a_fleet
from commands.groups import DEFAULT_STRATEGY
from domain.fleet import Fleet, Transaction
from domain.host import HostClaimed
from domain.scheduling.place import PlacementRequest, place
from domain.vm import VmScheduled

TARGET_US = {100_000: 100.0}  # 25 for fewer


def measure(*, is_short: bool) -> list[Row]:
    rows: list[Row] = []
    best_fit: dict[int, float] = {}
    for hosts in (100, 1_000) if is_short else (100, 1_000, 10_000, 100_000):
        best_fit[hosts] = decision_us(a_fleet(hosts), decisions=500 if is_short else min(5_000, hosts * 30))
        rows.append(_row("one decision", hosts, best_fit[hosts]))
    for hosts in (1_000,) if is_short else (10_000, 100_000):
        decisions = 500 if is_short else 5_000
        figure = decision_us(a_fleet(hosts), decisions=decisions, strategy=DEFAULT_STRATEGY)
        rows.append(_row(f"one decision by {DEFAULT_STRATEGY}", hosts, figure, best_fit[hosts]))
    return rows


def _row(name: str, hosts: int, figure: float, baseline: float | None = None) -> Row:
    target = TARGET_US.get(hosts, 25.0)
    ratio = figure / baseline if baseline else None
    return Row(f"{name}, {hosts:,} hosts", figure, "µs", f"≤ {target:g} µs", figure <= target, baseline, ratio)


def decision_us(fleet: Fleet, *, decisions: int, strategy: str = "best_fit") -> float:
    """The time of `place` alone; what follows it is not counted, but what that changes is."""
    tx = Transaction(fleet)
    requests = [PlacementRequest("payments", shape) for shape in SHAPES]
    spent = 0.0
    for n in range(decisions + len(SHAPES)):
        request = requests[n % len(requests)]
        began = time.perf_counter()
        chosen = place(fleet.capacity, request, group="std", strategy=strategy, members={})
        if n >= len(SHAPES):
            spent += time.perf_counter() - began
        name = f"decided-{n}"
        tx.record(
            f"vm/payments/{name}",
            VmScheduled("u", "payments", name, "std", chosen.host, request.resources, "o", chosen.explanation),
        )
        tx.record(f"host/{chosen.host}", HostClaimed(f"vm/payments/{name}", request.resources))
    return spent / decisions * 1e6
