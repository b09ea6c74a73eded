"""What the system promises about VMs, from the request to the end."""

from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.vm import KIND as VM
from tests.deciding import ADMIN, ENGINE, HOUR_US, Site, a_site, a_vm

PROVISIONED = [
    "vm.scheduled",
    "host.claimed",
    "quota.consumed",
    "quota.consumed",
    "operation.started",
    "command.accepted",
]


def accounts(site: Site) -> list[object]:
    """Everything that a workload takes from: hosts and quotas."""
    states = (entry.state for _, entry in sorted(site.fleet.entries()))
    return [
        (state.name if hasattr(state, "name") else state.tenant, state.used)
        for state in states
        if hasattr(state, "used")
    ]


def test_a_provisioning_takes_host_and_quotas_of_the_whole_chain_at_once() -> None:
    site = a_site()
    answer = site.given("vm.provision", **a_vm(cpu=4))
    assert site.topics(answer) == PROVISIONED
    assert answer.status == 202
    assert site.fleet.get(VM, "payments", "web-1").state == "scheduled"
    assert [site.fleet.get(QUOTA, "std", t).used["cpu"] for t in ("acme", "payments")] == [4, 4]
    assert site.fleet.get(QUOTA, "std", "acme").used["vms"] == 1


def test_success_makes_it_active() -> None:
    site = a_site()
    answer = site.given("vm.provision", **a_vm())
    started = site.report(answer.operation, "started")
    assert site.topics(started) == ["operation.step_started.2", "vm.creating", "command.accepted"]
    done = site.report(answer.operation, "succeeded", outputs={"addresses": ["10.0.0.7"]})
    assert site.topics(done) == ["operation.step_succeeded", "operation.succeeded", "vm.activated", "command.accepted"]
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.addresses, vm.operation) == ("active", ("10.0.0.7",), None)


def test_a_failure_holds_everything_until_the_clean_up_is_confirmed_and_then_gives_all_back() -> None:
    site = a_site()
    before = accounts(site)
    answer = site.given("vm.provision", **a_vm())
    held = accounts(site)
    site.report(answer.operation, "started")
    failed = site.report(answer.operation, "failed", message="no image")
    assert site.topics(failed) == ["operation.step_failed", "command.accepted"]
    assert accounts(site) == held
    assert site.fleet.get(VM, "payments", "web-1").state == "creating"

    site.report(answer.operation, "started")
    confirmed = site.report(answer.operation, "succeeded")
    assert site.topics(confirmed) == [
        "operation.step_succeeded",
        "operation.failed",
        "vm.failed",
        "host.released",
        "quota.released",
        "quota.released",
        "command.accepted",
    ]
    assert accounts(site) == before
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.host, vm.reason) == ("failed", None, "no image")


def test_a_failed_vm_keeps_its_name_until_it_is_deleted_without_an_operation() -> None:
    site = a_site()
    answer = site.given("vm.provision", **a_vm())
    site.report(answer.operation, "failed")
    site.report(answer.operation, "succeeded")
    site.refused("already_exists", "vm.provision", **a_vm())
    gone = site.given("vm.delete", tenant="payments", vm="web-1")
    assert (gone.status, gone.operation, gone.resource["state"]) == (200, None, "deleted")
    site.given("vm.provision", **a_vm())


def test_a_deadline_that_passes_frees_nothing_and_starts_the_clean_up() -> None:
    site = a_site()
    answer = site.given("vm.provision", **a_vm())
    held = accounts(site)
    site.report(answer.operation, "started")
    site.now += HOUR_US
    expired = site.given("operation.expire", actor=ENGINE, operation=answer.operation, step="vm.create", attempt=1)
    assert site.topics(expired)[0] == "operation.step_failed"
    assert accounts(site) == held
    late = site.report(answer.operation, "succeeded", step="vm.create")
    assert late.problem["code"] == "conflict"
    assert site.fleet.get(OPERATION, answer.operation).current.name == "vm.delete"


def test_a_clean_up_that_cannot_be_confirmed_is_stuck_and_holds_until_a_person_decides() -> None:
    site = a_site()
    before = accounts(site)
    answer = site.given("vm.provision", **a_vm())
    held = accounts(site)
    site.report(answer.operation, "failed")
    site.report(answer.operation, "failed", message="hypervisor gone")
    assert site.fleet.get(OPERATION, answer.operation).state == "stuck"
    assert accounts(site) == held

    site.given("operation.retry", operation=answer.operation)
    assert site.report(answer.operation, "succeeded", step="vm.delete", attempt=1).problem["code"] == "conflict"
    site.report(answer.operation, "failed", attempt=2)
    assert accounts(site) == held
    site.settle(answer.operation, "failed", reason="host was scrapped")
    assert accounts(site) == before


