"""What is accepted and hardly meant so is told in the answer, and again in each repeat."""

from typing import Any

import pytest

from commands.writer.gateway import Actor
from domain.command import Warned
from tests.deciding import Site, a_site, a_vm


def warned(site: Site, kind: str, **body: Any) -> list[tuple[str, str | None]]:
    return [(w.field, w.did_you_mean) for w in site.given(kind, **body).warnings]


def test_a_misspelt_limit_is_accepted_with_what_was_probably_meant() -> None:
    site = a_site()
    body: dict[str, Any] = {"group": "std", "tenant": "acme"}
    assert warned(site, "quota.set", **body, limits={"memory_mb": 1}) == [("/limits/memory_mb", "memory_mib")]
    assert warned(site, "quota.set", **body, limits={"vm": 1}) == [("/limits/vm", "vms")]
    assert warned(site, "quota.set", **body, limits={"fpga": 1}) == [("/limits/fpga", None)]
    known = {"cpu": 9, "gpu": 9, "vms": 1, "hosts": 1, "volume_gib": 1, "volume_gib_fast": 1}
    assert warned(site, "quota.set", **body, limits=known) == []
    site.given("host.register", name="f1", group="std", capacity={"fpga": 1})
    assert warned(site, "quota.set", **body, limits={"fpga": 1}) == []
    site.given("host.delete", host="f1")
    assert warned(site, "quota.set", **body, limits={"fpga": 1}) == [("/limits/fpga", None)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("volume_gibs", "volume_gib"),
        ("volume_gibx", "volume_gib"),
        ("volume_gib_", "volume_gib"),
        ("volumes_gib", "volume_gib"),
        ("objects_", None),
        ("objects_hostt", None),
        ("objects_firewall", None),  # there is no such kind
    ],
)
def test_a_limit_that_only_begins_like_a_known_one_is_told(name: str, meant: str | None) -> None:
    site = a_site()
    assert warned(site, "quota.set", group="std", tenant="acme", limits={name: 3}) == [(f"/limits/{name}", meant)]


def test_so_is_a_misspelt_class_of_an_over_commit_or_a_capacity() -> None:
    site = a_site()
    assert warned(site, "group.update", group="std", overcommit={"cpus": 2}) == [("/overcommit/cpus", "cpu")]
    assert warned(site, "group.create", name="g2", overcommit={"memory_mb": 2}) == [
        ("/overcommit/memory_mb", "memory_mib")
    ]
    asked: dict[str, Any] = {"group": "std", "capacity": {"storage_gb": 5}}
    assert warned(site, "host.register", name="h8", **asked) == [("/capacity/storage_gb", "storage_gib")]
    assert warned(site, "host.register", name="h9", group="std", capacity={"fpga": 5}) == []  # nothing is called alike
    assert warned(site, "host.update", host="h0", capacity={"memory_mb": 5}) == [("/capacity/memory_mb", "memory_mib")]


def test_a_class_that_no_host_has_is_told_in_the_refusal() -> None:
    site = a_site()
    asked = {**a_vm(), "resources": {"cpu": 1, "memory_mb": 1024}}
    assert "memory_mib" in site.refused("no_capacity", "vm.provision", **asked)["detail"]
    assert "memory_mib" in site.refused("no_capacity", "vm.provision", **{**asked, "group": "*"})["detail"]
    site.finish(site.given("vm.provision", **a_vm()))
    problem = site.refused("no_capacity", "vm.resize", tenant="payments", vm="web-1", resources={"memory_mb": 1})
    assert "memory_mib" in problem["detail"]


def test_a_scoped_actor_is_told_of_the_classes_of_its_own_groups_alone() -> None:
    site = a_site()
    site.given("group.create", name="secret")
    site.given("host.register", name="s1", group="secret", capacity={"quantum": 8})
    site.given("host.register", name="h9", group="std", capacity={"fpga": 1})
    confined = Actor("pat", "operator", "payments")

    def detail(name: str) -> str:
        asked = {**a_vm(), "resources": {"cpu": 1, name: 64}}
        return str(site.refused("no_capacity", "vm.provision", actor=confined, **asked)["detail"])

    assert "fpga" in detail("fpgas")
    assert detail("quantum").replace("quantum", "x") == detail("nothing").replace("nothing", "x")
    assert "did you mean" not in detail("quantums")


def test_a_group_may_be_bound_to_a_region_before_its_first_rack_and_that_is_told() -> None:
    site = a_site()
    assert warned(site, "group.create", name="g2", region="nroth") == [("/region", "north")]
    assert warned(site, "group.create", name="g3", region="north") == []


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [
        ("tenant.create", [{"name": "a"}, {"name": "b"}]),
        ("rack.create", [{"name": n, "region": "north", "dc": "dc1"} for n in "ab"]),
        ("group.create", [{"name": "a"}, {"name": "b"}]),
        ("host.register", [{"name": n, "group": "std", "capacity": {"cpu": 1}} for n in "ab"]),
        ("quota.set", [{"group": "std", "tenant": t, "limits": {}} for t in ("acme", "payments")]),
        ("vm.provision", [a_vm("a", cpu=1), a_vm("b", cpu=1)]),
        ("token.create", [{"name": "a", "role": "viewer"}, {"name": "b", "role": "viewer"}]),
    ],
)
def test_an_external_id_that_another_of_the_kind_has_is_told(kind: str, bodies: list[dict[str, Any]]) -> None:
    site = a_site()
    assert warned(site, kind, **bodies[0], external_id="CMDB-1") == []
    assert warned(site, kind, **bodies[1], external_id="CMDB-1") == [("/external_id", None)]


