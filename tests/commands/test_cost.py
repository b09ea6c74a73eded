"""What a refusal costs does not grow with the fleet: ratios of the processor's time at n and at 10 n, with room."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from commands.catalogue import COMMANDS
from commands.choice import class_like
from commands.suggesting import nearest
from commands.writer import ids
from commands.writer.deciding import CommandContext
from commands.writer.gateway import Item
from domain.entry import Entry
from domain.host import Host
from domain.rack import Rack
from domain.tenant import Tenant
from domain.values import About
from domain.vm import Vm
from projections.resources import resource
from tests.deciding import ADMIN, Site, a_site, a_vm

ROUNDS = 15
RATIO_MAX = 3.0


def cost(ask: Callable[[], object]) -> float:
    """The least of several rounds: all that is above is others' doing."""
    ask()
    spent = []
    for _ in range(ROUNDS):
        began = time.process_time()
        ask()
        spent.append(time.process_time() - began)
    return min(spent)


def a_fleet_of(names: int) -> Site:
    """So many racks, hosts and VMs, put where the fold would."""
    site = Site()
    for tenant, parent in (("acme", None), ("payments", "acme")):
        site.given("tenant.create", name=tenant, parent=parent)
    site.given("group.create", name="std")
    site.given("quota.set", group="std", tenant="payments", limits={})
    about = About()
    for n in range(names):
        made: dict[str, Any] = {
            f"rack/tpe1-r{n:06d}": Rack(
                "u", f"tpe1-r{n:06d}", "north", f"dc{n:06d}", f"room{n:06d}", None, "active", about
            ),
            f"host/tpe1-h{n:06d}": Host(
                "u", f"tpe1-h{n:06d}", "std", None, None, {"cpu": 8}, {}, "cordoned", None, about
            ),
            f"vm/payments/web-{n:06d}": Vm(
                "u", "payments", f"web-{n:06d}", "std", None, {}, {}, "failed", *(None,) * 4, (), (), None, about
            ),
        }
        for stream, state in made.items():
            site.fleet.put(stream, None, Entry(state, 1, 1, 1))
    return site


SMALL, LARGE = 2_000, 20_000


@pytest.fixture(scope="module")
def fleets() -> tuple[Site, Site]:
    return a_fleet_of(SMALL), a_fleet_of(LARGE)


@pytest.mark.parametrize(
    ("kind", "body", "meant"),
    [
        ("rack.delete", {"rack": "tpe1-r0001234"}, "tpe1-r000123"),
        ("host.cordon", {"host": "tpe1-h00123"}, "tpe1-h001230"),
        ("vm.start", {"tenant": "payments", "vm": "wbe-000123"}, "payments/web-000123"),
        ("tenant.update", {"tenant": "paymets"}, "payments"),
        ("vm.provision", a_vm(where={"dc": "dc00123"}), "dc001230"),
        ("vm.provision", a_vm(where={"room": "room-000123"}), "room000123"),
        ("quota.delete", {"group": "sdt", "tenant": "payments"}, "std/payments"),
        ("token.revoke", {"token": "nobody"}, None),
    ],
)
def test_a_misspelt_name_costs_the_same_in_a_fleet_ten_times_as_large(
    fleets: tuple[Site, Site], kind: str, body: dict[str, Any], meant: str | None
) -> None:
    few, many = fleets
    for site in fleets:
        assert answer(site, kind, body)["did_you_mean"] == meant
    assert cost(lambda: answer(many, kind, body)) < RATIO_MAX * cost(lambda: answer(few, kind, body))


@pytest.mark.parametrize("name", ["x" * 10, "x" * 63, "tpe1-r000000-x", "x" * 10_000])
def test_so_does_the_search_for_what_was_meant(name: str) -> None:
    few, many = ({f"tpe1-r{n:06d}" for n in range(count)} for count in (SMALL, LARGE))
    in_few = cost(lambda: nearest(name, known=few, exists=few.__contains__))
    assert cost(lambda: nearest(name, known=many, exists=many.__contains__)) < RATIO_MAX * in_few


@pytest.mark.parametrize("misspelt", ["memory_mb", "c00x"])
def test_so_does_the_search_for_a_class_among_many(misspelt: str) -> None:
    few, many = (dict.fromkeys(f"c{n:05d}" for n in range(count)) for count in (SMALL, LARGE))
    assert class_like("memory_mb", many) == "memory_mib"
    assert cost(lambda: class_like(misspelt, many)) < RATIO_MAX * cost(lambda: class_like(misspelt, few))


