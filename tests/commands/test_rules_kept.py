"""Rules of VMs bind what runs: a change of places that would break one is refused, or forced and shown."""

from typing import Any

import pytest

from projections.resources import resource
from tests.deciding import Site, a_vm


def a_rule(type: str = "anti_affinity", level: str = "rack", **more: Any) -> dict[str, Any]:
    return {"type": type, "set": "web", "level": level, **more}


def a_site_of_racks() -> Site:
    """Racks r1, r2 in dc1 and r3 in dc2, with two hosts each: h1a, h1b, h2a, …, all in group std."""
    site = Site()
    site.given("tenant.create", name="payments")
    for group in ("std", "other"):
        site.given("group.create", name=group)
        site.given("quota.set", group=group, tenant="payments", limits={})
    for rack, dc in (("r1", "dc1"), ("r2", "dc1"), ("r3", "dc2")):
        site.given("rack.create", name=rack, region="north", dc=dc)
        for host in "ab":
            name = f"h{rack[1]}{host}"
            site.given("host.register", name=name, group="std", rack=rack, capacity={"cpu": 8, "memory_mib": 16_384})
    return site


def with_vms(*where: str, rule: dict[str, Any]) -> Site:
    """VMs v0, v1, … on these hosts, all of the set."""
    site = a_site_of_racks()
    for n, host in enumerate(where):
        rules = [rule if rule["type"] != "partition" else {**rule, "partition": n}]
        site.finish(site.given("vm.provision", **a_vm(f"v{n}", cpu=1, where={"host": host}, rules=rules)))
    return site


def broken(site: Site) -> dict[str, list[Any]]:
    """By VM, what is shown as broken."""
    shown = {vm: resource(site.fleet, f"vm/payments/{vm}") for vm in ("v0", "v1", "v2")}
    found = {vm: document["broken_rules"] for vm, document in shown.items() if document is not None}
    assert all(document["rules_broken"] == bool(found[vm]) for vm, document in shown.items() if document is not None)
    return {vm: rules for vm, rules in found.items() if rules}


CHANGES: list[tuple[str, list[str], dict[str, Any], str, dict[str, Any]]] = [
    ("anti_affinity", ["h1a", "h2a"], {}, "host.update", {"host": "h2a", "rack": "r1"}),
    ("anti_affinity", ["h1a", "h2a"], {}, "host.update", {"host": "h2a", "rack": None}),
    ("anti_affinity", ["h1a", "h3a"], {"level": "dc"}, "rack.update", {"rack": "r3", "dc": "dc1"}),
    ("affinity", ["h1a", "h1b"], {}, "host.update", {"host": "h1b", "rack": "r2"}),
    ("affinity", ["h1a", "h2a"], {"level": "dc"}, "rack.update", {"rack": "r2", "dc": "dc2"}),
    ("affinity", ["h1a", "h2a"], {"level": "dc"}, "rack.update", {"rack": "r2", "region": "south"}),
    ("partition", ["h1a", "h2a"], {}, "host.update", {"host": "h2a", "rack": "r1"}),
    ("spread", ["h1a", "h2a", "h3a"], {"max_skew": 1}, "host.update", {"host": "h3a", "rack": "r1"}),
]


@pytest.mark.parametrize(("type", "hosts", "more", "kind", "body"), CHANGES)
def test_a_change_that_would_break_a_rule_is_refused_without_force_and_then_shown(
    type: str, hosts: list[str], more: dict[str, Any], kind: str, body: dict[str, Any]
) -> None:
    rule = a_rule(type, **more)
    site = with_vms(*hosts, rule=rule)
    assert broken(site) == {}
    (told,) = site.refused("below_use", kind, **body)["would_break"]
    assert (told["kind"], told["name"], told["rule"], told["set"], told["level"]) == (
        "rule",
        "payments/web",
        type,
        "web",
        rule["level"],
    )
    assert told["vms"] and set(told["vms"]) <= {f"payments/v{n}" for n in range(len(hosts))}
    site.given(kind, **body, force=True)
    assert sorted(f"payments/{vm}" for vm in broken(site)) == sorted(told["vms"])
    site.given(kind, **body)  # nothing more breaks
    assert site.replayed().living == site.fleet.living


@pytest.mark.parametrize(
    ("where", "kind", "body"),
    [
        ({"rack": "r1"}, "host.update", {"host": "h1a", "rack": "r2"}),
        ({"dc": "dc1"}, "host.update", {"host": "h1a", "rack": "r3"}),
        ({"dc": "dc1"}, "rack.update", {"rack": "r1", "dc": "dc7"}),
        ({"region": "north"}, "rack.update", {"rack": "r1", "region": "south"}),
        ({"room": "hall-a"}, "rack.update", {"rack": "r1", "room": None}),
        ({"labels": {"disk": "ssd"}}, "host.update", {"host": "h1a", "labels": {"disk": "hdd"}}),
    ],
)
def test_a_condition_binds_for_life_as_a_rule_does(where: dict[str, Any], kind: str, body: dict[str, Any]) -> None:
    site = a_site_of_racks()
    site.given("rack.update", rack="r1", room="hall-a")
    site.given("host.update", host="h1a", labels={"disk": "ssd"})
    site.given("vm.provision", **a_vm("v0", cpu=1, where={"host": "h1a", **where}))
    (level,) = where
    (told,) = site.refused("below_use", kind, **body)["would_break"]
    assert (told["rule"], told["level"], told["name"], told["vms"]) == ("where", level, "payments/v0", ["payments/v0"])
    site.given(kind, **body, force=True)
    assert broken(site) == {"v0": [{"type": "where", "level": level, "vms": ["payments/v0"]}]}
    site.given("host.update", host="h1a", description="of no matter")


def test_what_mends_a_rule_or_has_nothing_to_do_with_it_is_no_matter() -> None:
    site = with_vms("h1a", "h2a", rule=a_rule())
    site.given("host.update", host="h1b", rack="r2")
    site.given("host.update", host="h2a", rack="r1", force=True)
    assert broken(site)["v0"] == [{**a_rule(), "vms": ["payments/v0", "payments/v1"]}]
    site.given("host.update", host="h1b", rack="r1")
    site.given("host.update", host="h2a", rack="r2", capacity={"cpu": 9}, description="back again")
    assert broken(site) == {}
    site.given("rack.update", rack="r1", dc="dc9", room="hall-a")


def test_a_move_to_a_group_with_other_places_breaks_a_spread_over_them() -> None:
    """A spread is over the places that have a host in the group."""
    site = with_vms("h1a", "h2a", "h3a", "h1b", rule=a_rule("spread", max_skew=1))
    site.given("rack.create", name="r4", region="north", dc="dc2")
    site.given("host.register", name="h4a", group="other", rack="r4", capacity={"cpu": 8, "memory_mib": 16_384})
    (told,) = site.refused("below_use", "host.move", host="h1a", group="other")["would_break"]
    assert (told["rule"], told["name"], told["vms"]) == ("spread", "payments/web", ["payments/v0"])
    site.given("host.move", host="h2a", group="other")
    site.given("host.move", host="h1a", group="other", force=True)
    assert list(broken(site)) == ["v0"]


def test_a_deletion_takes_a_broken_rule_with_it() -> None:
    site = with_vms("h1a", "h2a", rule=a_rule())
    site.given("host.update", host="h2a", rack="r1", force=True)
    site.finish(site.given("vm.delete", tenant="payments", vm="v1"))
    assert broken(site) == {}