def test_one_that_is_free_again_or_another_kind_s_is_not() -> None:
    site = a_site()
    site.given("tenant.create", name="a", external_id="CMDB-1")
    assert warned(site, "group.create", name="a", external_id="CMDB-1") == []
    assert warned(site, "tenant.update", tenant="a", external_id="CMDB-1") == []  # its own
    site.given("tenant.delete", tenant="a")
    assert warned(site, "tenant.create", name="b", external_id="CMDB-1") == []
    site.given("tenant.update", tenant="b", external_id=None)
    assert warned(site, "tenant.update", tenant="acme", external_id="CMDB-1") == []


def test_what_a_scoped_actor_does_not_see_is_not_told() -> None:
    site = a_site()
    site.given("tenant.create", name="other")
    site.given("quota.set", group="std", tenant="other", limits={})
    site.given("vm.provision", **{**a_vm("theirs", cpu=1), "tenant": "other"}, external_id="CMDB-1")
    confined = Actor("pat", "operator", "payments")
    mine = {**a_vm("mine", cpu=1), "external_id": "CMDB-1"}
    assert site.given("vm.provision", actor=confined, **mine).warnings == ()
    again = {**a_vm("again", cpu=1), "external_id": "CMDB-1"}
    (told,) = site.given("vm.provision", actor=confined, **again).warnings
    assert "payments/mine" in told.message
    assert "theirs" not in told.message


def test_a_repeat_has_the_warnings_of_the_first_answer() -> None:
    site = a_site()
    body: dict[str, Any] = {"group": "std", "tenant": "acme", "limits": {"memory_mb": 1}}
    first = site.given("quota.set", key="k1", fingerprint="f", **body)
    site.given("host.register", name="h9", group="std", capacity={"memory_mb": 1})
    again = site.given("quota.set", key="k1", fingerprint="f", **body)
    assert again.replayed
    assert again.warnings == first.warnings != ()
    assert isinstance(first.warnings[0], Warned)
    assert site.given("quota.set", dry_run=True, **{**body, "limits": {"cpus": 1}}).warnings != ()


def test_a_second_host_at_the_same_controller_is_refused() -> None:
    site = a_site()
    body: dict[str, Any] = {"group": "std", "capacity": {"cpu": 1}}
    site.given("host.register", name="a", **body, bmc={"address": "10.0.0.9"})
    problem = site.refused("already_exists", "host.register", name="b", **body, bmc={"address": "10.0.0.9"})
    assert (problem["name"], problem["used_by"]) == ("10.0.0.9", ["host/a"])
    assert "host/a" in problem["detail"]
    site.refused("already_exists", "host.update", host="h0", bmc={"address": "10.0.0.9", "protocol": "ipmi"})

    site.given("host.register", name="c1", **body, bmc={"address": "Chassis-1.example.", "system": "/1"})
    site.given("host.register", name="c2", **body, bmc={"address": "chassis-1.example", "system": "/2"})
    site.refused("already_exists", "host.update", host="c2", bmc={"system": "/1"})
    site.given("host.update", host="c2", bmc={"protocol": "redfish"})  # its own address is in nobody's way

    site.given("host.update", host="a", bmc=None)
    site.given("host.register", name="b", **body, bmc={"address": "10.0.0.9"})
    site.given("host.delete", host="b")
    site.given("host.update", host="a", bmc={"address": "10.0.0.9"})
    assert site.replayed().hosts_by_bmc == site.fleet.hosts_by_bmc


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("10.0.0.9", "10.0.0.9:443"),
        ("10.0.0.9", "https://10.0.0.9/"),
        ("10.0.0.9", "010.0.0.9"),
        ("10.0.0.9", "::ffff:10.0.0.9"),
        ("fe80::2", "[fe80::2]"),
        ("fe80::2", "https://[FE80:0::2]:443"),
        ("bmc-1.example", "BMC-1.example.:443"),
        ("10.0.0.9:8443", "https://10.0.0.9:8443"),
    ],
)
def test_a_controller_is_the_same_however_its_address_is_written(first: str, second: str) -> None:
    site = a_site()
    body: dict[str, Any] = {"group": "std", "capacity": {"cpu": 1}}
    site.given("host.register", name="a", **body, bmc={"address": first})
    site.refused("already_exists", "host.register", name="b", **body, bmc={"address": second})
    # Behind one address, another port leads to another controller.
    site.given("host.register", name="c", **body, bmc={"address": "10.0.0.9:9443"})


@pytest.mark.parametrize("nothing", ["NA", "none", "0.0.0.0", "To be filled by O.E.M."])
def test_what_stands_for_no_address_is_no_identity(nothing: str) -> None:
    site = a_site()
    for name in ("a", "b"):
        site.given("host.register", name=name, group="std", capacity={"cpu": 1}, bmc={"address": nothing})
