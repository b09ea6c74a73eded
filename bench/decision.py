"""One placement decision: choosing a host alone, among hosts that fill up, with twenty shapes in turn."""

import time

import numpy as np

from bench.row import Row
from bench.site import CAPACITY, SHAPES, a_fleet
from commands.groups import DEFAULT_STRATEGY
from domain.fleet import Fleet
from domain.host import HostClaimed
from domain.scheduling.place import place
from domain.scheduling.request import PlacementRequest
from domain.transaction import Transaction
from domain.vm import VmScheduled

TARGET_US = {100_000: 100.0}  # 25 for fewer


def measure(*, is_short: bool) -> list[Row]:
    rows: list[Row] = []
    for hosts in (100, 1_000) if is_short else (100, 1_000, 10_000, 100_000):
        decisions, target = 500 if is_short else min(5_000, hosts * 30), TARGET_US.get(hosts, 25.0)
        baseline = _scan_us(hosts, decisions=min(decisions, 10_000_000 // hosts))
        for strategy in ("best_fit", DEFAULT_STRATEGY):
            figure = decision_us(a_fleet(hosts), decisions=decisions, strategy=strategy)
            name = f"one decision by {strategy}, {hosts:,} hosts"
            rows.append(Row(name, figure, "µs", f"≤ {target:g} µs", figure <= target, baseline, figure / baseline))
    return rows


def _scan_us(hosts: int, *, decisions: int) -> float:
    """The baseline: numpy looks at all hosts for each request, by `best_fit`."""
    capacity = np.array([[amount] * hosts for amount in CAPACITY.values()], dtype=np.float64)
    free = capacity.copy()
    asked = [np.array([shape[name] for name in CAPACITY], dtype=np.float64) for shape in SHAPES]
    began = time.perf_counter()
    for n in range(decisions):
        after = free - asked[n % len(asked)][:, None]
        scores = np.where((after >= 0).all(0), (after / capacity).mean(0), np.inf)
        free[:, scores.argmin()] -= asked[n % len(asked)]
    return (time.perf_counter() - began) / decisions * 1e6


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
