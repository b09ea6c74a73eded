"""Operations over HTTP: what they wait for, what controllers say of a failure, and a person's word."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.served import ADMIN, Api
from tests.cli.test_command_line import berth


@pytest.fixture
def site(api: Api, one_host: str) -> str:
    """With an active VM web-1."""
    named = one_host
    body = {"tenant": named, "name": "web-1", "group": named, "resources": {"cpu": 4}}
    report(api, api.done("POST", "/v1/vms", body)["operation"], step="vm.create", outcome="succeeded")
    return named


def report(api: Api, operation: str, **body: Any) -> dict[str, Any]:
    return api.done("POST", f"/v1/operations/{operation}/report", {"attempt": 1, **body})


def a_stuck_deletion(api: Api, site: str) -> str:
    operation: str = api.done("DELETE", f"/v1/vms/{site}/web-1")["operation"]
    failed = {"outcome": "failed", "message": "no such hypervisor", "retryable": False, "code": "unknown_host"}
    answer = report(api, operation, step="vm.delete", **failed)
    assert (answer["resource"]["state"], answer["resource"]["waiting_for"]) == ("stuck", "a person")
    return operation


def settle(api: Api, operation: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return api.post(f"/v1/operations/{operation}/settle", body, headers=headers)


def used(api: Api, site: str, position: int) -> int:
    quota = api.get(f"/v1/groups/{site}/quotas/{site}", params={"min_position": position}).json()
    found: int = quota["used"]["cpu"]
    return found


def test_a_stuck_deletion_of_which_a_person_says_that_nothing_stands_is_gone_and_holds_nothing(
    api: Api, site: str
) -> None:
    operation = a_stuck_deletion(api, site)
    answer = settle(api, operation, {"as": "succeeded", "reason": "host was scrapped"})
    assert answer.status_code == 200, answer.text
    position = answer.json()["position"]
    assert answer.json()["resource"]["state"] == "succeeded"
    assert api.get(f"/v1/vms/{site}/web-1", params={"min_position": position}).status_code == 404
    assert used(api, site, position) == 0


def test_a_stuck_deletion_of_which_a_person_says_that_it_is_not_done_leaves_the_vm_as_it_was(
    api: Api, site: str
) -> None:
    operation = a_stuck_deletion(api, site)
    answer = settle(api, operation, {"as": "failed"}, **{"Berth-Reason": "it runs"}).json()
    vm = api.shown(answer, f"/v1/vms/{site}/web-1").json()
    assert (vm["state"], vm["operation"], vm["reason"]) == ("active", None, "settled as failed by admin: it runs")
    assert used(api, site, answer["position"]) == 4


def test_a_word_without_a_reason_is_not_valid_and_the_bodys_reason_wins_in_the_audit(api: Api, site: str) -> None:
    operation = a_stuck_deletion(api, site)
    refused = settle(api, operation, {"as": "succeeded"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "/reason")
    answer = settle(api, operation, {"as": "succeeded", "reason": "seen"}, **{"Berth-Reason": "from the header"}).json()
    asked = {"command": "operation.settle", "resource": f"operation/{operation}", "min_position": answer["position"]}
    (entry,) = api.get("/v1/audit", params=asked).json()["items"]
    assert (entry["reason"], entry["request"]["as"]) == ("seen", "succeeded")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"as": "gone", "reason": "r"}, "/as"),
        ({"reason": "r"}, "/as"),
        ({"as": "failed", "at": "source", "reason": "r"}, "/at"),
        ({"as_": "failed", "reason": "r"}, "/as_"),
    ],
)
def test_a_word_that_is_none_is_not_valid(api: Api, site: str, body: dict[str, Any], field: str) -> None:
    refused = settle(api, "01a20e9d-a7a9-7ccb-bd6f-d7517dda50bc", body)
    assert refused.status_code == 422, refused.text
    assert field in {error["field"] for error in refused.json()["errors"]}


def test_settle_takes_the_place_of_abandon(api: Api, site: str) -> None:
    operation = a_stuck_deletion(api, site)
    assert api.post(f"/v1/operations/{operation}/abandon", {}).status_code == 404


def test_a_batch_settles_several(api: Api, site: str) -> None:
    operation = a_stuck_deletion(api, site)
    item = {"command": "operation.settle", "operation": operation, "as": "succeeded", "reason": "seen"}
    answer = api.post("/v1/commands", {"commands": [item], "atomic": True}).json()
    assert answer["results"][0]["status"] == 200, answer
    assert used(api, site, answer["position"]) == 0


def test_an_operation_says_for_whom_it_waits_and_a_second_verb_which_operation_is_in_its_way(
    api: Api, site: str
) -> None:
    stop = api.done("POST", f"/v1/vms/{site}/web-1/stop")
    shown = api.shown(stop, f"/v1/operations/{stop['operation']}").json()
    assert (shown["state"], shown["waiting_for"]) == ("running", "controller vm")
    problem = api.post(f"/v1/vms/{site}/web-1/stop").json()
    assert (problem["code"], problem["state"], problem["operation"]) == ("invalid_state", "updating", stop["operation"])
    assert problem["allowed"] == ["active"]
    begun = report(api, stop["operation"], step="vm.stop", outcome="started")
    assert begun["resource"]["waiting_for"] is None


def test_who_cancels_what_has_ended_is_told_how_it_ended(api: Api, site: str) -> None:
    body = {"tenant": site, "name": "web-2", "group": site, "resources": {"cpu": 1}}
    for outcome, how in (("succeeded", "has succeeded"), ("failed", "has failed")):
        operation = api.done("POST", "/v1/vms", {**body, "name": outcome})["operation"]
        report(api, operation, step="vm.create", outcome=outcome)
        if outcome == "failed":
            report(api, operation, step="vm.delete", outcome="succeeded")
        problem = api.post(f"/v1/operations/{operation}/cancel").json()
        assert problem["code"] == "conflict"
        assert f"Operation {operation!r} {how}: there is nothing left to cancel" in problem["detail"]


def test_the_cli_settles_with_a_reason(api: Api, site: str, tmp_path: Path) -> None:
    operation = a_stuck_deletion(api, site)
    where = {"BERTH_URL": api.url, "BERTH_TOKEN": ADMIN}
    unsaid = berth("settle", "operation", operation, "--as", "succeeded", directory=tmp_path, **where)
    assert (unsaid.returncode, "--reason" in unsaid.stderr) == (1, True), unsaid.stderr
    said = berth("settle", "operation", operation, "--as", "succeeded", "--reason", "seen", directory=tmp_path, **where)
    assert said.returncode == 0, said.stderr
    assert f"operation {operation} settled" in said.stdout
