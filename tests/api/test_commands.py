"""Commands over HTTP: what their answers carry, repeats, conditions, dry runs, waiting for the operation's end."""

import threading
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.served import Api


@pytest.fixture
def site(api: Api, named: str) -> str:
    """A tenant with quota in a group with one host, all of the same name."""
    for path, body in (
        ("/v1/tenants", {"name": named}),
        ("/v1/groups", {"name": named}),
        ("/v1/hosts", {"name": named, "group": named, "capacity": {"cpu": 16, "memory_mib": 65_536}}),
    ):
        api.done("POST", path, body)
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {"cpu": 16}})
    return named


def a_vm(site: str, name: str = "web-1", *, cpu: int = 4) -> dict[str, Any]:
    return {"tenant": site, "name": name, "group": site, "resources": {"cpu": cpu, "memory_mib": 1024}}


def report(api: Api, operation: str, outcome: str, *, step: str = "vm.create") -> dict[str, Any]:
    body = {"step": step, "attempt": 1, "outcome": outcome}
    return api.done("POST", f"/v1/operations/{operation}/report", body)


def test_a_created_tenant_is_answered_whole_and_shown_at_its_position(api: Api, named: str) -> None:
    response = api.post("/v1/tenants", {"name": named, "display_name": "研發部"})
    assert response.status_code == 201
    answer = response.json()
    assert response.headers["Location"] == f"/v1/tenants/{named}"
    assert response.headers["Berth-Position"] == str(answer["position"])
    assert response.headers["ETag"] == f'"{answer["resource"]["version"]}"'
    assert answer["replayed"] is False
    read = api.shown(answer, f"/v1/tenants/{named}")
    assert read.json() == answer["resource"]
    assert read.headers["ETag"] == response.headers["ETag"]


def test_a_provisioning_is_under_way_at_its_operation(api: Api, site: str) -> None:
    response = api.post("/v1/vms", a_vm(site))
    assert response.status_code == 202
    answer = response.json()
    assert response.headers["Location"] == f"/v1/operations/{answer['operation']}"
    assert api.shown(answer, response.headers["Location"]).json()["target"] == f"vm/{site}/web-1"
    assert api.shown(answer, f"/v1/vms/{site}/web-1").json() == answer["resource"]


def test_a_repeat_is_answered_with_the_first_answer(api: Api, site: str) -> None:
    first = api.post("/v1/vms", a_vm(site), headers={"Idempotency-Key": f"{site}-1"})
    again = api.post("/v1/vms", a_vm(site), headers={"Idempotency-Key": f'"{site}-1"'})
    assert again.status_code == 202
    assert again.headers["Berth-Replayed"] == "true"
    assert again.json() == {**first.json(), "replayed": True}
    changed = api.post("/v1/vms", a_vm(site, cpu=5), headers={"Idempotency-Key": f"{site}-1"})
    assert changed.status_code == 422
    assert changed.json()["code"] == "idempotency_mismatch"
    assert changed.json()["command"] == first.json()["command"]


def test_a_repeated_refusal_is_the_first_refusal(api: Api, site: str) -> None:
    too_much = a_vm(site, cpu=40)
    first = api.post("/v1/vms", too_much, headers={"Idempotency-Key": f"{site}-2"})
    assert (first.status_code, first.json()["code"]) == (409, "quota_exceeded")
    assert first.json()["instance"] == f"/v1/commands/{first.json()['command']}"
    assert first.headers["Content-Type"] == "application/problem+json"
    again = api.post("/v1/vms", too_much, headers={"Idempotency-Key": f"{site}-2"})
    assert again.json() == first.json()
    assert again.headers["Berth-Replayed"] == "true"


def test_a_change_of_what_was_changed_meanwhile_is_refused(api: Api, named: str) -> None:
    version = api.done("POST", "/v1/tenants", {"name": named})["resource"]["version"]
    first = api.call("PATCH", f"/v1/tenants/{named}", {"description": "a"}, headers={"If-Match": f'"{version}"'})
    assert first.status_code == 200
    late = api.call("PATCH", f"/v1/tenants/{named}", {"description": "b"}, headers={"If-Match": f'"{version}"'})
    assert (late.status_code, late.json()["code"]) == (412, "version_mismatch")
    assert f'"{late.json()["version"]}"' == first.headers["ETag"]


def test_create_only_leaves_what_is_there(api: Api, site: str) -> None:
    path = f"/v1/groups/{site}/quotas/{site}"
    response = api.call("PUT", path, {"limits": {"cpu": 1}}, headers={"If-None-Match": "*"})
    assert response.status_code == 412