def test_a_deletion_while_creating_cancels_and_returns_claims_only_with_the_deletion() -> None:
    site = a_site()
    before = accounts(site)
    creation = site.given("vm.provision", **a_vm())
    held = accounts(site)
    deletion = site.given("vm.delete", tenant="payments", vm="web-1")
    assert site.topics(deletion) == ["operation.cancelled", "vm.deleting", "operation.started", "command.accepted"]
    assert accounts(site) == held
    assert site.fleet.get(OPERATION, creation.operation) is None
    done = site.finish(deletion)
    assert site.topics(done) == [
        "operation.step_succeeded",
        "operation.succeeded",
        "host.released",
        "quota.released",
        "quota.released",
        "vm.deleted",
        "command.accepted",
    ]
    assert accounts(site) == before


def test_a_resize_claims_the_larger_amount_and_returns_the_difference_when_the_outcome_is_known() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm(cpu=4, memory_mib=1024)))
    resize = site.given("vm.resize", tenant="payments", vm="web-1", resources={"cpu": 2, "memory_mib": 4096})
    assert site.fleet.get(HOST, "h0").used == {"cpu": 4, "memory_mib": 4096}
    site.finish(resize)
    assert site.fleet.get(HOST, "h0").used == {"cpu": 2, "memory_mib": 4096}

    resize = site.given("vm.resize", tenant="payments", vm="web-1", resources={"cpu": 8, "memory_mib": 4096})
    site.report(resize.operation, "failed")
    assert site.fleet.get(HOST, "h0").used == {"cpu": 2, "memory_mib": 4096}


def test_a_resize_beyond_the_host_is_refused_with_what_is_short() -> None:
    site = a_site(cpu=8)
    site.finish(site.given("vm.provision", **a_vm(cpu=4)))
    problem = site.refused(
        "no_capacity", "vm.resize", tenant="payments", vm="web-1", resources={"cpu": 9, "memory_mib": 1024}
    )
    assert problem["nearest"] == {"host": "h0", "short": {"cpu": 1}}
    assert problem["requested"] == {"cpu": 9, "memory_mib": 1024}
    assert problem["largest_fit"] == {"cpu": 8, "memory_mib": 910}


def test_what_becomes_of_a_vm_leaves_others_of_its_shape_as_they_are() -> None:
    """They share one mapping of what they were asked with."""
    site = a_site(hosts=4)
    for name in ("web-1", "web-2", "web-3"):
        site.finish(site.given("vm.provision", **a_vm(name, cpu=2)))
    site.finish(site.given("vm.resize", tenant="payments", vm="web-1", resources={"cpu": 4, "memory_mib": 512}))
    site.finish(site.given("vm.stop", tenant="payments", vm="web-1"))
    site.finish(site.given("vm.delete", tenant="payments", vm="web-2"))
    site.finish(site.given("vm.provision", **a_vm("web-4", cpu=2)))
    asked = {"cpu": 2, "memory_mib": 1024}
    for name in ("web-3", "web-4"):
        vm = site.fleet.get(VM, "payments", name)
        assert (vm.resources, vm.claims) == (asked, asked)
    assert site.fleet.get(QUOTA, "std", "payments").used == {"cpu": 8, "memory_mib": 2560, "vms": 3}


def test_a_stopped_vm_keeps_its_claims() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    held = accounts(site)
    site.finish(site.given("vm.stop", tenant="payments", vm="web-1"))
    assert site.fleet.get(VM, "payments", "web-1").state == "stopped"
    assert accounts(site) == held
    site.finish(site.given("vm.start", tenant="payments", vm="web-1"))
    assert site.fleet.get(VM, "payments", "web-1").state == "active"


def test_quota_is_refused_before_capacity_with_every_tenant_that_is_short() -> None:
    site = a_site(cpu=1, quota={"cpu": 3, "vms": 0})
    problem = site.refused("quota_exceeded", "vm.provision", **a_vm(cpu=4))
    assert [(s["tenant"], s["resource"], s["short"]) for s in problem["shortfalls"]] == [
        ("payments", "cpu", 1),
        ("payments", "vms", 1),
        ("acme", "cpu", 1),
        ("acme", "vms", 1),
    ]


def test_no_quota_no_access() -> None:
    site = a_site()
    site.given("group.create", name="gpu")
    problem = site.refused("no_quota", "vm.provision", **a_vm(group="gpu"))
    assert problem["groups"] == ["std"]


def test_a_refusal_for_capacity_names_the_groups_that_would_take_it() -> None:
    site = a_site(hosts=1, cpu=2)
    for name, granted in (("big", True), ("foreign", False)):
        site.given("group.create", name=name)
        site.given("host.register", name=f"{name}-1", group=name, capacity={"cpu": 64, "memory_mib": 65536})
        if granted:
            site.given("quota.set", group=name, tenant="payments", limits={})
    problem = site.refused("no_capacity", "vm.provision", **a_vm(cpu=4, memory_mib=1024))
    assert problem["alternatives"] == [
        {"group": "big", "hosts": 1, "quota_ok": True},
        {"group": "foreign", "hosts": 1, "quota_ok": False},
    ]
    assert problem["largest_fit"] == {"cpu": 2, "memory_mib": 512}
    assert problem["reasons"] == [{"reason": "insufficient:cpu", "hosts": 1}]
    assert problem["nearest"] == {"host": "h0", "short": {"cpu": 2}}


