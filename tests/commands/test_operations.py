"""What controllers may report, and what becomes of an operation that a person stops or that is stuck."""

from typing import Any

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from tests.deciding import a_site, a_vm


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
    site.given("operation.cancel", operation=provision.operation)
    assert site.fleet.vm("payments", "web-1").claims
    undone = site.report(provision.operation, "succeeded")
    assert site.topics(undone)[:3] == ["operation.step_succeeded", "operation.cancelled", "vm.failed"]
    vm = site.fleet.vm("payments", "web-1")
    assert (vm.state, vm.host, vm.reason) == ("failed", None, "cancelled by ann")


def test_a_stuck_step_says_why_until_it_is_tried_again() -> None:
    site = a_site()
    operation = site.given("vm.provision", **a_vm()).operation
    site.report(operation, "failed", message="disk full")
    site.report(operation, "failed", message="no answer")
    assert site.fleet.operation(operation).state == "stuck"
    assert [step.message for step in site.fleet.operation(operation).steps] == ["disk full", "vm.delete: no answer"]
    site.given("operation.retry", operation=operation)
    assert [step.message for step in site.fleet.operation(operation).steps] == ["disk full", None]
    site.report(operation, "succeeded", attempt=2)
    assert site.fleet.vm("payments", "web-1").reason == "disk full"
