"""Whatever a controller does wrong, at each step of each operation: nothing leaks, nothing is given back too early.

After each fault the operation is brought to its end as a person or a well-behaved controller would bring it, and then
the VM is deleted: if anything had leaked, hosts and quotas would not be what they were before.
"""

from collections.abc import Callable

import pytest

from commands.writer.gateway import Actor, Answer
from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.vm import KIND as VM
from tests.commands.test_vms import accounts
from tests.deciding import ADMIN, ENGINE, HOUR_US, VM_CONTROLLER, Site, a_site, a_vm

WEB = {"tenant": "payments", "vm": "web-1"}
NAME = ("payments", "web-1")


def creating(site: Site) -> Answer:
    return site.given("vm.provision", **a_vm(cpu=4))


def growing(site: Site) -> Answer:
    site.finish(creating(site))
    return site.given("vm.resize", **WEB, resources={"cpu": 6, "memory_mib": 1024})


def shrinking(site: Site) -> Answer:
    site.finish(creating(site))
    return site.given("vm.resize", **WEB, resources={"cpu": 2, "memory_mib": 1024})


def stopping(site: Site) -> Answer:
    site.finish(creating(site))
    return site.given("vm.stop", **WEB)


def starting(site: Site) -> Answer:
    site.finish(stopping(site))
    return site.given("vm.start", **WEB)


def deleting(site: Site) -> Answer:
    site.finish(creating(site))
    return site.given("vm.delete", **WEB)


def deleting_what_is_created(site: Site) -> Answer:
    site.report(creating(site).operation, "started")
    return site.given("vm.delete", **WEB)


def cleaning_up(site: Site) -> Answer:
    """The compensation of a creation that failed."""
    answer = creating(site)
    site.report(answer.operation, "started")
    site.report(answer.operation, "failed", message="no image")
    return answer


OPERATIONS = (creating, growing, shrinking, stopping, starting, deleting, deleting_what_is_created, cleaning_up)
# Where nobody knows what stands, and no step undoes it, a person has to look.
NEEDS_A_PERSON = OPERATIONS[1:]

VERDICTS = ("succeeded", "failed")

Operation = Callable[[Site], Answer]


def step_of(site: Site, answer: Answer) -> tuple[str, int]:
    operation = site.fleet.get(OPERATION, answer.operation or "")
    assert operation is not None
    assert operation.current is not None
    return operation.current.name, operation.current.attempt


def report(
    site: Site,
    answer: Answer,
    step: str,
    attempt: int,
    outcome: str,
    *,
    by: Actor = VM_CONTROLLER,
    key: str | None = None,
) -> Answer:
    key = key or f"{answer.operation}:{step}:{attempt}:{outcome}"
    body = {"operation": answer.operation, "step": step, "attempt": attempt, "outcome": outcome}
    return site.when("operation.report", actor=by, key=key, **body)


def expire(site: Site, answer: Answer) -> None:
    """A controller begins, and is not heard of again."""
    step, attempt = step_of(site, answer)
    assert report(site, answer, step, attempt, "started").problem is None
    site.now += HOUR_US
    site.given("operation.expire", actor=ENGINE, operation=answer.operation, step=step, attempt=attempt)


def bring_to_its_end(site: Site, answer: Answer) -> None:
    """As well-behaved controllers do; a person has them try again what is stuck."""
    while (operation := site.fleet.get(OPERATION, answer.operation or "")) is not None:
        if operation.state == "stuck":
            site.given("operation.retry", operation=answer.operation)
            continue
        step, attempt = step_of(site, answer)
        if operation.current is not None and operation.current.state == "pending":
            assert report(site, answer, step, attempt, "started").problem is None
        assert report(site, answer, step, attempt, "succeeded").problem is None


def nothing_leaked(site: Site, before: list[object]) -> None:
    vm = site.fleet.get(VM, *NAME)
    if vm is not None:
        answer = site.given("vm.delete", **WEB)
        if answer.operation is not None:
            bring_to_its_end(site, answer)
    assert site.fleet.get(VM, *NAME) is None
    assert [_without_empty(account) for account in accounts(site)] == before
    assert site.replayed().living == site.fleet.living