def test_of_several_groups_the_least_loaded_wins_and_all_are_explained() -> None:
    site = a_site(hosts=1, cpu=8)
    site.given("group.create", name="big")
    site.given("host.register", name="big-1", group="big", capacity={"cpu": 64, "memory_mib": 65536})
    site.given("quota.set", group="big", tenant="payments", limits={})
    site.given("vm.provision", **a_vm("one", group=["std", "big"]))
    assert site.fleet.get(VM, "payments", "one").host == "big-1"
    site.given("vm.provision", **a_vm("two", group="*"))
    assert site.fleet.get(VM, "payments", "two").host == "big-1"


def test_of_several_groups_that_all_refuse_each_problem_is_told() -> None:
    site = a_site(hosts=1, cpu=2)
    site.given("group.create", name="gpu")
    problem = site.refused("no_capacity", "vm.provision", **a_vm(group=["gpu", "std"]))
    assert {p["group"]: p["code"] for p in problem["groups"]} == {"gpu": "no_quota", "std": "no_capacity"}
    assert problem["group"] == ["gpu", "std"]


def test_a_suspended_tenant_gets_nothing_new_or_larger_and_nothing_is_stopped() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm(cpu=2)))
    site.given("tenant.suspend", tenant="acme")
    assert site.refused("suspended", "vm.provision", **a_vm("web-2"))["tenant"] == "acme"
    site.refused("suspended", "vm.resize", tenant="payments", vm="web-1", resources={"cpu": 3, "memory_mib": 1024})
    site.finish(site.given("vm.resize", tenant="payments", vm="web-1", resources={"cpu": 1, "memory_mib": 1024}))
    site.given("tenant.resume", tenant="acme")
    site.given("vm.provision", **a_vm("web-2"))


def test_a_protected_vm_is_not_deleted() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    site.given("vm.update", tenant="payments", vm="web-1", protected=True)
    problem = site.refused("protected", "vm.delete", tenant="payments", vm="web-1")
    assert problem["name"] == "payments/web-1"
    site.given("vm.update", tenant="payments", vm="web-1", protected=None)
    site.given("vm.delete", tenant="payments", vm="web-1")


def test_the_same_key_gets_the_first_answer_and_another_request_with_it_is_refused() -> None:
    site = a_site()
    first = site.when("vm.provision", key="k1", fingerprint="f", **a_vm())
    again = site.when("vm.provision", key="k1", fingerprint="f", **a_vm())
    assert (again.replayed, again.position, again.command) == (True, first.position, first.command)
    other = site.when("vm.provision", key="k1", fingerprint="g", **a_vm("web-2"))
    assert other.problem["code"] == "idempotency_mismatch"
    assert len(list(site.fleet.streams(VM, tenant="payments"))) == 1


def test_a_refusal_is_remembered_too() -> None:
    site = a_site()
    first = site.when("vm.start", key="k1", tenant="payments", vm="nope")
    site.given("vm.provision", **a_vm("nope"))
    again = site.when("vm.start", key="k1", tenant="payments", vm="nope")
    assert again.replayed
    assert again.problem == first.problem


def test_a_dry_run_answers_as_if_and_changes_nothing() -> None:
    site = a_site()
    before, position, rows = accounts(site), site.fleet.position, len(site.rows)
    answer = site.when("vm.provision", dry_run=True, **a_vm())
    assert answer.status == 202
    assert (accounts(site), site.fleet.position, len(site.rows)) == (before, position, rows)
    assert site.fleet.get(VM, "payments", "web-1") is None


def test_a_version_that_moved_on_is_a_mismatch() -> None:
    site = a_site()
    version = site.fleet.entry("host/h0").version
    site.given("host.cordon", host="h0", if_match=version)
    assert site.refused("version_mismatch", "host.uncordon", host="h0", if_match=version)["version"] > version


def test_a_scoped_operator_commands_its_own_vms_and_nothing_else() -> None:
    site = a_site()
    site.given("tenant.create", name="other")
    site.given("quota.set", group="std", tenant="other", limits={})
    confined = type(ADMIN)("pat", "operator", "payments")
    site.given("vm.provision", actor=confined, **a_vm())
    site.refused("not_found", "vm.provision", actor=confined, **{**a_vm(), "tenant": "other"})
    site.refused("not_found", "host.cordon", actor=confined, host="h0")
    site.refused("not_found", "tenant.create", actor=confined, name="new")
    site.refused("forbidden", "token.create", actor=type(ADMIN)("op", "operator"), name="t", role="viewer")


def test_an_unknown_name_gets_a_suggestion() -> None:
    site = a_site()
    problem = site.refused("not_found", "vm.provision", **{**a_vm(), "tenant": "paymets"})
    assert (problem["kind"], problem["name"], problem["did_you_mean"]) == ("tenant", "paymets", "payments")


def test_replaying_the_log_gives_the_same_fleet() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    site.report(site.given("vm.provision", **a_vm("web-2")).operation, "failed")
    assert site.replayed().living == site.fleet.living
