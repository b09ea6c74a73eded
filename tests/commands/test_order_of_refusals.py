"""Of several reasons to refuse, the first of the contract's order is told: validation, scope and role, not_found,
version_mismatch, state (invalid_state, protected, in_use, suspended), quota, no_capacity."""

from typing import Any

import pytest

from commands.writer.gateway import Actor
from tests.deciding import Site, a_site, a_vm

VM = {"tenant": "payments", "vm": "web-1"}


def a_full_site() -> Site:
    """One VM on the only host, tenants suspended, quotas spent."""
    site = a_site(hosts=1, cpu=4, quota={"cpu": 4})
    site.finish(site.given("vm.provision", **a_vm(cpu=4)))
    site.given("group.create", name="none")
    site.given("tenant.suspend", tenant="acme")
    return site


def provision(**more: Any) -> tuple[str, dict[str, Any]]:
    return "vm.provision", a_vm("web-2", **more)


@pytest.mark.parametrize(
    ("code", "kind", "body"),
    [
        ("not_found", *provision(group="nope")),
        ("not_found", *provision(group=["std", "nope"])),
        ("not_found", *provision(where={"rack": "nope"})),
        ("already_exists", "vm.provision", a_vm()),
        ("suspended", *provision(group="none")),
        ("not_found", "vm.start", {"tenant": "payments", "vm": "nope"}),
        ("invalid_state", "vm.resize", {**VM, "resources": {"cpu": 40}}),
        ("not_found", "tenant.create", {"name": "acme", "parent": "nope"}),
        ("not_found", "host.register", {"name": "h0", "group": "nope", "capacity": {"cpu": 1}}),
        ("not_found", "host.register", {"name": "h0", "group": "std", "capacity": {"cpu": 1}, "rack": "nope"}),
        ("not_found", "host.move", {"host": "h0", "group": "nope"}),
        ("not_found", "quota.set", {"group": "std", "tenant": "nope", "limits": {"cpu": 0}}),
        ("validation", "host.update", {"host": "h0", "capacity": {"cpu": 0, "memory_mib": 0}, "rack": "nope"}),
        ("not_found", "host.update", {"host": "h0", "capacity": {"cpu": 1}, "rack": "nope"}),
        ("validation", "token.create", {"name": "berth", "role": "admin", "tenant": "nope"}),
        ("not_found", "token.create", {"name": "berth", "role": "viewer", "tenant": "nope"}),
    ],
)
def test_what_is_missing_comes_before_the_state_and_that_before_what_is_spent(
    code: str, kind: str, body: dict[str, Any]
) -> None:
    site = a_full_site()
    site.given("vm.stop", **VM)  # and so in no state for more
    site.refused(code, kind, **body)


def test_a_state_comes_before_suspension() -> None:
    site = a_full_site()
    site.given("vm.stop", **VM)
    site.refused("invalid_state", "vm.start", **VM)
    site.refused("invalid_state", "vm.resize", **VM, resources={"cpu": 5})


def test_suspension_comes_before_quota_and_quota_before_room() -> None:
    site = a_full_site()
    site.refused("suspended", "vm.resize", **VM, resources={"cpu": 5})
    site.refused("suspended", *provision()[:1], **provision(cpu=9)[1])
    site.given("tenant.resume", tenant="acme")
    site.refused("quota_exceeded", "vm.resize", **VM, resources={"cpu": 5})
    site.refused("quota_exceeded", *provision()[:1], **provision(cpu=9)[1])
    site.refused("no_quota", *provision()[:1], **provision(cpu=9, group="none")[1])
    for tenant in ("acme", "payments"):
        site.given("quota.set", group="std", tenant=tenant, limits={})
    site.refused("no_capacity", "vm.resize", **VM, resources={"cpu": 5})
    site.refused("no_capacity", *provision()[:1], **provision(cpu=9)[1])


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("tenant", {"tenant": "payments"}),
        ("group", {"group": "std"}),
        ("rack", {"rack": "r1"}),
        ("host", {"host": "h0"}),
    ],
)
def test_a_protection_comes_before_what_is_in_use(kind: str, path: dict[str, Any]) -> None:
    site = a_full_site()
    site.refused("in_use", f"{kind}.delete", **path)
    site.given(f"{kind}.update", **path, protected=True)
    site.refused("protected", f"{kind}.delete", **path)


def test_a_state_comes_before_a_protection() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    site.given("vm.delete", **VM)
    site.given("vm.update", **VM, protected=True)
    site.refused("invalid_state", "vm.delete", **VM)


def test_scope_comes_before_everything_that_could_tell_a_difference() -> None:
    site = a_full_site()
    site.given("tenant.create", name="other")
    confined = Actor("pat", "operator", "other")
    for body in (VM, {**VM, "vm": "nope"}, {"tenant": "nope", "vm": "web-1"}):
        problem = site.refused("not_found", "vm.start", actor=confined, **body)
        assert problem["did_you_mean"] is None
    site.refused("not_found", "vm.provision", actor=confined, **a_vm())
