"""What controllers may report, and what becomes of an operation that a person stops or that is stuck."""

from typing import Any

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from domain.fleet import Fleet
from domain.operation import KIND as OPERATION
from domain.operation import OperationStarted, Step, evolve
from domain.recorded import Recorded
from domain.vm import KIND as VM
from eventlog.codec import Row, decode
from tests.commands.test_vms import accounts
from tests.deciding import ENGINE, HOUR_US, START_US, VM_CONTROLLER, Site, a_site, a_vm

OPERATION_ID = "01a20f26-aa2c-7525-8531-d59adc8dacf6"
WEB = {"tenant": "payments", "vm": "web-1"}


@pytest.mark.parametrize("outputs", [{"a": "b\0"}, {"a\0": "b"}, {"a": [{"b": "\0"}]}, {"a": [{"\0": 1}]}])
def test_a_report_with_a_nul_anywhere_in_its_outputs_is_not_valid(outputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        COMMANDS["operation.report"].model_validate(
            {
                "operation": "01a20f26-aa2c-7525-8531-d59adc8dacf6",
                "step": "vm.create",
                "attempt": 1,
                "outcome": "succeeded",
                "outputs": outputs,
            }
        )


def test_what_was_cancelled_ends_cancelled_once_it_is_undone() -> None:
    site = a_site()
    provision = site.given("vm.provision", **a_vm())
    site.report(provision.operation, "started")
    site.given("operation.cancel", operation=provision.operation)
    assert site.fleet.get(VM, "payments", "web-1").claims
    undone = site.report(provision.operation, "succeeded")
    assert site.topics(undone)[:3] == ["operation.step_succeeded", "operation.cancelled", "vm.failed"]
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.host, vm.reason) == ("failed", None, "cancelled by ann")


def test_a_stuck_step_says_why_until_it_is_tried_again() -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    site.report(operation, "failed", message="disk full")
    site.report(operation, "failed", message="no answer")
    assert site.fleet.get(OPERATION, operation).state == "stuck"
    assert [step.message for step in site.fleet.get(OPERATION, operation).steps] == [
        "disk full",
        "vm.delete: no answer",
    ]
    site.given("operation.retry", operation=operation)
    assert [step.message for step in site.fleet.get(OPERATION, operation).steps] == ["disk full", None]
    site.report(operation, "succeeded", attempt=2)
    assert site.fleet.get(VM, "payments", "web-1").reason == "disk full"


# ── what nobody began ──


def test_what_nobody_began_is_cancelled_and_free_at_once() -> None:
    site = a_site()
    before = accounts(site)
    provision = site.given("vm.provision", **a_vm())
    cancelled = site.given("operation.cancel", operation=provision.operation)
    assert site.topics(cancelled) == [
        "operation.cancelled",
        "vm.failed",
        "host.released",
        "quota.released",
        "quota.released",
        "command.accepted",
    ]
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.host, vm.reason) == ("failed", None, "cancelled by ann")
    assert accounts(site) == before
    late = report_of(site, provision.operation, "vm.create", "started")
    assert late["code"] == "conflict", "whoever takes the work later must not begin it"


@pytest.mark.parametrize(("verb", "former"), [("stop", "active"), ("start", "stopped"), ("resize", "active")])
def test_a_change_that_nobody_began_is_cancelled_and_leaves_the_vm_as_it_was(verb: str, former: str) -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    if former == "stopped":
        site.finish(site.given("vm.stop", **WEB))
    held = accounts(site)
    body = {"resources": {"cpu": 6, "memory_mib": 1024}} if verb == "resize" else {}
    change = site.given(f"vm.{verb}", **WEB, **body)
    site.given("operation.cancel", operation=change.operation)
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.operation, vm.reason) == (former, None, "cancelled by ann")
    assert accounts(site) == held


