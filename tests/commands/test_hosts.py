"""Hosts and groups: what a merge patch leaves, takes away and can't mean."""

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from domain.host import KIND as HOST
from domain.host import Host
from domain.quota import KIND as QUOTA
from tests.deciding import Site, a_site, a_vm


def the_host(site: Site) -> Host:
    found = site.fleet.get(HOST, "h0")
    assert found is not None
    return found


def test_a_patched_capacity_keeps_the_classes_it_does_not_name() -> None:
    site = a_site()
    site.given("host.update", host="h0", capacity={"gpu": 2})
    assert the_host(site).capacity == {"cpu": 8, "memory_mib": 16_384, "gpu": 2}
    site.given("host.update", host="h0", capacity={})
    assert the_host(site).capacity == {"cpu": 8, "memory_mib": 16_384, "gpu": 2}


@pytest.mark.parametrize("none", [None, 0])
def test_null_or_0_takes_a_class_out_of_a_capacity(none: int | None) -> None:
    site = a_site()
    site.given("host.update", host="h0", capacity={"memory_mib": none})
    assert the_host(site).capacity == {"cpu": 8}


def test_a_capacity_is_never_patched_to_nothing() -> None:
    problem = a_site().refused("validation", "host.update", host="h0", capacity={"cpu": None, "memory_mib": 0})
    assert problem["errors"][0]["field"] == "/capacity"


def test_a_patched_bmc_keeps_the_parts_it_does_not_name() -> None:
    site = a_site()
    site.refused("validation", "host.update", host="h0", bmc={"protocol": "redfish"})
    site.given("host.update", host="h0", bmc={"address": "10.0.0.1", "credential": "vault:h0"})
    site.given("host.update", host="h0", bmc={"protocol": "redfish", "credential": None})
    bmc = the_host(site).bmc
    assert bmc is not None
    assert (bmc.address, bmc.protocol, bmc.credential) == ("10.0.0.1", "redfish", None)
    site.given("host.update", host="h0", bmc=None)
    assert the_host(site).bmc is None


def test_a_group_can_not_be_patched_to_have_no_strategy() -> None:
    with pytest.raises(ValidationError):
        COMMANDS["group.update"].model_validate({"group": "std", "strategy": None})


def test_a_conflict_names_what_is_in_the_way() -> None:
    site = a_site()
    site.given("host.update", host="h0", unit=7)
    problem = site.refused("conflict", "host.update", host="h1", unit=7)
    assert (problem["name"], problem["used_by"]) == ("r1", ["host/h0"])
    problem = site.refused("already_exists", "rack.create", name="r1", region="north", dc="dc1")
    assert (problem["name"], problem["used_by"]) == ("r1", ["rack/r1"])


def test_a_password_in_the_address_of_a_bmc_is_refused_before_it_is_kept() -> None:
    bmc = {"address": "https://root:pw@10.0.0.1"}
    for kind, body in (
        ("host.register", {"name": "h9", "group": "std", "capacity": {"cpu": 1}}),
        ("host.update", {"host": "h0"}),
    ):
        with pytest.raises(ValidationError, match="kept for ever"):
            COMMANDS[kind].model_validate({**body, "bmc": bmc})


def test_a_lower_over_commit_is_refused_below_what_is_used_and_a_higher_one_never() -> None:
    site = a_site(hosts=1, cpu=4)
    site.given("group.update", group="std", overcommit={"cpu": 2})
    site.given("vm.provision", **a_vm(cpu=6))
    (told,) = site.refused("below_use", "group.update", group="std", overcommit={"cpu": 1.25})["would_break"]
    assert (told["name"], told["resource"], told["limit"], told["used"]) == ("h0", "cpu", 5, 6)
    site.given("group.update", group="std", overcommit={"cpu": 1.5, "memory_mib": 2})
    site.given("group.update", group="std", overcommit={"cpu": 1.25}, force=True)
    site.given(
        "group.update", group="std", overcommit={"cpu": 1.3, "memory_mib": None}
    )  # above, but no more than it was


def test_a_quota_set_where_use_exists_starts_with_that_of_the_whole_subtree() -> None:
    site = a_site()
    site.given("tenant.create", name="team", parent="payments")
    site.given("quota.set", group="std", tenant="team", limits={})
    site.given("vm.provision", **a_vm("one", cpu=2))
    site.given("vm.provision", **{**a_vm("two", cpu=1), "tenant": "team"})
    site.given("tenant.create", name="root")
    site.given("tenant.move", tenant="acme", parent="root")
    site.given("quota.set", group="std", tenant="root", limits={"cpu": 9})
    site.given("tenant.create", name="between", parent="root")
    quota = site.fleet.get(QUOTA, "std", "root")
    assert quota is not None
    assert quota.used == {"cpu": 3, "memory_mib": 2048, "vms": 2}
    for tenant in ("acme", "root"):
        site.given("quota.delete", group="std", tenant=tenant)
    site.given("quota.set", group="std", tenant="root", limits={})
    assert site.fleet.get(QUOTA, "std", "root").used == quota.used  # type: ignore[union-attr]
