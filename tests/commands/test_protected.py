"""What is protected is destroyed by no verb, whatever kind it is of, and from its creation on."""

from typing import Any

import pytest

from commands.catalogue import COMMANDS
from domain.values import About
from domain.vm import KIND as VM
from domain.vm import VmUpdated, evolve
from eventlog.codec import decode
from tests.deciding import Site, a_site, a_vm

KINDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("tenant", {"name": "other"}, {"tenant": "other"}),
    ("rack", {"name": "r2", "region": "north", "dc": "dc1"}, {"rack": "r2"}),
    ("group", {"name": "gpu"}, {"group": "gpu"}),
    ("host", {"name": "h9", "group": "std", "capacity": {"cpu": 1}}, {"host": "h9"}),
    ("vm", a_vm(), {"tenant": "payments", "vm": "web-1"}),
]
CREATIONS = {"host": "register", "vm": "provision"}


@pytest.mark.parametrize(("kind", "body", "path"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_it_is_made_protected_and_stays_until_that_is_taken_back(
    kind: str, body: dict[str, Any], path: dict[str, Any]
) -> None:
    site = a_site()
    site.given(f"{kind}.{CREATIONS.get(kind, 'create')}", **body, protected=True)
    problem = site.refused("protected", f"{kind}.delete", **path)
    assert (problem["status"], problem["name"]) == (409, "/".join(path.values()))
    site.given(f"{kind}.update", **path, description="a change of words keeps it")
    site.refused("protected", f"{kind}.delete", **path)
    site.given(f"{kind}.update", **path, protected=False)
    site.given(f"{kind}.delete", **path)
    assert site.replayed().living == site.fleet.living


def test_a_quota_is_protected_alone_and_with_what_it_ends_with() -> None:
    site = a_site()
    site.given("tenant.create", name="other")
    site.given("group.create", name="gpu")
    site.given("quota.set", group="gpu", tenant="other", limits={}, protected=True)
    for kind, path in (
        ("quota", {"group": "gpu", "tenant": "other"}),
        ("group", {"group": "gpu"}),
        ("tenant", {"tenant": "other"}),
    ):
        assert site.refused("protected", f"{kind}.delete", **path)["name"] == "gpu/other"
    site.given("quota.set", group="gpu", tenant="other", limits={})
    site.given("tenant.delete", tenant="other")


def test_creation_and_change_take_the_same_words_of_every_kind() -> None:
    words = {"labels", "description", "display_name", "external_id", "protected"}
    for kind, _, _ in KINDS:
        for verb in (CREATIONS.get(kind, "create"), "update"):
            assert words <= COMMANDS[f"{kind}.{verb}"].model_fields.keys(), f"{kind}.{verb}"
    assert words <= COMMANDS["quota.set"].model_fields.keys()


def test_nothing_stands_in_the_way_of_a_revocation() -> None:
    assert "protected" not in COMMANDS["token.create"].model_fields


def test_events_of_what_is_not_protected_are_as_they_were() -> None:
    site: Site = a_site()
    site.given("vm.provision", **a_vm())
    assert not [row for row in site.rows if b'"protected"' in row.state and "command." not in row.topic]


def test_a_protection_from_before_the_words_had_it_still_holds() -> None:
    site = a_site()
    site.given("vm.provision", **a_vm())
    vm = site.fleet.get(VM, "payments", "web-1")
    assert vm is not None
    assert evolve(vm, VmUpdated(protected=True, about=About(description="x"))).about == About(
        description="x", protected=True
    )
    assert evolve(vm, VmUpdated()).about == About()
    site.given("vm.update", tenant="payments", vm="web-1", protected=True)
    updated = [decode(row).event for row in site.rows if row.topic == "vm.updated"]
    assert [event.protected for event in updated] == [True]
