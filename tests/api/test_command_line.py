"""The command line on an API whose controllers are the test: what is under way, stuck or failed is said at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.served import ADMIN, Api
from tests.cli.test_command_line import ROOT, berth
from tests.conftest import eventually

Run = Callable[..., subprocess.CompletedProcess[str]]
VM = {"resources": {"cpu": 4}}


@pytest.fixture
def site(one_host: str) -> str:
    return one_host


@pytest.fixture
def run(api: Api, tmp_path: Path) -> Run:
    return lambda *arguments: berth(*arguments, directory=tmp_path, BERTH_URL=api.url, BERTH_TOKEN=ADMIN)


@pytest.fixture
def begin(api: Api, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a call that waits."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        environment = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "BERTH_URL": api.url, "BERTH_TOKEN": ADMIN}
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def report(api: Api, operation: str, step: str, outcome: str, *, attempt: int = 1, **more: Any) -> None:
    body = {"step": step, "outcome": outcome, "attempt": attempt, **more}
    api.done("POST", f"/v1/operations/{operation}/report", body)


def fail(api: Api, operation: str, step: str, *, attempt: int = 1) -> None:
    words = {"message": "no such hypervisor", "retryable": False}
    report(api, operation, step, "failed", attempt=attempt, **words)


def a_vm(api: Api, site: str, name: str = "web-1") -> str:
    """Its creation, under way."""
    operation: str = api.done("POST", "/v1/vms", {"tenant": site, "name": name, "group": site, **VM})["operation"]
    return operation


def an_active_vm(api: Api, site: str) -> None:
    report(api, a_vm(api, site), "vm.create", "succeeded")


def a_failed_vm(api: Api, site: str) -> None:
    operation = a_vm(api, site)
    fail(api, operation, "vm.create")
    report(api, operation, "vm.delete", "succeeded")


def a_stuck_deletion(api: Api, site: str) -> str:
    an_active_vm(api, site)
    operation: str = api.done("DELETE", f"/v1/vms/{site}/web-1")["operation"]
    fail(api, operation, "vm.delete")
    return operation


def under_way(api: Api, site: str) -> str:
    """The operation that a call has begun meanwhile."""
    return str(eventually(lambda: api.get(f"/v1/vms/{site}/web-1").json().get("operation")))


def file(directory: Path, site: str, **more: Any) -> str:
    path = directory / "vm.yaml"
    path.write_text(json.dumps({"kind": "VM", "tenant": site, "name": "web-1", "group": site, **VM, **more}))
    return str(path)


def pasted(text: str, operation: str) -> bool:
    """The ways out of a stuck operation stand there, a command each, as they can be typed."""
    lines = [line.strip() for line in text.splitlines()]
    return {
        f"berth retry operation {operation} --wait",
        f"berth settle operation {operation} --as succeeded --reason 'how I know'",
        f"berth settle operation {operation} --as failed --reason 'how I know'",
    } <= set(lines)


def test_a_command_that_waits_ends_when_its_operation_is_stuck(api: Api, site: str, begin: Any) -> None:
    an_active_vm(api, site)
    call = begin("delete", "vm", f"{site}/web-1", "--wait=60s")
    operation = under_way(api, site)
    fail(api, operation, "vm.delete")
    _, said = call.communicate(timeout=30)
    assert call.returncode == 1, said
    assert "is stuck: vm.delete: no such hypervisor" in said
    assert pasted(said, operation)


def test_waiting_for_a_state_ends_when_the_operation_that_leads_there_is_stuck(api: Api, site: str, run: Run) -> None:
    operation = a_stuck_deletion(api, site)
    for arguments in (("vm", f"{site}/web-1", "--for", "deleted"), ("operation", operation, "--for", "succeeded")):
        ended = run("wait", *arguments)
        assert ended.returncode == 1, ended.stderr
        assert pasted(ended.stderr, operation)


def test_waiting_for_a_state_ends_when_the_operation_that_leads_there_failed(api: Api, site: str, begin: Any) -> None:
    an_active_vm(api, site)
    operation = api.done("POST", f"/v1/vms/{site}/web-1/stop")["operation"]
    call = begin("wait", "vm", f"{site}/web-1", "--for", "stopped", "--timeout", "60s")
    with pytest.raises(subprocess.TimeoutExpired):
        call.wait(2)
    fail(api, operation, "vm.stop")
    _, said = call.communicate(timeout=30)
    assert call.returncode == 1, said
    assert "no such hypervisor" in said


def test_a_retry_waits_for_the_operations_end(api: Api, site: str, run: Run, begin: Any) -> None:
    operation = a_stuck_deletion(api, site)
    timed_out = run("retry", "operation", operation, "--wait=100ms")
    assert timed_out.returncode == 4, timed_out.stderr
    fail(api, operation, "vm.delete", attempt=2)
    call = begin("retry", "operation", operation, "--wait")
    eventually(lambda: api.get(f"/v1/operations/{operation}").json()["state"] == "running")
    report(api, operation, "vm.delete", "succeeded", attempt=3)
    said, _ = call.communicate(timeout=30)
    assert (call.returncode, "retried, is succeeded" in said) == (0, True), said


def test_a_word_without_a_reason_is_refused_with_the_flag_for_it(api: Api, site: str, run: Run) -> None:
    operation = a_stuck_deletion(api, site)
    ended = run("settle", "operation", operation, "--as", "failed")
    assert ended.returncode == 1
    assert "--reason" in ended.stderr
    ended = run("settle", "operation", operation, "--as", "failed", "--reason", "I looked")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_apply_says_that_a_vm_has_failed_and_what_to_do(api: Api, site: str, run: Run, tmp_path: Path) -> None:
    a_failed_vm(api, site)
    for flags in ((), ("--wait",), ("--dry-run",)):
        ended = run("apply", "-f", file(tmp_path, site), *flags)
        assert ended.returncode == 1, ended.stdout
        assert f"vm {site}/web-1 unchanged, failed" in ended.stdout
        assert f"berth delete vm {site}/web-1" in ended.stderr


def test_apply_waits_for_what_is_under_way(api: Api, site: str, run: Run, begin: Any, tmp_path: Path) -> None:
    operation = a_vm(api, site)
    at_once = run("apply", "-f", file(tmp_path, site))
    assert at_once.returncode == 0, at_once.stderr
    assert f"vm {site}/web-1 unchanged, scheduled, under way: operation {operation}" in at_once.stdout
    timed_out = run("apply", "-f", file(tmp_path, site), "--wait=100ms")
    assert timed_out.returncode == 4, timed_out.stderr
    call = begin("apply", "-f", file(tmp_path, site), "--wait")
    with pytest.raises(subprocess.TimeoutExpired):
        call.wait(2)
    report(api, operation, "vm.create", "succeeded")
    said, _ = call.communicate(timeout=30)
    assert (call.returncode, said) == (0, f"vm {site}/web-1 unchanged\n")


def test_apply_over_a_deletion_is_refused(api: Api, site: str, run: Run, tmp_path: Path) -> None:
    an_active_vm(api, site)
    api.done("DELETE", f"/v1/vms/{site}/web-1")
    ended = run("apply", "-f", file(tmp_path, site))
    assert ended.returncode == 1, ended.stdout
    assert "is being deleted" in ended.stderr
    assert ended.stdout == ""


def test_a_name_taken_by_what_failed_is_said_to_be_so(api: Api, site: str, run: Run) -> None:
    a_failed_vm(api, site)
    ended = run("create", "vm", f"{site}/web-1", "--group", site, "--cpu", "1")
    assert ended.returncode == 1
    assert f"`berth delete vm {site}/web-1`" in ended.stderr


def test_what_was_so_already_and_what_was_done_before_is_said(api: Api, site: str, run: Run) -> None:
    assert "nothing changed" not in run("cordon", site).stdout
    assert "nothing changed" in run("cordon", site).stdout
    assert "already done" not in run("uncordon", site, "--idempotency-key", site).stdout
    assert "already done by command" in run("uncordon", site, "--idempotency-key", site).stdout


@pytest.mark.parametrize("verb", ["get", "describe", "history", "set", "wait", "delete"])
def test_a_quota_is_named_in_one_word_or_two(verb: str, api: Api, site: str, run: Run) -> None:
    more = {"set": ("--cpu", "8"), "wait": ("--for", "active")}.get(verb, ())
    for name in ((f"{site}/{site}",), (site, site)):
        ended = run(verb, "quota", *name, *more)
        assert ended.returncode == 0, ended.stderr
        api.done("PUT", f"/v1/groups/{site}/quotas/{site}", {"limits": {"cpu": 16}})


def test_several_hosts_are_cordoned_without_a_word_for_their_kind(api: Api, site: str, run: Run) -> None:
    api.done("POST", "/v1/hosts", {"name": f"{site}-b", "group": site, "capacity": {"cpu": 1}})
    ended = run("cordon", site, f"{site}-b")
    assert (ended.returncode, ended.stdout.count("cordoned")) == (0, 2), ended.stderr


def test_a_scoped_token_sees_its_capacity_by_tenant(api: Api, site: str, tmp_path: Path) -> None:
    secret = api.done("POST", "/v1/tokens", {"name": site, "role": "viewer", "tenant": site})["secret"]
    ended = berth("capacity", directory=tmp_path, BERTH_URL=api.url, BERTH_TOKEN=secret)
    assert (ended.returncode, ended.stdout.splitlines()[0].split("\t")[0]) == (0, "tenant"), ended.stderr


def test_following_ends_after_so_many_events(api: Api, site: str, run: Run) -> None:
    ended = run("events", "--after", "0", "-f", "--limit", "2")
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 2), ended.stderr