def test_a_merge_patch_removes_with_null(api: Api, named: str) -> None:
    api.done("POST", "/v1/tenants", {"name": named, "labels": {"a": "1", "b": "2"}, "description": "x"})
    body = b'{"labels": {"a": null}, "description": null}'
    headers = {"Content-Type": "application/merge-patch+json"}
    response = api.call("PATCH", f"/v1/tenants/{named}", content=body, headers=headers)
    assert response.json()["resource"]["labels"] == {"b": "2"}
    assert response.json()["resource"]["description"] is None


def test_a_dry_run_answers_and_writes_nothing(api: Api, site: str) -> None:
    before = api.get("/v1/events?sort=-position&limit=1").json()["position"]
    response = api.post("/v1/vms", a_vm(site, "dry"), params={"dry_run": "true"})
    assert response.status_code == 202
    assert response.json()["resource"]["host"] == site
    refused = api.post("/v1/vms", a_vm(site, "dry", cpu=99), params={"dry_run": "true"})
    assert refused.json()["code"] == "quota_exceeded"
    assert "Berth-Position" not in refused.headers
    assert api.get("/v1/events?sort=-position&limit=1").json()["position"] == before


def test_who_waits_is_told_the_end(api: Api, site: str) -> None:
    answers: list[Any] = []
    waiting = threading.Thread(
        target=lambda: answers.append(api.post("/v1/vms", a_vm(site, "waited"), headers={"Prefer": "wait=20"}))
    )
    waiting.start()
    operation = None
    while operation is None:
        found = api.get("/v1/operations", params={"target": f"vm/{site}/waited"}).json()["items"]
        operation = found[0]["id"] if found else None
    report(api, operation, "started")
    report(api, operation, "succeeded")
    waiting.join(20)
    assert answers[0].status_code == 201
    assert answers[0].headers["Location"] == f"/v1/vms/{site}/waited"
    assert answers[0].json()["resource"]["state"] == "active"


def test_who_waits_in_vain_is_told_that_it_is_under_way(api: Api, site: str) -> None:
    response = api.post("/v1/vms", a_vm(site, "slow"), headers={"Prefer": "respond-async, wait=1"})
    assert response.status_code == 202


def test_a_failed_operation_is_told_to_who_asks_again(api: Api, site: str) -> None:
    headers = {"Idempotency-Key": f"{site}-3"}
    answer = api.post("/v1/vms", a_vm(site, "lost"), headers=headers).json()
    report(api, answer["operation"], "started")
    report(api, answer["operation"], "failed")
    report(api, answer["operation"], "started", step="vm.delete")
    report(api, answer["operation"], "succeeded", step="vm.delete")
    again = api.post("/v1/vms", a_vm(site, "lost"), headers={**headers, "Prefer": "wait=5"})
    assert (again.status_code, again.json()["code"]) == (424, "operation_failed")


def test_the_same_report_again_gets_the_first_answer(api: Api, site: str) -> None:
    operation = api.done("POST", "/v1/vms", a_vm(site, "twice"))["operation"]
    first = report(api, operation, "started")
    assert report(api, operation, "started") == {**first, "replayed": True}


def test_progress_by_a_viewer_is_forbidden_and_tells_nothing(api: Api, site: str) -> None:
    operation = api.done("POST", "/v1/vms", a_vm(site, "told"))["operation"]
    body = {"step": "vm.create", "attempt": 1, "outcome": "progress", "percent": 50}
    answer = api.post(f"/v1/operations/{operation}/report", body, token=api.token("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert site not in answer.text


def test_a_reason_in_any_script_is_kept(api: Api, named: str) -> None:
    words = "因為需要 50%"
    answer = api.post("/v1/tenants", {"name": named}, headers={"Berth-Reason": quote(words)}).json()
    entry = api.shown(answer, "/v1/audit", params={"resource": f"tenant/{named}"}).json()["items"][0]
    assert entry["reason"] == words


def test_a_receipt_tells_what_came_of_a_command(api: Api, site: str) -> None:
    accepted = api.done("POST", "/v1/vms", a_vm(site, "kept"))
    found = api.get(f"/v1/commands/{accepted['command']}").json()
    assert (found["position"], found["operation"], found["problem"]) == (
        accepted["position"],
        accepted["operation"],
        None,
    )
    refused = api.post("/v1/vms", a_vm(site, "kept")).json()
    found = api.get(f"/v1/commands/{refused['command']}").json()
    assert found["outcome"] == "rejected"
    assert found["problem"] == refused
    assert api.get("/v1/commands/never-was").status_code == 404


def test_a_deletion_answers_and_then_it_is_gone(api: Api, named: str) -> None:
    api.done("POST", "/v1/tenants", {"name": named})
    answer = api.done("DELETE", f"/v1/tenants/{named}")
    assert answer["resource"]["state"] == "deleted"
    assert api.shown(answer, f"/v1/tenants/{named}").status_code == 404