def _without_empty(account: object) -> object:
    assert isinstance(account, tuple)
    return account[0], {name: amount for name, amount in account[1].items() if amount}


@pytest.fixture
def site() -> Site:
    return a_site()


@pytest.fixture
def before(site: Site) -> list[object]:
    return [_without_empty(account) for account in accounts(site)]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("has_begun", [False, True], ids=["refused", "broken off"])
def test_a_step_that_fails(site: Site, before: list[object], operation: Operation, has_begun: bool) -> None:
    answer = operation(site)
    held = accounts(site)
    step, attempt = step_of(site, answer)
    if has_begun:
        report(site, answer, step, attempt, "started")
    assert report(site, answer, step, attempt, "failed").problem is None
    if operation not in (growing, shrinking):
        assert accounts(site) == held, "it may still stand"
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_controller_that_hangs_or_crashes_before_its_report(
    site: Site, before: list[object], operation: Operation
) -> None:
    answer = operation(site)
    held = accounts(site)
    expire(site, answer)
    assert accounts(site) == held, "a passed deadline frees nothing"
    found = site.fleet.get(OPERATION, answer.operation or "")
    assert found is not None
    assert (found.state == "stuck") == (operation in NEEDS_A_PERSON)
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_that_nobody_begins_waits_however_long(site: Site, before: list[object], operation: Operation) -> None:
    answer = operation(site)
    held, (step, attempt) = accounts(site), step_of(site, answer)
    site.now += 1000 * HOUR_US
    assert answer.operation not in site.fleet.deadlines
    found = site.fleet.get(OPERATION, answer.operation or "")
    assert found is not None
    assert (found.state, found.waiting_for) == ("running", "controller vm")
    early = {"operation": answer.operation, "step": step, "attempt": attempt}
    site.refused("conflict", "operation.expire", actor=ENGINE, **early)
    assert report(site, answer, step, attempt, "started").problem is None
    assert site.fleet.deadlines[answer.operation or ""] > site.now, "its time begins with the work"
    assert accounts(site) == held
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_controller_that_crashes_after_the_work_and_does_it_again(
    site: Site, before: list[object], operation: Operation
) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    first = report(site, answer, step, attempt, "started")
    again = report(site, answer, step, attempt, "started")
    assert (again.replayed, again.position) == (True, first.position)
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_report_that_comes_twice(site: Site, before: list[object], operation: Operation, outcome: str) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    report(site, answer, step, attempt, "started")
    first = report(site, answer, step, attempt, outcome)
    rows = len(site.rows)
    again = report(site, answer, step, attempt, outcome)
    assert (again.replayed, again.position, len(site.rows)) == (True, first.position, rows)
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", NEEDS_A_PERSON)
@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_late_report_decides_what_is_stuck(
    site: Site, before: list[object], operation: Operation, outcome: str
) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    expire(site, answer)
    assert report(site, answer, step, attempt, outcome).problem is None
    found = site.fleet.get(OPERATION, answer.operation or "")
    if outcome == "succeeded" or operation in (growing, shrinking, stopping, starting):
        assert found is None, "it is known now what came of it"
    else:
        assert found is not None
        assert found.state == ("stuck" if operation is cleaning_up else "running")
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", NEEDS_A_PERSON)
def test_what_is_stuck_is_begun_by_nobody_until_a_person_says_so(
    site: Site, before: list[object], operation: Operation
) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    expire(site, answer)
    again = report(site, answer, step, attempt, "started", key="not a repeat")
    assert (again.status, again.problem and again.problem["code"]) == (409, "conflict")
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_report_of_what_is_being_undone_comes_too_late(site: Site, before: list[object], outcome: str) -> None:
    answer = creating(site)
    step, attempt = step_of(site, answer)
    expire(site, answer)
    held, rows = accounts(site), len(site.rows)
    late = report(site, answer, step, attempt, outcome)
    assert (late.status, late.problem and late.problem["code"]) == (409, "conflict")
    assert (accounts(site), len(site.rows)) == (held, rows + 1), "refused, and recorded"
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", NEEDS_A_PERSON)
@pytest.mark.parametrize("outcome", ["started", "succeeded", "failed"])
def test_a_report_of_an_old_attempt(site: Site, before: list[object], operation: Operation, outcome: str) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    expire(site, answer)
    site.given("operation.retry", operation=answer.operation)
    assert step_of(site, answer) == (step, attempt + 1)
    held = accounts(site)
    old = report(site, answer, step, attempt, outcome, key="not a repeat")
    assert (old.problem and old.problem["code"], accounts(site)) == ("conflict", held)
    bring_to_its_end(site, answer)
    nothing_leaked(site, before)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("outcome", ["started", "succeeded", "failed"])