def groups_of(count: int) -> Site:
    site = Site()
    site.given("tenant.create", name="payments")
    for n in range(count):
        group = f"g{n:03d}"
        site.given("group.create", name=group)
        for host in range(3):
            site.given("host.register", name=f"{group}-h{host}", group=group, capacity={"cpu": 8, "memory_mib": 16_384})
        site.given("quota.set", group=group, tenant="payments", limits={})
    return site


@pytest.mark.parametrize("group", ["g000", "*"])
def test_a_refusal_costs_little_more_with_ten_times_as_many_groups(group: str) -> None:
    """That each group of "*" is full must be seen, at some µs a group; ten times is what it was."""
    few, many = groups_of(30), groups_of(300)
    body = a_vm(cpu=9, group=group)
    in_few = cost(lambda: answer(few, "vm.provision", body))
    assert cost(lambda: answer(many, "vm.provision", body)) < 5 * in_few


def test_a_refusal_says_where_it_stopped_to_tell() -> None:
    site = groups_of(100)
    problem = answer(site, "vm.provision", a_vm(cpu=9, group="*"))
    assert problem["groups_truncated"] is True
    assert [told["code"] for told in problem["groups"]] == ["no_capacity"] * 8
    assert problem["considered"] == 24 == sum(reason["hosts"] for reason in problem["reasons"])
    site.given("host.register", name="large", group="g099", capacity={"cpu": 64, "memory_mib": 65_536})
    problem = answer(site, "vm.provision", a_vm(cpu=9, group="g000"))
    assert problem["alternatives_truncated"] is True
    few = groups_of(4)
    few.given("host.register", name="large", group="g003", capacity={"cpu": 64, "memory_mib": 65_536})
    problem = answer(few, "vm.provision", a_vm(cpu=9, group="g000"))
    assert problem["alternatives"] == [{"group": "g003", "hosts": 1, "quota_ok": True}]
    assert "alternatives_truncated" not in problem
    assert "groups_truncated" not in problem


def test_of_a_few_groups_each_is_told() -> None:
    site = groups_of(8)
    problem = answer(site, "vm.provision", a_vm(cpu=9, group=[f"g{n:03d}" for n in range(8)]))
    assert [told["group"] for told in problem["groups"]] == [f"g{n:03d}" for n in range(8)]
    assert "groups_truncated" not in problem


def answer(site: Site, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """The refusal; without `Site.when`, which looks at the invariants of the whole fleet."""
    id = ids.uuid7()
    item = Item(id, COMMANDS[kind].model_validate(body), body, id)
    context = CommandContext(ADMIN, None, None, False)
    tx = site.decider.begin()
    found = site.decider.decide(tx, item, context, at=site.decider.next_at(), known={}, rows=[])
    assert found.problem is not None, found
    return found.problem


def in_use(count: int) -> Site:
    """So many tenants below acme and VMs in one rack, host and group."""
    site = a_site(hosts=1)
    for n in range(count):
        host, vm, child = f"x{n:06d}", f"web-{n:06d}", f"child-{n:06d}"
        made: dict[str, Any] = {
            f"tenant/{child}": Tenant("u", child, "acme", "active", About()),
            f"host/{host}": Host("u", host, "std", "r1", None, {"cpu": 8}, {}, "available", None, About()),
            f"vm/payments/{vm}": Vm(
                "u", "payments", vm, "std", "h0", {"cpu": 1}, {}, "active", *(None,) * 4, (), (), None, About()
            ),
        }
        for stream, state in made.items():
            site.fleet.put(stream, None, Entry(state, 1, 1, 1))
    site.given("vm.provision", **a_vm())
    return site


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("tenant", {"tenant": "acme"}),
        ("tenant", {"tenant": "payments"}),
        ("rack", {"rack": "r1"}),
        ("group", {"group": "std"}),
        ("host", {"host": "h0"}),
        ("quota", {"group": "std", "tenant": "payments"}),
    ],
)
def test_what_is_in_use_is_refused_at_the_same_cost_by_ten_times_as_many(kind: str, path: dict[str, str]) -> None:
    few, many = in_use(200), in_use(2_000)
    for site in (few, many):
        problem = answer(site, f"{kind}.delete", path)
        assert len(problem["used_by"]) == 100
        assert " and at least 97 more;" in problem["detail"]  # as the others are not counted
    in_few = cost(lambda: answer(few, f"{kind}.delete", path))
    assert cost(lambda: answer(many, f"{kind}.delete", path)) < RATIO_MAX * in_few


def test_a_group_is_shown_at_the_same_cost_with_ten_times_as_many_hosts() -> None:
    few, many = in_use(200).fleet, in_use(2_000).fleet
    assert cost(lambda: resource(many, "group/std")) < RATIO_MAX * cost(lambda: resource(few, "group/std"))
