"""What can't be meant is refused, and the refusal says where and why."""

import json
from typing import Any

import httpx
import pytest

from tests.api.served import ADMIN, Api
from tests.api.test_connection import Line

VM: dict[str, Any] = {"tenant": "acme", "name": "web-1", "group": "std", "resources": {"cpu": 4}}
JSON = {"Content-Type": "application/json"}


def changed(**fields: Any) -> dict[str, Any]:
    return {**VM, **fields}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"name": "a", "name": "b"}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1' + b"0" * 500 + b"}",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"{} {}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_single_json_object_is_malformed(api: Api, body: bytes) -> None:
    response = api.call("POST", "/v1/tenants", content=body, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (400, "malformed")
    assert response.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (changed(resources={"cpu": "4"}), "/resources/cpu"),
        (changed(resources={"cpu": 1.5}), "/resources/cpu"),
        (changed(resources={"cpu": 4.0}), "/resources/cpu"),
        (changed(resources={"cpu": True}), "/resources/cpu"),
        (changed(resources={"cpu": None}), "/resources/cpu"),
        (changed(resources={"cpu": -1}), "/resources/cpu"),
        (changed(resources={"cpu": 2**63}), "/resources/cpu"),
        (changed(resources={"cpu": 10**100}), "/resources/cpu"),
        (changed(resources={"memory_mib": "8GiB"}), "/resources/memory_mib"),
        (changed(resources={"Memory (GB)": 8}), "/resources/Memory (GB)"),
        (changed(resources={"vms": 1}), "/resources"),
        (changed(resources={"cpu": 0}), "/resources"),
        (changed(resources={}), "/resources"),
        (changed(resources=4), "/resources"),
        (changed(name="Web 1"), "/name"),
        (changed(name="a" * 64), "/name"),
        (changed(name="-a"), "/name"),
        (changed(name="a\0b"), "/name"),
        (changed(name="web-1\n"), "/name"),
        (changed(display_name="a\0b"), "/display_name"),
        (changed(description="x" * 2_001), "/description"),
        (changed(labels={"a": 1}), "/labels/a"),
        (changed(labels={"a/b~c": "\0"}), "/labels/a~1b~0c"),
        (changed(group=[]), "/group"),
        (changed(group=["std", "No"]), "/group/1"),
        (changed(strategy="worst"), "/strategy"),
        (changed(where={"planet": "mars"}), "/where/planet"),
        (changed(rules=[{"type": "spread", "set": "a", "level": "host"}]), "/rules/0"),
        (changed(nmae="x"), "/nmae"),
        ({k: v for k, v in VM.items() if k != "tenant"}, "/tenant"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_field_that_is_wrong_is_named(api: Api, body: dict[str, Any], field: str) -> None:
    response = api.post("/v1/vms", body)
    assert (response.status_code, response.json()["code"]) == (422, "validation")
    assert [error["field"] for error in response.json()["errors"]] == [field]


def test_an_unknown_field_says_what_was_probably_meant(api: Api) -> None:
    (error,) = api.post("/v1/vms", changed(stratgy="best_fit")).json()["errors"]
    assert "'strategy'" in error["message"]


def test_a_body_may_not_repeat_the_path(api: Api) -> None:
    response = api.post("/v1/hosts/h1/move", {"host": "h1", "group": "std"})
    assert response.json()["errors"][0]["field"] == "/host"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"Idempotency-Key": "a b"}, "header:Idempotency-Key"),
        ({"Idempotency-Key": "a" * 65}, "header:Idempotency-Key"),
        ({"Idempotency-Key": ""}, "header:Idempotency-Key"),
        ({"If-Match": "4711"}, "header:If-Match"),
        ({"If-Match": 'W/"4711"'}, "header:If-Match"),
        ({"Prefer": "wait=soon"}, "header:Prefer"),
        ({"Berth-Reason": "%ff"}, "header:Berth-Reason"),
        ({"Berth-Reason": "%00"}, "header:Berth-Reason"),
    ],
    ids=str,
)
def test_the_header_that_is_wrong_is_named(api: Api, headers: dict[str, str], field: str) -> None:
    response = api.post("/v1/tenants", {"name": "never"}, headers=headers)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/vms?colour=red", "query:colour"),
        ("/v1/vms?limit=0", "query:limit"),
        ("/v1/vms?limit=1001", "query:limit"),
        ("/v1/vms?limit=1&limit=2", "query:limit"),
        ("/v1/vms?sort=beauty", "query:sort"),
        ("/v1/vms?cursor=nonsense", "query:cursor"),
        ("/v1/vms?label=a", "query:label"),
        ("/v1/vms?updated_since=yesterday", "query:updated_since"),
        ("/v1/vms?as_of=1.5", "query:as_of"),
        ("/v1/capacity?by=rack&as_of=soon", "query:as_of"),
        ("/v1/vms?state=%00", "query:state"),
        ("/v1/vms?q=%ff", "query:"),
        ("/v1/vms?min_position=-1", "query:min_position"),
        ("/v1/capacity?by=moon", "query:by"),
        ("/v1/capacity", "query:by"),
        ("/v1/events?after=x", "query:after"),
        ("/v1/audit?outcome=good", "query:outcome"),
        ("/v1/tenants/acme?as_of=2026-11-24", "query:as_of"),
        ("/v1/whoami?x=1", "query:x"),
    ],
)
def test_the_parameter_that_is_wrong_is_named(api: Api, path: str, field: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()["code"]) == (422, "validation"), response.text
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "path", ["/v1/tenants/UPPER", "/v1/tenants/a%00b", "/v1/vms/a/b%2Fc", "/v1/tenants/" + "a" * 64, "/v1/operations/1"]
)
def test_what_can_not_be_a_name_is_not_there(api: Api, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_an_unknown_name_in_the_body_says_what_was_probably_meant(api: Api, named: str) -> None:
    api.done("POST", "/v1/tenants", {"name": f"{named}-payments"})
    problem = api.post("/v1/vms", changed(tenant=f"{named}-paymens")).json()
    assert (problem["code"], problem["kind"]) == ("not_found", "tenant")
    assert problem["did_you_mean"] == f"{named}-payments"


def test_an_unknown_name_in_the_path_says_what_was_probably_meant(api: Api, named: str) -> None:
    answer = api.done("POST", "/v1/tenants", {"name": f"{named}-shop"})
    problem = api.shown(answer, f"/v1/tenants/{named}-shoop").json()
    assert problem["did_you_mean"] == f"{named}-shop"


def test_an_unknown_class_of_resources_is_told_as_such(api: Api, named: str) -> None:
    """`memory_gib` is a class like any other that an operator might define; no host has it."""
    for path, body in (
        ("/v1/tenants", {"name": named}),
        ("/v1/groups", {"name": named}),
        ("/v1/hosts", {"name": named, "group": named, "capacity": {"cpu": 16}}),
    ):
        api.done("POST", path, body)
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {}})
    problem = api.post("/v1/vms", changed(tenant=named, group=named, resources={"memory_gib": 8})).json()
    assert problem["reasons"] == [{"reason": "insufficient:memory_gib", "hosts": 1}]