def test_a_report_on_the_step_of_another(site: Site, before: list[object], operation: Operation, outcome: str) -> None:
    answer = operation(site)
    step, attempt = step_of(site, answer)
    held = accounts(site)
    refused = report(site, answer, step, attempt, outcome, by=Actor("ipam", "controller", origin="controller"))
    assert (refused.problem and refused.problem["code"], accounts(site)) == ("forbidden", held)
    invented = report(site, answer, "vm.reboot", attempt, outcome)
    assert (invented.problem and invented.problem["code"], accounts(site)) == ("conflict", held)
    bring_to_its_end(site, answer)
    over = report(site, answer, step, attempt, outcome, by=Actor("ipam", "controller", origin="controller"))
    assert over.problem and over.problem["code"] == "forbidden", "whatever became of it"
    nothing_leaked(site, before)


# What stands after a person's word, and how much of `cpu` it holds; None: nothing stands.
SETTLED = {
    (cleaning_up, "succeeded"): ("active", 4),
    (cleaning_up, "failed"): ("failed", 0),
    (growing, "succeeded"): ("active", 6),
    (growing, "failed"): ("active", 4),
    (shrinking, "succeeded"): ("active", 2),
    (shrinking, "failed"): ("active", 4),
    (stopping, "succeeded"): ("stopped", 4),
    (stopping, "failed"): ("active", 4),
    (starting, "succeeded"): ("active", 4),
    (starting, "failed"): ("stopped", 4),
    (deleting, "succeeded"): (None, 0),
    (deleting, "failed"): ("active", 4),
    (deleting_what_is_created, "succeeded"): (None, 0),
    (deleting_what_is_created, "failed"): ("failed", 4),
}


def test_every_operation_that_may_need_a_person_can_be_settled_either_way() -> None:
    assert SETTLED.keys() == {(operation, verdict) for operation in NEEDS_A_PERSON for verdict in VERDICTS}


@pytest.mark.parametrize("operation", NEEDS_A_PERSON)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_persons_word_means_the_same_for_every_operation(
    site: Site, before: list[object], operation: Operation, verdict: str
) -> None:
    answer = operation(site)
    expire(site, answer)
    held = accounts(site)
    body = {"operation": answer.operation, "as": verdict}
    for unsaid in (None, "", " "):
        problem = site.refused("validation", "operation.settle", reason=unsaid, **body)
        assert problem["errors"][0]["field"] == "/reason"
    assert accounts(site) == held
    site.settle(answer.operation, verdict, reason="looked at the hypervisor")
    assert site.fleet.get(OPERATION, answer.operation or "") is None
    vm = site.fleet.get(VM, *NAME)
    host, quota = site.fleet.get(HOST, "h0"), site.fleet.get(QUOTA, "std", "acme")
    assert host is not None
    assert quota is not None
    assert (vm and vm.state, host.used.get("cpu", 0)) == SETTLED[operation, verdict]
    assert quota.used.get("cpu", 0) == host.used.get("cpu", 0)
    if vm is not None and verdict == "failed":
        assert vm.reason == f"settled as failed by {ADMIN.name}: looked at the hypervisor"
    nothing_leaked(site, before)
