"""What would keep the writer busy for long is refused before it is begun, and says what to do."""

import time
from typing import Any

import pytest

from commands import costs
from commands.catalogue import COMMANDS
from commands.costs import UNIT_US_MAX, Estimate
from commands.writer.gateway import Actor, Answer, Item
from tests.deciding import Site
from tests.deciding import a_site as a_small_site

GROUPS = [f"g{n}" for n in range(100)]
SCOPED = Actor("sam", "operator", "acme")


@pytest.fixture(scope="module")
def site() -> Site:
    """1,000 hosts in 100 groups."""
    site = Site()
    site.given("tenant.create", name="acme")
    for n in range(20):
        site.given("rack.create", name=f"r{n}", region="north", dc=f"dc{n % 4}")
    hosts = []
    for n, group in enumerate(GROUPS):
        site.given("group.create", name=group)
        site.given("quota.set", group=group, tenant="acme", limits={})
        hosts += [
            Site.item("host.register", {"name": f"h{n}-{m}", "group": group, "rack": f"r{m}", "capacity": {"cpu": 999}})
            for m in range(10)
        ]
    assert all(answer.problem is None for answer in site.decide(hosts))
    return site


def vms(
    count: int, *, rules: int = 0, sets: int = 1, group: Any = "g0", skews: int = 1, tenant: str = "acme"
) -> list[Item]:
    """Of each, as many rules as said, over as many sets, each VM's with one of so many skews."""
    return [
        Site.item(
            "vm.provision",
            {
                "tenant": tenant,
                "name": f"vm-{n}",
                "group": group,
                "resources": {"cpu": 1},
                "rules": [
                    {"type": "spread", "set": f"s{m % sets}", "level": "rack", "max_skew": 1000 + 16 * (n % skews) + m}
                    for m in range(rules)
                ],
            },
        )
        for n in range(count)
    ]


def refusal(answers: list[Answer]) -> dict[str, Any] | None:
    """The problem of the unit as a whole."""
    return next((answer.problem for answer in answers if answer.problem and answer.problem["code"] != "aborted"), None)


def test_what_would_take_the_writer_half_a_minute_is_refused_and_says_what_to_do(site: Site) -> None:
    position = site.fleet.position
    for is_dry in (True, False):
        problem = refusal(site.decide(vms(200, rules=16, sets=16, group=GROUPS), dry_run=is_dry))
        assert problem is not None
        assert (problem["code"], problem["status"]) == ("validation", 422)
        (error,) = problem["errors"]
        assert error["field"] == "/commands"
        assert "send fewer of them at once" in error["message"]
    assert site.fleet.position == position, "what can't be meant so is not recorded"


@pytest.mark.parametrize(
    ("unit", "is_taken"),
    [
        (vms(200), True),
        (vms(200, rules=2), True),
        (vms(100, rules=16, sets=16), True),
        (vms(1, rules=16, sets=16, group=GROUPS), True),
        (vms(200, rules=1, group=GROUPS), False),
        (vms(200, rules=16, skews=200), False),
        (vms(200, rules=1, group="*"), False),
    ],
    ids=["plain", "gang", "16 sets", "one of 100 groups", "many groups", "many rules", "every group"],
)
def test_what_people_ask_for_is_taken_and_what_multiplies_is_not(site: Site, unit: list[Item], is_taken: bool) -> None:
    problem = refusal(site.decide(unit, dry_run=True))
    assert (problem is None) == is_taken, problem


@pytest.mark.parametrize(("skews", "is_taken"), [(1, True), (300, False)], ids=["one rule", "a rule each"])
def test_a_large_set_is_taken_and_one_of_many_rules_is_not(
    monkeypatch: pytest.MonkeyPatch, skews: int, is_taken: bool
) -> None:
    """Each member's rules bind those that come later."""
    monkeypatch.setattr(costs, "UNIT_US_MAX", UNIT_US_MAX // 10)
    site = a_small_site(hosts=1, cpu=10_000, quota={"cpu": 10_000})
    problem = None
    for item in vms(300, rules=1, group="std", skews=skews, tenant="payments"):
        if (problem := refusal(site.decide([item]))) is not None:
            break
    assert (problem is None) == is_taken
    if problem is not None:
        assert (problem["code"], problem["errors"][0]["field"]) == ("validation", "/rules")


def test_nobody_learns_from_a_cost_what_is_not_theirs(site: Site) -> None:
    """Refused for what it may not do, as if it were cheap."""
    unit = vms(200, rules=16, sets=16, group=GROUPS, tenant="foreign")
    problem = refusal(site.decide(unit, actor=Actor("sue", "operator", "elsewhere")))
    assert problem is not None
    assert problem["code"] == "not_found"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("tenant.move", {"tenant": "payments", "parent": None}),
        ("quota.delete", {"group": "std", "tenant": "payments"}),
        ("group.update", {"group": "std", "overcommit": {"cpu": 2.0}}),
        ("group.delete", {"group": "std"}),
        ("tenant.delete", {"tenant": "payments"}),
        ("host.move", {"host": "h0", "group": "std"}),
        ("host.update", {"host": "h0", "rack": "r1"}),
        ("rack.update", {"rack": "r1", "units": 40}),
        ("host.register", {"name": "h", "group": "std", "rack": "r1", "capacity": {"cpu": 1}}),
    ],
)
def test_what_grows_with_the_fleet_is_counted(kind: str, body: dict[str, Any]) -> None:
    command = COMMANDS[kind].model_validate(body)
    few, many = a_small_site(hosts=2), a_small_site(hosts=40)
    for n in range(40):
        many.given("vm.provision", tenant="payments", name=f"vm-{n}", group="std", resources={"cpu": 1})
        many.given("tenant.create", name=f"t{n}")
        many.given("quota.set", group="std", tenant=f"t{n}", limits={})
    assert Estimate(few.fleet).add(command) < Estimate(many.fleet).add(command)
    assert costs.is_plain(command), "alone it is taken, as it can't be asked for in smaller parts"


def test_what_is_estimated_is_about_what_it_takes(site: Site) -> None:
    """In one run, of units near the bound, against the plain one: a ratio, with room for the machine's moods."""

    def spent(unit: list[Item]) -> tuple[float, float]:
        estimate = Estimate(site.fleet)
        us = max(estimate.add(item.command) for item in unit)
        began = time.process_time()
        assert refusal(site.decide(unit, dry_run=True)) is None
        return time.process_time() - began, us

    spent(vms(200))
    plain_s, plain_us = min(spent(vms(200)) for _ in range(3))
    for unit in (vms(50, group=GROUPS), vms(25, rules=1, group=GROUPS), vms(200, rules=4, sets=2)):
        took_s, us = min(spent(unit) for _ in range(3))
        assert us <= UNIT_US_MAX
        assert took_s / plain_s < 4 * us / plain_us, (took_s, plain_s, us, plain_us)