def test_what_has_begun_and_cannot_be_undone_is_not_cancelled() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    stop = site.given("vm.stop", **WEB)
    site.report(stop.operation, "started")
    problem = site.refused("invalid_state", "operation.cancel", operation=stop.operation)
    assert (problem["state"], problem["operation"]) == ("running", stop.operation)
    assert "vm.stop can't be cancelled now" in problem["detail"]


def test_a_log_of_old_is_read_with_the_deadline_of_the_steps_turn_which_counts_once_it_is_started() -> None:
    fleet, steps = Fleet(), (Step("vm.create", deadline=START_US + HOUR_US, compensation="vm.delete"),)
    begun = OperationStarted("vm.provision", "vm/payments/web-1", steps, {}, START_US)
    fleet.fold(Recorded("operation/o", 1, 1, START_US, "ann", "c", begun))
    assert ("o" in fleet.outstanding, fleet.deadlines) == (True, {}), "it waits, whatever it was given"
    state = b'{"at":%d,"actor":"vm","command":"c","data":{"step":"vm.create","attempt":1}}' % (START_US + 1)
    fleet.fold(decode(Row("operation/o", 2, 2, "operation.step_started", state)))
    assert ("o" in fleet.outstanding, fleet.deadlines) == (False, {"o": START_US + HOUR_US})


# ── refusals that name the operation, and the ways out ──


def test_a_second_verb_is_told_which_operation_is_in_its_way_and_the_ways_out() -> None:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    deletion = site.given("vm.delete", **WEB).operation
    for kind in ("vm.delete", "vm.stop", "vm.start"):
        problem = site.refused("invalid_state", kind, **WEB)
        assert (problem["state"], problem["operation"]) == ("deleting", deletion)
        assert f"Operation {deletion} waits for controller vm" in problem["detail"]
    site.report(deletion, "failed", message="no such host", retryable=False)
    problem = site.refused("invalid_state", "vm.delete", **WEB)
    assert (problem["operation"], problem["ways_out"]) == (deletion, ["retry", "settle"])
    assert problem["detail"].endswith(f"Operation {deletion} is stuck: retry or settle it.")


@pytest.mark.parametrize(("kind", "body"), [("retry", {}), ("settle", {"as": "failed", "reason": "seen"})])
def test_what_runs_is_neither_retried_nor_settled(kind: str, body: dict[str, Any]) -> None:
    site = a_site()
    provision = site.given("vm.provision", **a_vm()).operation
    for way_out in ("wait for its end, or cancel it", "wait for its end, or cancel it", "wait for its end"):
        problem = site.refused("invalid_state", f"operation.{kind}", operation=provision, **body)
        assert (problem["state"], problem["allowed"], problem["operation"]) == ("running", ["stuck"], provision)
        assert problem["detail"].endswith(f"{way_out}.")
        if way_out.endswith("cancel it") and site.fleet.get(OPERATION, provision).current.state == "started":
            site.given("operation.cancel", operation=provision)
        site.report(provision, "started")


def test_what_is_stuck_is_not_cancelled() -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    site.report(operation, "failed")
    site.report(operation, "failed")
    problem = site.refused("invalid_state", "operation.cancel", operation=operation)
    assert problem["detail"].endswith("is stuck: retry or settle it.")


# ── a person's word ──


def test_a_creation_that_stands_all_the_same_is_settled_with_its_addresses() -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    site.report(operation, "failed")
    site.report(operation, "failed", message="hypervisor gone")
    held = accounts(site)
    settled = site.given(
        "operation.settle",
        operation=operation,
        reason="it answers",
        outputs={"addresses": ["10.0.0.9"]},
        **{"as": "succeeded"},
    )
    assert site.topics(settled) == [
        "operation.settled",
        "operation.succeeded",
        "vm.activated",
        "command.accepted",
    ]
    vm = site.fleet.get(VM, "payments", "web-1")
    assert (vm.state, vm.addresses, vm.operation) == ("active", ("10.0.0.9",), None)
    assert accounts(site) == held
    site.finish(site.given("vm.delete", **WEB))


