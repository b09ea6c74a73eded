"""A deletion only goes forward: it is tried again, then it is stuck, and never does a VM hang in between."""

from typing import Any

import pytest

from domain.entry import Entry
from domain.invariants import violations
from domain.operation import ATTEMPTS_MAX
from domain.operation import KIND as OPERATION
from domain.vm import KIND as VM
from domain.vm import VmChangeFailed, VmDeleting, VmScheduled, evolve
from tests.commands.test_vms import accounts
from tests.deciding import Site, a_site, a_vm

WEB = {"tenant": "payments", "vm": "web-1"}


def the_vm(site: Site) -> Any:
    return site.fleet.get(VM, "payments", "web-1")


def a_deletion(site: Site, *, while_creating: bool = False) -> str:
    creation = site.given("vm.provision", **a_vm())
    if while_creating:
        site.report(creation.operation, "started")
    else:
        site.finish(creation)
    return site.given("vm.delete", **WEB).operation or ""


def fail_until_stuck(site: Site, operation: str) -> None:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        site.report(operation, "started", attempt=attempt)
        site.report(operation, "failed", attempt=attempt, message=f"busy {attempt}", code="locked")
    assert site.fleet.get(OPERATION, operation).state == "stuck"


def test_a_failed_deletion_is_tried_again_and_is_stuck_after_its_last_attempt() -> None:
    site = a_site()
    deletion = a_deletion(site)
    held = accounts(site)
    site.report(deletion, "started")
    failed = site.report(deletion, "failed", message="busy", code="locked")
    assert site.topics(failed) == ["operation.retried", "command.accepted"]
    (step,) = site.fleet.get(OPERATION, deletion).steps
    assert (step.state, step.attempt, step.message) == ("pending", 2, "busy")
    assert step.not_before > site.fleet.at, "a hypervisor that is busy is given some time"
    site.report(deletion, "failed", attempt=2)
    stuck = site.report(deletion, "failed", attempt=3, message="still busy")
    assert site.topics(stuck) == ["operation.stuck", "command.accepted"]
    assert (the_vm(site).state, the_vm(site).operation) == ("deleting", deletion)
    assert accounts(site) == held
    site.given("operation.retry", operation=deletion)
    site.report(deletion, "succeeded", attempt=4)
    assert the_vm(site) is None


def test_each_wait_before_an_attempt_is_longer_than_the_one_before() -> None:
    site = a_site()
    deletion = a_deletion(site)
    waits = []
    for attempt in range(1, ATTEMPTS_MAX):
        site.report(deletion, "failed", attempt=attempt)
        waits.append(site.fleet.get(OPERATION, deletion).current.not_before - site.fleet.at)
    assert waits == sorted(set(waits))


def test_what_is_not_worth_another_attempt_is_stuck_at_once() -> None:
    site = a_site()
    deletion = a_deletion(site)
    site.report(deletion, "started")
    site.report(deletion, "failed", message="no such hypervisor", retryable=False, code="unknown_host")
    operation = site.fleet.get(OPERATION, deletion)
    assert (operation.state, operation.reason, operation.waiting_for) == (
        "stuck",
        "vm.delete: no such hypervisor",
        "a person",
    )


def test_a_deletion_during_the_creation_that_fails_is_stuck_and_settled_as_failed_leaves_a_failed_vm() -> None:
    site = a_site()
    before = accounts(site)
    deletion = a_deletion(site, while_creating=True)
    held = accounts(site)
    fail_until_stuck(site, deletion)
    assert (the_vm(site).state, the_vm(site).operation) == ("deleting", deletion)
    site.settle(deletion, "failed", reason="it stands")
    vm = the_vm(site)
    assert (vm.state, vm.operation, vm.host) == ("failed", None, "h0")
    assert vm.reason == "settled as failed by ann: it stands"
    assert accounts(site) == held, "it may stand, so it holds"
    again = site.given("vm.delete", **WEB)
    assert (again.status, the_vm(site).state) == (202, "deleting")
    fail_until_stuck(site, again.operation or "")
    site.settle(again.operation, "failed")
    assert the_vm(site).state == "failed"
    site.finish(site.given("vm.delete", **WEB))
    assert the_vm(site) is None
    assert accounts(site) == before
    assert site.replayed().living == site.fleet.living


def test_a_log_of_old_in_which_a_deletion_during_creation_failed_leaves_a_failed_vm() -> None:
    """Berth once gave such a VM its state in progress back; nothing would have ended it."""
    scheduled = VmScheduled("u", "payments", "web-1", "std", "h0", {"cpu": 1}, "op-1", {})
    state: Any = None
    for event in (scheduled, VmDeleting("op-2"), VmChangeFailed("busy")):
        state = evolve(state, event)
    assert (state.state, state.reason, state.claims) == ("failed", "busy", {"cpu": 1})


@pytest.mark.parametrize("state", ["scheduled", "creating", "updating", "deleting"])
def test_a_state_in_progress_without_its_operation_is_a_violation(state: str) -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    _put(site, the_vm(site), state=state)
    assert violations(site.fleet) == [f"vm/payments/web-1 is {state} without an operation"]
    _put(site, the_vm(site), state=state, operation="gone")
    assert violations(site.fleet) == [f"vm/payments/web-1 is {state} by operation gone, which does not run there"]


def test_an_operation_that_its_target_does_not_know_is_a_violation() -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    _put(site, the_vm(site), state="active", operation=None)
    assert violations(site.fleet) == [f"operation/{operation} is running, and vm/payments/web-1 knows nothing of it"]
    _put(site, the_vm(site), state="active", operation=operation)
    assert violations(site.fleet) == [f"vm/payments/web-1 is active, and has operation {operation}"]


def _put(site: Site, vm: Any, **changes: Any) -> None:
    entry = site.fleet.entry("vm/payments/web-1")
    changed = type(vm)(**{**{name: getattr(vm, name) for name in vm.__struct_fields__}, **changes})
    site.fleet.put("vm/payments/web-1", entry, Entry(changed, entry.version, entry.created_at, entry.updated_at))
