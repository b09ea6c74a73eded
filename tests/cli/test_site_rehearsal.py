"""How a plan is put to the server before anything is done."""

from typing import Any

from cli.errors import Refused
from cli.session import Session
from cli.site import document, plan, rehearsal
from cli.site.plan import Step
from tests.cli.conftest import KINDS


def steps_of(*documents: dict[str, Any]) -> list[Step]:
    import yaml

    return plan.steps(document.read(yaml.safe_dump_all(documents), file="site.yaml", kinds=KINDS), lambda _: None)


def names(part: list[Step]) -> list[str]:
    return [step.document.name for step in part]


TENANTS = ({"kind": "Tenant", "name": "team", "parent": "org"}, {"kind": "Tenant", "name": "org"})
GROUP = {"kind": "Group", "name": "std"}
QUOTAS = tuple({"kind": "Quota", "group": "std", "tenant": name, "limits": {"cpu": 9}} for name in ("team", "org"))


def rack(n: int) -> dict[str, Any]:
    return {"kind": "Rack", "name": f"r{n}", "region": "tw", "dc": "tpe1"}


def host(n: int) -> dict[str, Any]:
    return {"kind": "Host", "name": f"h{n:04}", "group": "std", "rack": f"r{n // 40}", "capacity": {"cpu": 8}}


def vm(n: int) -> dict[str, Any]:
    return {"kind": "VM", "tenant": "team", "name": f"v{n}", "group": "std", "resources": {"cpu": 1}}


def test_a_small_plan_is_one_part_in_the_order_in_which_it_is_applied() -> None:
    steps = steps_of(vm(1), *QUOTAS, host(1), GROUP, rack(0), *TENANTS)
    assert [names(part) for part in rehearsal.parts(steps)] == [names(steps)]


def test_what_is_unchanged_is_not_asked() -> None:
    steps = [step._replace(requests=[]) for step in steps_of(*TENANTS)]
    assert list(rehearsal.parts(steps)) == []


def test_a_part_of_a_large_plan_holds_all_that_its_steps_refer_to() -> None:
    steps = steps_of(*TENANTS, GROUP, *QUOTAS, *map(rack, range(14)), *map(host, range(550)), *map(vm, range(300)))
    found = list(rehearsal.parts(steps))
    assert len(found) < 12
    assert {name for part in found for name in names(part)} == set(names(steps))
    for part in found:
        assert sum(len(step.requests) for step in part) <= rehearsal.COMMANDS_MAX
        there = names(part)
        assert there == [name for name in names(steps) if name in there]  # in the plan's order
        for step in part:
            body = step.document.body
            if step.document.kind.name == "host":
                assert {body["rack"], "std"} <= set(there)
            if step.document.kind.name == "vm":
                assert {"org", "team", "std", "std/team", "std/org", "h0000"} <= set(there)


def test_what_is_too_dear_as_one_is_asked_in_smaller_parts() -> None:
    """The server's bound on what one unit costs to decide says nothing of the commands themselves."""

    class Dear(Session):
        def __init__(self, *, at_once: int) -> None:
            super().__init__()
            self.at_once = at_once
            self.asked: list[int] = []

        def rehearse(self, commands: list[dict[str, Any]]) -> None:
            self.asked.append(len(commands))
            if len(commands) > self.at_once:
                errors = [{"field": "/commands", "message": "deciding this would keep all others waiting"}]
                raise Refused({"code": "validation", "index": 1, "errors": errors})

    session = Dear(at_once=60)
    assert rehearsal.rehearse(session, steps_of(*map(rack, range(150)))) == rehearsal.Rehearsal(3)
    assert session.asked == [150, 100, 50, 50, 50]