@pytest.mark.parametrize("verdict", ["succeeded", "failed"])
def test_a_deletion_that_no_controller_begins_is_settled(verdict: str) -> None:
    """Its controller may be gone for good; nothing else would ever end it, as a deletion is not cancelled."""
    site = a_site()
    before = accounts(site)
    site.finish(site.given("vm.provision", **a_vm()))
    held = accounts(site)
    deletion = site.given("vm.delete", **WEB).operation
    site.refused("invalid_state", "operation.cancel", operation=deletion)
    site.settle(deletion, verdict)
    assert accounts(site) == (before if verdict == "succeeded" else held)
    assert report_of(site, deletion, "vm.delete", "started")["code"] == "conflict"


@pytest.mark.parametrize(("verdict", "state"), [("succeeded", "succeeded"), ("failed", "cancelled")])
def test_a_step_reads_as_it_was_settled(verdict: str, state: str) -> None:
    """Not as what it was stuck on."""
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm()))
    deletion = site.given("vm.delete", **WEB).operation
    site.report(deletion, "started")
    site.now += HOUR_US
    site.given("operation.expire", actor=ENGINE, operation=deletion, step="vm.delete", attempt=1)
    assert site.fleet.get(OPERATION, deletion).steps[0].message == "vm.delete: no report before its deadline"
    (step,) = settled_steps(site, deletion, verdict)
    assert (step.state, step.message) == (state, f"settled as {verdict} by ann: looked at the hypervisor")


def test_what_was_to_undo_a_creation_that_stands_is_not_said_to_be_done() -> None:
    site = a_site()
    creation = site.given("vm.provision", **a_vm()).operation
    site.report(creation, "failed", message="disk full")
    site.report(creation, "failed", message="no answer")
    made, undoing = settled_steps(site, creation, "succeeded")
    assert (made.state, made.message) == ("failed", "disk full")
    assert (undoing.state, undoing.message) == ("cancelled", "settled as succeeded by ann: looked at the hypervisor")


def settled_steps(site: Site, operation: str | None, verdict: str) -> tuple[Step, ...]:
    """As the log has them: what is over has left the fleet."""
    standing = site.fleet.get(OPERATION, operation)
    site.settle(operation, verdict)
    events = [decode(row).event for row in site.rows if row.stream == f"operation/{operation}"]
    for event in events[-2:]:
        standing = evolve(standing, event)
    assert standing.is_over
    return standing.steps


def test_what_was_cancelled_and_is_settled_as_failed_ends_cancelled() -> None:
    site = a_site()
    before = accounts(site)
    operation = site.given("vm.provision", **a_vm()).operation
    site.report(operation, "started")
    site.given("operation.cancel", operation=operation)
    site.report(operation, "failed", message="no answer")
    settled = site.settle(operation, "failed")
    assert site.topics(settled)[:3] == ["operation.settled", "operation.cancelled", "vm.failed"]
    assert accounts(site) == before


def test_the_operation_of_a_stuck_creation_is_superseded_by_a_deletion() -> None:
    site = a_site()
    before = accounts(site)
    creation = site.given("vm.provision", **a_vm()).operation
    site.report(creation, "failed")
    site.report(creation, "failed")
    held = accounts(site)
    deletion = site.given("vm.delete", **WEB)
    assert site.fleet.get(OPERATION, creation) is None
    assert accounts(site) == held
    site.finish(deletion)
    assert accounts(site) == before


@pytest.mark.parametrize("verb", [("cancel", {}), ("retry", {}), ("settle", {"as": "failed", "reason": "seen"})])
@pytest.mark.parametrize(
    ("outcome", "how"), [("succeeded", "has succeeded"), ("failed", "has failed"), ("cancelled", "was cancelled")]
)
def test_a_person_who_comes_too_late_is_told_how_it_ended_and_what_to_do(
    verb: tuple[str, dict[str, Any]], outcome: str, how: str
) -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    if outcome == "cancelled":
        site.given("operation.cancel", operation=operation)
    else:
        site.report(operation, "started")
        site.report(operation, outcome)
    if outcome == "failed":
        site.report(operation, "succeeded")  # undone
    stream = f"operation/{operation}"
    last = next(row for row in reversed(site.rows) if row.stream == stream)  # as a look-up finds it
    kind, body = verb
    for known in (last, None):  # None: it ended between the look-up and the decision
        problem = site.refused(
            "conflict", f"operation.{kind}", known={stream: known}, operation=operation, key=None, **body
        )
        assert (how if known is not None else "is over") in problem["detail"]
        assert f"nothing left to {kind}" in problem["detail"]
        assert "forget" not in problem["detail"]
    assert "drop this work" in report_of(site, operation, "vm.create", "started")["detail"]


