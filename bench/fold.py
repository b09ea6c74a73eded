"""Folding the log: decoding rows and evolving the fleet, for the events of provisionings."""

import gc
import statistics
import time

from bench.row import Row
from bench.site import SHAPES, a_fleet, a_vm
from domain.command import CommandAccepted
from domain.host import HostClaimed
from domain.operation import OperationStarted, Step
from domain.quota import QuotaConsumed
from domain.recorded import Recorded
from domain.vm import VmScheduled
from eventlog.codec import decode, encode

EVENTS_A_PROVISIONING = 6


def measure(*, is_short: bool) -> list[Row]:
    """Medians of passes in turn: the first, while the process is young, is often a third slower."""
    provisionings, passes = (1_000, 1) if is_short else (40_000, 3)
    base = a_fleet(1_000).position
    rows = [encode(recorded) for n in range(provisionings) for recorded in events(base, n)]
    decoded_s, folded_s = [], []
    for _ in range(passes):
        fleet = a_fleet(1_000)
        gc.collect()
        gc.freeze()
        began = time.perf_counter()
        for row in rows:
            decode(row)
        decoded_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        for row in rows:
            fleet.fold(decode(row))
        folded_s.append(time.perf_counter() - began)
        gc.unfreeze()
    figure, baseline = (len(rows) / statistics.median(each) for each in (folded_s, decoded_s))
    return [Row("fold", figure, "events/s", "≥ 400,000/s", figure >= 400_000, baseline, figure / baseline)]


def events(base: int, n: int, *, hosts: int = 1_000) -> list[Recorded]:
    """Those of one provisioning, as the writer records them."""
    name, host = f"vm-{n}", f"h{(n + n // hosts) % hosts:06d}"  # another shape each time round
    stream, shape, operation = f"vm/payments/{name}", SHAPES[n % len(SHAPES)], f"op-{n}"
    steps = (Step("vm.create", compensation="vm.delete"),)
    counted = {**shape, "vms": 1}
    told = {"strategy": "best_fit", "group": "std", "considered": 1000, "reasons": [], "score": 0.5, "runner_up": None}
    made = [
        (stream, VmScheduled(f"u-{n}", "payments", name, "std", host, shape, operation, told)),
        (f"host/{host}", HostClaimed(stream, shape)),
        ("quota/std/payments", QuotaConsumed(stream, counted)),
        ("quota/std/acme", QuotaConsumed(stream, counted)),
        (f"operation/{operation}", OperationStarted("vm.provision", stream, steps, {"uid": f"u-{n}"}, n)),
        (f"command/bench/c-{n}", CommandAccepted(f"c-{n}", "vm.provision", "admin", a_vm(n), stream, operation, True)),
    ]
    first = base + 1 + n * EVENTS_A_PROVISIONING
    return [
        Recorded(s, 1 if s.startswith("command/") else first + k, first + k, n + 10**6, "bench", f"c-{n}", event)
        for k, (s, event) in enumerate(made)
    ]
