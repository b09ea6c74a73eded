"""Histories for tests: decided by the real handlers, written to a log as the writer would."""

import random
from collections.abc import Sequence

import psycopg

from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.values import name_of
from domain.vm import KIND as VM
from eventlog.codec import Row
from tests.deciding import Site

TENANTS = {"acme": None, "payments": "acme", "search": "acme", "ads": "search", "other": None}
GROUPS = ("std", "mem")


def write(conninfo: str, rows: Sequence[Row]) -> None:
    """Append rows in one transaction."""
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
        with cursor.copy(
            "COPY berth.events (notification_id, originator_id, originator_version, topic, state) FROM STDIN"
        ) as copy:
            for row in rows:
                copy.write_row((row.position, row.stream, row.version, row.topic, row.state))
        cursor.execute("NOTIFY events")


def a_site(*, hosts: int = 6) -> Site:
    """Five tenants in two trees, two groups, racks in two dcs, quotas at several levels."""
    site = Site()
    for tenant, parent in TENANTS.items():
        site.given("tenant.create", name=tenant, parent=parent, display_name=f"部門 {tenant}")
    for n, dc in enumerate(("tp1", "tp1", "hk1")):
        site.given("rack.create", name=f"r{n}", region=dc[:2], dc=dc, room=f"room-{n}", labels={"row": str(n)})
    site.given("group.create", name="std", strategy="best_fit", overcommit={"cpu": 1.5})
    site.given("group.create", name="mem", strategy="balanced", description="much memory")
    for n in range(hosts):
        site.given(
            "host.register",
            name=f"h{n}",
            group=GROUPS[n % 2],
            rack=f"r{n % 3}" if n % 4 else None,
            capacity={"cpu": 8 + n, "memory_mib": 64, **({"gpu": 2} if n == 1 else {})},
            labels={"disk": "ssd" if n % 2 else "hdd"},
            external_id=f"asset-{n}",
        )
    for group, tenant, limits in (
        ("std", "acme", {"cpu": 40, "vms": 40}),
        ("std", "payments", {"cpu": 30, "memory_mib": 400}),
        ("std", "ads", {"memory_mib": 300}),
        ("mem", "acme", {"cpu": 20}),
        ("mem", "payments", {"cpu": 25}),
        ("mem", "other", {}),
    ):
        site.given("quota.set", group=group, tenant=tenant, limits=limits)
    site.given("token.create", name="boss", role="viewer", tenant="acme")
    site.given("token.create", name="gone", role="operator")
    site.given("token.revoke", token="gone")
    return site


def live(site: Site, *, seed: int, commands: int) -> None:
    """Random life: workloads that come, change, fail and go; hosts, tenants and quotas that change under them."""
    chance = random.Random(seed)
    fleet = site.fleet
    for n in range(commands):
        tenant, group = chance.choice(list(TENANTS)), chance.choice(GROUPS)
        vms = list(fleet.each(VM))
        hosts = list(fleet.each(HOST))
        match chance.randrange(14):
            case 0 | 1 | 2:
                site.when(
                    "vm.provision",
                    tenant=tenant,
                    name=f"vm-{n}",
                    group=chance.choice([group, "*"]),
                    resources={"cpu": chance.randrange(1, 4), "memory_mib": chance.randrange(8)},
                    rules=[{"type": "anti_affinity", "set": "web", "level": "host"}] if n % 3 == 0 else [],
                    where={"labels": {"disk": "ssd"}} if n % 5 == 0 else None,
                )
            case 3 | 4 | 5 | 6 if fleet.streams(OPERATION):
                id = chance.choice(list(map(name_of, fleet.streams(OPERATION))))
                site.report(id, chance.choice(["started", "succeeded", "succeeded", "failed"]))
            case 7 if vms:
                vm = chance.choice(vms)
                site.when(f"vm.{chance.choice(['delete', 'stop', 'start'])}", tenant=vm.tenant, vm=vm.name)
            case 8 if vms:
                vm = chance.choice(vms)
                site.when("vm.resize", tenant=vm.tenant, vm=vm.name, resources={"cpu": chance.randrange(1, 6)})
            case 9:
                host = chance.choice(hosts)
                site.when(f"host.{chance.choice(['cordon', 'uncordon'])}", host=host.name)
            case 10:
                host = chance.choice(hosts)
                site.when("host.move", host=host.name, group=group, force=chance.random() < 0.7)
            case 11:
                site.when("quota.set", group=group, tenant=tenant, limits={"cpu": chance.randrange(30)}, force=True)
            case 12:
                site.when("tenant.move", tenant=tenant, parent=chance.choice([*TENANTS, None]), force=True)
            case _:
                site.when("host.delete", host=chance.choice(hosts).name)
                name = f"x{n}"
                site.when("host.register", name=name, group=group, rack="r2", capacity={"cpu": 12, "memory_mib": 32})