def test_a_creation_settled_without_addresses_is_warned_of() -> None:
    site = a_site()
    for name, outputs, is_warned in (
        ("a", None, True),
        ("b", {"adresses": ["10.0.0.9"]}, True),
        ("c", {"addresses": []}, True),
        ("d", {"addresses": ["10.0.0.9"]}, False),
    ):
        operation = site.given("vm.provision", **a_vm(name)).operation
        site.report(operation, "failed")
        site.report(operation, "failed", message="hypervisor gone")
        body = {"operation": operation, "as": "succeeded", "reason": "it answers", "outputs": outputs}
        answer = site.given("operation.settle", **body)
        assert [warned.field for warned in answer.warnings] == ["/outputs/addresses"] * is_warned, name
        deletion = site.given("vm.delete", tenant="payments", vm=name)
        assert not site.settle(deletion.operation, "succeeded").warnings


def report_of(site: Site, operation: str | None, step: str, outcome: str) -> dict[str, Any]:
    """The problem of a report on an operation that is over."""
    body = {"operation": operation, "step": step, "attempt": 1, "outcome": outcome}
    answer = site.when("operation.report", actor=VM_CONTROLLER, known={f"operation/{operation}": None}, **body)
    assert answer.problem is not None
    return answer.problem


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"addresses": ["10.0.0.1\x1b[31m"]}, "addresses/0"),
        ({"addresses": ["10.0.0.1", "\u202e10.0.0.1"]}, "addresses/1"),
        ({"addresses": ["999.1.1.1"]}, "addresses/0"),
        ({"addresses": ["fe80::1%\x1b"]}, "addresses/0"),
        ({"addresses": ["=cmd()"]}, "addresses/0"),
        ({"addresses": [5]}, "addresses/0"),
        ({"addresses": "10.0.0.1"}, "addresses"),
        ({"addresses": ["10.0.0.1"] * 65}, "addresses"),
        ({"n": 10**400}, "n has a number"),
        ({"deep": [{"n": 2**53}]}, "deep has a number"),
    ],
)
def test_outputs_that_are_not_what_they_say_are_refused(outputs: dict[str, Any], said: str) -> None:
    for kind, rest in (
        ("operation.report", {"step": "vm.create", "attempt": 1, "outcome": "succeeded"}),
        ("operation.settle", {"as": "succeeded"}),
    ):
        with pytest.raises(ValidationError, match=said):
            COMMANDS[kind].model_validate({"operation": OPERATION_ID, "outputs": outputs, **rest})


def test_outputs_that_are_addresses_and_numbers_are_taken() -> None:
    outputs = {"addresses": ["10.0.0.1", "2001:db8::1"], "n": 2**53 - 1, "ratio": 1e300, "is": True}
    report = {"operation": OPERATION_ID, "step": "vm.create", "attempt": 1, "outcome": "succeeded", "outputs": outputs}
    assert COMMANDS["operation.report"].model_validate(report).outputs == outputs


def test_a_message_of_a_controller_is_kept_as_it_may_be_shown() -> None:
    report = {"operation": OPERATION_ID, "step": "vm.create", "attempt": 1, "outcome": "failed"}
    made = COMMANDS["operation.report"].model_validate({**report, "message": "bad\x1b[31m\nline\u202e é"})
    assert made.message == "bad\\u001b[31m\nline\\u202e é"
