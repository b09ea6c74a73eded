"""What resources promise over HTTP: warnings, protection, limits of what comes of a patch, rules that were broken."""

from typing import Any

import pytest

from tests.api.served import Api


@pytest.fixture
def site(api: Api, named: str) -> str:
    """A tenant with quota in a group with two hosts in two racks, all called alike."""
    for path, body in (
        ("/v1/tenants", {"name": named}),
        ("/v1/groups", {"name": named}),
        *(("/v1/racks", {"name": f"{named}-{n}", "region": named, "dc": named}) for n in (1, 2)),
        *(
            ("/v1/hosts", {"name": f"{named}-{n}", "group": named, "rack": f"{named}-{n}", "capacity": {"cpu": 16}})
            for n in (1, 2)
        ),
    ):
        api.done("POST", path, body)
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {}})
    return named


def a_vm(site: str, name: str, **more: Any) -> dict[str, Any]:
    return {"tenant": site, "name": name, "group": site, "resources": {"cpu": 1}, **more}


def test_warnings_stand_in_the_answer_in_its_repeat_in_a_batch_and_in_the_receipt(api: Api, site: str) -> None:
    path, body = f"/v1/groups/{site}/quotas/{site}", {"limits": {"memory_mb": 1}}
    told = [
        {
            "field": "/limits/memory_mb",
            "message": "'memory_mb' is not known to any host or kind, so it limits nothing yet",
            "did_you_mean": "memory_mib",
        }
    ]
    first = api.call("PUT", path, body, headers={"Idempotency-Key": f"{site}-w"})
    assert first.json()["warnings"] == told
    assert api.call("PUT", path, body, headers={"Idempotency-Key": f"{site}-w"}).json()["warnings"] == told
    assert api.call("PUT", path, body, params={"dry_run": "true"}).json()["warnings"] == told
    receipt = api.get(f"/v1/commands/{first.json()['command']}")
    assert receipt.json()["warnings"] == told
    one = {"command": "quota.set", "group": site, "tenant": site, **body}
    assert api.post("/v1/commands", {"commands": [one]}).json()["results"][0]["warnings"] == told
    assert "warnings" not in api.call("PUT", path, {"limits": {"cpu": 100}}).json()


def test_what_was_read_can_always_be_sent_back(api: Api, site: str) -> None:
    path = f"/v1/tenants/{site}"
    for first in range(0, 64, 16):
        api.done("PATCH", path, {"labels": {f"k{n}": "x" for n in range(first, first + 16)}})
    answer = api.call("PATCH", path, {"labels": {"k64": "x"}})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "/labels")
    labels = api.get(path).json()["labels"]
    assert len(labels) == 64
    api.done("PATCH", path, {"labels": labels})
    api.done("POST", "/v1/tenants", {"name": f"{site}-2", "labels": labels})


def test_a_protected_resource_is_shown_so_and_its_deletion_refused(api: Api, site: str) -> None:
    made = api.done("POST", "/v1/tenants", {"name": f"{site}-p", "protected": True})
    assert made["resource"]["protected"] is True
    refused = api.call("DELETE", f"/v1/tenants/{site}-p")
    assert (refused.status_code, refused.json()["code"], refused.json()["name"]) == (409, "protected", f"{site}-p")
    assert api.get("/problems/protected").status_code == 200
    assert api.done("PATCH", f"/v1/tenants/{site}-p", {"protected": False})["resource"]["protected"] is False
    api.done("DELETE", f"/v1/tenants/{site}-p")
    listed = api.get("/v1/tenants", params={"q": site, "sort": "-protected"}).json()["items"]
    assert all(tenant["protected"] is False for tenant in listed)


def test_a_reason_may_not_move_a_cursor(api: Api, site: str) -> None:
    answer = api.call("PATCH", f"/v1/tenants/{site}", {}, headers={"Berth-Reason": "%1B%5B2J"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "header:Berth-Reason")


def test_a_rule_that_a_forced_move_broke_is_shown_listed_and_explained(api: Api, site: str) -> None:
    rule = {"type": "anti_affinity", "set": "web", "level": "rack"}
    for name in ("a", "b"):
        answer = api.done("POST", "/v1/vms", a_vm(site, name, rules=[rule]))
        assert (answer["resource"]["rules_broken"], answer["resource"]["broken_rules"]) == (False, [])
    path = f"/v1/hosts/{site}-2"
    refused = api.call("PATCH", path, {"rack": f"{site}-1"})
    assert (refused.status_code, refused.json()["code"]) == (409, "below_use")
    told = {"kind": "rule", "name": f"{site}/web", "rule": "anti_affinity", "set": "web", "level": "rack"}
    assert refused.json()["would_break"] == [{**told, "vms": [f"{site}/a", f"{site}/b"]}]
    assert "force" in refused.json()["detail"]

    moved = api.done("PATCH", path, {"rack": f"{site}-1", "force": True})
    filters = {"tenant": site, "rules_broken": "true"}
    listed = api.shown(moved, "/v1/vms", params=filters).json()["items"]
    broken = [{**rule, "vms": [f"{site}/a", f"{site}/b"]}]
    assert [(vm["name"], vm["rules_broken"], vm["broken_rules"]) for vm in listed] == [
        ("a", True, broken),
        ("b", True, broken),
    ]
    explained = api.get(f"/v1/explain/vms/{site}/a").json()
    assert (explained["rules"], explained["broken_rules"]) == ([rule], broken)
    mended = api.done("PATCH", path, {"rack": f"{site}-2"})
    assert api.shown(mended, "/v1/vms", params=filters).json()["items"] == []


def test_who_is_confined_to_a_tenant_is_told_of_a_misspelt_class_too(api: Api, site: str) -> None:
    token = api.token("operator", tenant=site)
    asked = {**a_vm(site, "a"), "resources": {"cpu": 1, "memory_mb": 1}}
    refused = api.call("POST", "/v1/vms", asked, token=token)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_capacity")
    assert "did you mean 'memory_mib'?" in refused.json()["detail"]
    assert "nearest" not in refused.json()
    where = {**a_vm(site, "a"), "where": {"rack": "nowhere"}}
    missing = api.call("POST", "/v1/vms", where, token=token).json()
    assert (missing["code"], missing["kind"], missing["name"], missing["did_you_mean"]) == (
        "not_found",
        "rack",
        "nowhere",
        None,
    )
