"""A site to measure on: hosts of one shape, a tenant below another, and requests of twenty shapes."""

from typing import Any

from domain.fleet import Fleet
from domain.group import GroupCreated
from domain.host import HostRegistered
from domain.quota import QuotaSet
from domain.rack import RackCreated
from domain.recorded import Recorded
from domain.tenant import TenantCreated

CAPACITY = {"cpu": 128, "memory_mib": 524_288, "storage_gib": 10_000}
SHAPES = [{"cpu": 1 + n % 5, "memory_mib": 2048 * (1 + n % 4), "storage_gib": 10 + n % 20} for n in range(20)]


def events(hosts: int, *, racks: int = 0) -> list[tuple[str, Any]]:
    """(stream, event) of the site, in order."""
    found: list[tuple[str, Any]] = [
        ("tenant/acme", TenantCreated("t1", "acme")),
        ("tenant/payments", TenantCreated("t2", "payments", "acme")),
        ("group/std", GroupCreated("g1", "std", "best_fit")),
        ("quota/std/acme", QuotaSet("q1", "std", "acme", {"cpu": 10**9}, {})),
        ("quota/std/payments", QuotaSet("q2", "std", "payments", {"cpu": 10**9}, {})),
    ]
    for n in range(racks):
        found.append((f"rack/r{n:04d}", RackCreated(f"u-r{n:04d}", f"r{n:04d}", "eu", f"dc-{n % 4}")))
    for n in range(hosts):
        name, rack = f"h{n:06d}", f"r{n % racks:04d}" if racks else None
        found.append((f"host/{name}", HostRegistered(f"u-{name}", name, "std", CAPACITY, rack)))
    return found


def a_fleet(hosts: int) -> Fleet:
    fleet = Fleet()
    for n, (stream, event) in enumerate(events(hosts), start=2):
        fleet.fold(Recorded(stream, n, n, n, "bench", "", event))
    return fleet


def a_vm(n: int) -> dict[str, Any]:
    return {"tenant": "payments", "name": f"vm-{n}", "group": "std", "resources": SHAPES[n % len(SHAPES)]}
