"""What a host and a running VM take in the engine's memory, as the process grows: in a process of its own each.

To a host belongs what the capacity index keeps of it: its line of the table, and its score for each of twenty shapes.
"""

import gc
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench import fold, site
from bench.row import Row
from bench.site import a_fleet
from commands.groups import DEFAULT_STRATEGY
from domain.fleet import Fleet
from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.operation import OperationStepSucceeded, OperationSucceeded
from domain.recorded import Recorded
from domain.scheduling.place import place
from domain.scheduling.request import PlacementRequest
from domain.vm import KIND as VM
from domain.vm import VmActivated, VmCreating
from eventlog.codec import decode, encode

TARGET_HOST_KIB, TARGET_VM_KIB = 2.0, 1.0
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def measure(*, is_short: bool) -> list[Row]:
    count = 2_000 if is_short else 50_000
    figures = []
    for grown in (host_kib, vm_kib):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            figures.append(process.submit(grown, count).result())
    named = zip(("host", "running VM"), figures, (TARGET_HOST_KIB, TARGET_VM_KIB), strict=True)
    return [
        Row(f"memory of a {what}", figure, "KiB", f"≤ {target:g} KiB", figure <= target)
        for what, figure, target in named
    ]


def host_kib(count: int) -> float:
    _place(a_fleet(100))  # what is imported and made once
    before = _resident_kib()
    fleet = Fleet()
    for n, (stream, event) in enumerate(site.events(count), start=2):
        # Through the codec, as the engine gets them: nothing is shared by two events that would not be.
        fleet.fold(decode(encode(Recorded(stream, n, n, n, "bench", "c", event))))
    _place(fleet)
    after = _resident_kib()
    assert len(fleet.streams(HOST, group="std")) == count
    return (after - before) / count


def _place(fleet: Fleet) -> None:
    for shape in site.SHAPES:
        place(fleet.capacity, PlacementRequest("payments", shape), group="std", strategy=DEFAULT_STRATEGY, members={})


def vm_kib(count: int) -> float:
    """Created and active, its operation over: what stays for as long as it runs."""
    fleet = a_fleet(1_000)
    before = _resident_kib()
    base = fleet.position
    for n in range(count):
        for recorded in (*fold.events(base, n), *ended(n)):
            fleet.fold(decode(encode(recorded)))
    after = _resident_kib()
    assert len(fleet.streams(VM, tenant="payments")) == count
    assert not fleet.streams(OPERATION)
    return (after - before) / count


def ended(n: int) -> list[Recorded]:
    """What a controller's reports make of a provisioning: the VM is active, its operation over."""
    operation, vm = f"operation/op-{n}", f"vm/payments/vm-{n}"
    position = 10**9 + n
    events = (
        (vm, VmCreating()),
        (operation, OperationStepSucceeded("vm.create", 1)),
        (operation, OperationSucceeded()),
        (vm, VmActivated((f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",))),
    )
    return [Recorded(stream, position, position, position, "vm", "c", event) for stream, event in events]


def _resident_kib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB
