"""Rules shown as broken: what follows the log piece by piece is what the fleet says at each of its places."""

import random
from typing import Any

import pytest

from domain.fleet import Fleet
from domain.values import name_of
from domain.vm import KIND as VM
from eventlog.codec import decode
from eventlog.read import LogReader
from projections.broken import Broken
from projections.changes import fold
from projections.differences import differences
from projections.projector import catch_up
from projections.queries import ReadModel, decoded
from projections.resources import resource
from projections.sums import Sums
from tests.deciding import Site, a_vm
from tests.projections.logs import write

RACKS, DCS, GROUPS = ("r1", "r2", "r3"), ("dc1", "dc2"), ("std", "other")
RULES: tuple[dict[str, Any], ...] = (
    {"type": "anti_affinity"},
    {"type": "affinity"},
    {"type": "spread", "max_skew": 1},
    {"type": "partition", "partition": 1},
    {"type": "partition", "partition": 2},
)


def a_site() -> Site:
    site = Site()
    site.given("tenant.create", name="payments")
    for group in GROUPS:
        site.given("group.create", name=group)
        site.given("quota.set", group=group, tenant="payments", limits={})
    for rack in RACKS:
        site.given("rack.create", name=rack, region="north", dc="dc1")
    for n in range(6):
        a_host(site, f"h{n}", rack=RACKS[n % 3], group=GROUPS[n % 2])
    return site


def a_host(site: Site, name: str, *, rack: str | None, group: str) -> None:
    site.given("host.register", name=name, group=group, rack=rack, capacity={"cpu": 64, "memory_mib": 65_536})


def live(site: Site, *, seed: int, commands: int) -> None:
    chance = random.Random(seed)
    for n in range(commands):
        hosts = sorted(site.fleet.capacity.hosts)
        vms = list(site.fleet.each(VM))
        host = chance.choice(hosts)
        match chance.randrange(8):
            case 0 | 1 | 2:
                picked = chance.sample(RULES, chance.randrange(1, 3))
                rules = [
                    {**rule, "set": chance.choice("ab"), "level": chance.choice(["host", "rack", "dc"])}
                    for rule in picked
                ]
                wheres: list[Any] = [None, None, {"rack": chance.choice(RACKS)}, {"labels": {"disk": "ssd"}}]
                where = chance.choice(wheres)
                site.when("vm.provision", **a_vm(f"v{seed}-{n}", cpu=1, group="*", rules=rules, where=where))
            case 3:
                site.given("host.update", host=host, rack=chance.choice([*RACKS, None]), force=True)
                site.given("host.update", host=host, labels={"disk": chance.choice(["ssd", None])}, force=True)
            case 4:
                site.given("rack.update", rack=chance.choice(RACKS), dc=chance.choice(DCS), force=True)
            case 5:
                site.when("host.move", host=host, group=chance.choice(GROUPS), force=True)
            case 6:
                if site.when("host.delete", host=host).problem is None or len(hosts) < 9:
                    a_host(site, f"x{seed}-{n}", rack=chance.choice([*RACKS, None]), group=chance.choice(GROUPS))
            case _ if vms:
                vm = chance.choice(vms)
                if (answer := site.when("vm.delete", tenant=vm.tenant, vm=vm.name)).operation is not None:
                    site.finish(answer)


def broken_in(fleet: Fleet) -> dict[str, Any]:
    """By VM, what each shows."""
    shown = {name: resource(fleet, f"vm/{name}") for name in map(name_of, fleet.streams(VM))}
    return {name: vm["broken_rules"] for name, vm in shown.items() if vm is not None and vm["rules_broken"]}


@pytest.mark.parametrize("seed", range(6))
def test_however_the_log_is_cut_the_rows_are_what_the_fleet_shows(seed: int) -> None:
    site = a_site()
    live(site, seed=seed, commands=150)
    chance = random.Random(seed)
    fleet, sums, broken = Fleet(), Sums(), Broken()
    events = [decode(row) for row in site.rows]
    rows: dict[str, Any] = {}
    most, at = 0, 0
    while at < len(events):
        end = min(len(events), at + chance.randrange(1, 40))
        while end < len(events) and events[end].at == events[end - 1].at:
            end += 1
        changes = fold(fleet, sums, broken, events[at:end])
        for row in changes.upserts.get("broken_rules", ()):
            rows[row["key"]] = row
        for key in changes.deletes.get("broken_rules", ()):
            rows.pop(key, None)
        assert rows.keys() == broken_in(fleet).keys()
        assert sorted(rows.values(), key=lambda row: row["key"]) == Broken.of(fleet).rows(fleet)
        most, at = max(most, len(rows)), end
    assert most > 0, "this history breaks nothing"


async def test_broken_vms_are_listed_and_shown_as_the_fleet_shows_them(database: Any) -> None:
    site, seed = a_site(), 0
    while not broken_in(site.fleet):
        live(site, seed=seed, commands=20)
        seed += 1
    write(database.service, site.rows)
    catch_up(database.service, LogReader(database.service))
    expected = broken_in(site.fleet)
    async with ReadModel(database.service) as model:
        await model.wait_for(site.fleet.position)
        listed = decoded(await model.list_("vm", filters={"rules_broken": True}, limit=1000))["items"]
        assert {f"{vm['tenant']}/{vm['name']}": vm["broken_rules"] for vm in listed} == expected
        others = decoded(await model.list_("vm", filters={"rules_broken": False}, limit=1000))["items"]
        assert len(others) + len(listed) == len(list(map(name_of, site.fleet.streams(VM))))
        assert not any(vm["rules_broken"] for vm in others)
        page = decoded(await model.list_("vm", sort="-rules_broken", limit=len(listed)))
        assert {f"{vm['tenant']}/{vm['name']}" for vm in page["items"]} == expected.keys()
        following = decoded(await model.list_("vm", sort="-rules_broken", limit=1000, cursor=page["next_cursor"]))
        assert following["items"] == others
        for vm in [*listed, *others]:
            assert vm == resource(site.fleet, f"vm/{vm['tenant']}/{vm['name']}")
    assert differences(database.service, site.fleet) == []