@pytest.mark.parametrize("path", ["/v1/vms", "/v1/tenants"])
def test_ten_megabytes_are_too_large(api: Api, path: str) -> None:
    body = json.dumps(changed(description="x" * 10_000_000)).encode()
    response = api.call("POST", path, content=body, headers=JSON)
    assert (response.status_code, response.json()["limit"]) == (413, 1024 * 1024)


def test_a_body_of_unknown_length_is_cut_off_too(api: Api) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 64 * 1024 * 1024:
            sent += 65_536
            yield b" " * 65_536

    try:
        response = api.call("POST", "/v1/vms", content=endless(), headers=JSON)
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # the server need not read to the end


def test_a_batch_may_have_eight_mebibytes(api: Api) -> None:
    response = api.call("POST", "/v1/commands", content=b" " * (8 * 1024 * 1024 + 1), headers=JSON)
    assert (response.status_code, response.json()["limit"]) == (413, 8 * 1024 * 1024)


@pytest.mark.parametrize("media", ["text/plain", "application/xml", "application/json; charset=utf-16", ""])
def test_only_json_is_read(api: Api, media: str) -> None:
    response = api.call("POST", "/v1/tenants", content=b"{}", headers={"Content-Type": media})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


def test_only_a_patch_is_a_merge_patch(api: Api) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    assert api.call("POST", "/v1/tenants", content=b"{}", headers=headers).status_code == 415


def test_what_is_not_served_is_a_problem_too(api: Api) -> None:
    for path in ("/", "/v1", "/v1/", "/v1/vms/", "/v2/vms", "/v1/vms/a/b/c/d", "//", "/problems/nonsense"):
        response = api.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), path


def test_a_wrong_method_says_which_are_right(api: Api) -> None:
    response = api.call("PUT", "/v1/vms/a/b")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "DELETE, GET, HEAD, PATCH"


def test_head_is_get_without_a_body(api: Api) -> None:
    response = api.call("HEAD", "/v1/vms")
    assert (response.status_code, response.content) == (200, b"")


ADMIN_BEARER = f"Bearer {ADMIN}"
SINGLE_VALUED = {
    "Authorization": ADMIN_BEARER,
    "Berth-Reason": "because",
    "Content-Type": "application/json",
    "Host": "berth",
    "Idempotency-Key": "a-key",
    "If-Match": '"1"',
    "If-None-Match": "*",
    "Last-Event-ID": "1",
}


@pytest.mark.parametrize("name", SINGLE_VALUED)
def test_a_header_that_says_one_thing_is_not_taken_twice(api: Api, named: str, name: str) -> None:
    given = [("Host", "berth"), ("Authorization", ADMIN_BEARER), ("Content-Type", "application/json")]
    given = [one for one in given if one[0] != name] + [(name, SINGLE_VALUED[name]), (name.upper(), "another")]
    body = json.dumps({"name": named})
    head = "".join(f"{header}: {value}\r\n" for header, value in given)
    line = Line(api.url)
    line.write(f"POST /v1/tenants HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    response = line.answer()
    assert (response.status, response.body["code"]) == (400, "malformed")
    assert response.body["errors"] == [{"field": f"header:{name}", "message": "is given twice"}]
    assert api.get(f"/v1/tenants/{named}").status_code == 404


def test_a_header_that_is_a_list_may_come_in_several_lines(api: Api, named: str) -> None:
    headers = [("Prefer", "return=minimal"), ("Prefer", "wait=soon"), ("Accept", "text/csv;q=0.5"), ("Accept", "*/*")]
    headers += [("Authorization", ADMIN_BEARER)]
    refused = api.http.post("/v1/tenants", json={"name": named}, headers=headers)
    assert refused.json()["errors"][0]["field"] == "header:Prefer", "the second line is read too"
    assert api.http.get("/v1/tenants", headers=headers).headers["Content-Type"] == "application/json"
