"""Who is confined to a tenant sees its subtree and nothing of anybody else's: on no route, in no error, not live."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from api.endpoint import Endpoint
from tests.api.served import ADMIN, Api
from tests.api.test_access import GUARDED, ask
from tests.api.test_access import named as named_route
from tests.api.test_live import events_of


class Site(msgspec.Struct, frozen=True):
    """`root` > `mid` > `own` > `team`, and `other` beside `own`; words with which nothing may be told of the others."""

    prefix: str
    token: str
    auditor: str
    since: int
    own_vm: dict[str, Any]

    def name(self, what: str) -> str:
        return f"{self.prefix}-{what}"

    @property
    def secrets(self) -> list[str]:
        return [self.name(what) for what in ("root", "mid", "other", "dark", "rack", "lit-1")]


@pytest.fixture(scope="module")
def site(api: Api) -> Site:
    prefix = "scope"
    since = api.get("/v1/events?limit=1").json()["position"]

    def n(what: str) -> str:
        return f"{prefix}-{what}"

    for name, parent in (("root", None), ("mid", "root"), ("own", "mid"), ("team", "own"), ("other", "mid")):
        api.done("POST", "/v1/tenants", {"name": n(name), "parent": parent and n(parent)})
    api.done("POST", "/v1/racks", {"name": n("rack"), "region": n("north"), "dc": n("tp1")})
    for group in ("lit", "dark"):
        api.done("POST", "/v1/groups", {"name": n(group)})
        for host in (0, 1):
            body = {
                "name": n(f"{group}-{host}"),
                "group": n(group),
                "rack": n("rack"),
                "capacity": {"cpu": 8, "gpu": 2},
            }
            api.done("POST", "/v1/hosts", body)
    for tenant, limits in (("root", {"cpu": 7}), ("mid", {"cpu": 7}), ("own", {}), ("team", {}), ("other", {})):
        api.done("PUT", f"/v1/groups/{n('lit')}/quotas/{n(tenant)}", {"limits": limits})
    api.done("PUT", f"/v1/groups/{n('dark')}/quotas/{n('other')}", {"limits": {}})
    vms = {}
    for tenant, group in (("team", "lit"), ("other", "dark")):
        body = {"tenant": n(tenant), "name": "web-1", "group": n(group), "resources": {"cpu": 4}}
        vms[tenant] = api.done("POST", "/v1/vms", body)
    token, auditor = api.token("operator", tenant=n("own")), api.token("auditor", tenant=n("own"))
    # Others' commands on what is its own, refused for reasons that are not its own.
    api.post(f"/v1/tenants/{n('own')}/move", {"parent": n("own")})
    api.post(f"/v1/tenants/{n('own')}/move", {"parent": n("root") + "-typo"})
    api.done("POST", f"/v1/tenants/{n('own')}/move", {"parent": n("root"), "force": True})
    api.done("POST", f"/v1/tenants/{n('own')}/move", {"parent": n("mid"), "force": True})
    api.call("DELETE", f"/v1/tenants/{n('own')}")
    last = api.done("PATCH", f"/v1/tenants/{n('root')}", {"description": "last"})
    api.shown(last, "/v1/tenants")
    return Site(prefix, token, auditor, since, vms["team"])


def must_tell_nothing(site: Site, response: httpx.Response, *, asked: str = "") -> None:
    """Its own VM's host and rack are its own to know; what was asked for may be repeated."""
    told = response.text.replace(asked, "") if asked else response.text
    host = site.own_vm["resource"]["host"]
    for secret in site.secrets:
        if secret not in (host, site.name("rack")):
            assert secret not in told, f"{response.request.url} tells of {secret}: {told}"


LISTS = (
    "tenants", "racks", "groups", "hosts", "quotas", "vms", "operations", "events?limit=1000", "capacity?by=tenant",
)  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_no_list_tells_of_others(api: Api, site: Site, path: str) -> None:
    for accept in ("application/json", "text/csv"):
        response = api.get(f"/v1/{path}", token=site.token, headers={"Accept": accept})
        assert response.status_code == 200
        must_tell_nothing(site, response)


def test_the_audit_tells_of_no_others(api: Api, site: Site) -> None:
    response = api.get("/v1/audit?limit=1000", token=site.auditor)
    must_tell_nothing(site, response)
    commands = {entry["command"] for entry in response.json()["items"]}
    assert {"tenant.create", "tenant.move", "quota.set", "vm.provision"} <= commands
    refused = [entry["problem"] for entry in response.json()["items"] if entry["problem"]]
    assert refused


def test_the_live_stream_tells_of_no_others(api: Api, site: Site) -> None:
    events = events_of(api, f"/v1/events/stream?after={site.since}", token=site.auditor)
    told: list[str] = []
    for event in events:
        told.append(event["data"])
        if '"last"' in event["data"] or len(told) >= 12:
            break
    must_tell_nothing(site, httpx.Response(200, text="\n".join(told), request=httpx.Request("GET", "/stream")))


def test_what_is_its_own_is_shown(api: Api, site: Site) -> None:
    def names(path: str) -> set[str]:
        return {item["name"] for item in api.get(path, token=site.token).json()["items"]}

    n = site.name
    assert names("/v1/tenants") == {n("own"), n("team")}
    assert names("/v1/groups") == {n("lit")}
    assert names("/v1/quotas") == {f"{n('lit')}/{n('own')}", f"{n('lit')}/{n('team')}"}
    assert names("/v1/vms") == {"web-1"}
    assert names("/v1/hosts") == names("/v1/racks") == set()
    tenant = api.get(f"/v1/tenants/{n('own')}", token=site.token).json()
    assert (tenant["path"], tenant["parent"], tenant["owner"]) == ([n("own")], None, None)
    group = api.get(f"/v1/groups/{n('lit')}", token=site.token).json()
    assert not {"capacity", "used", "available", "hosts"} & group.keys()


SINGLES = (
    "tenants/{root}", "tenants/{other}", "racks/{rack}", "groups/{dark}", "groups/{dark}/quotas", "hosts/{lit-0}",
    "groups/{lit}/quotas/{other}", "groups/{lit}/quotas/{root}", "vms/{other}/web-1", "explain/vms/{other}/web-1",
    "history/tenant/{root}", "history/tenant/{other}", "history/vm/{other}/web-1", "history/host/{lit-0}",
    "history/group/{dark}", "history/rack/{rack}", "history/quota/{lit}/{other}",
)  # fmt: skip


@pytest.mark.parametrize("path", SINGLES)
@pytest.mark.parametrize("moment", ["now", "past"])
def test_what_is_others_is_not_there(api: Api, site: Site, path: str, moment: str) -> None:
    names = {what: site.name(what) for what in ("root", "other", "rack", "dark", "lit", "lit-0")}
    full = path.format(**names)
    takes_as_of = not path.startswith(("explain", "history"))
    params = {"as_of": site.own_vm["position"]} if moment == "past" and takes_as_of else {}
    response = api.get(f"/v1/{full}", token=site.token, params=params)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    must_tell_nothing(site, response, asked=response.json()["name"])


def test_its_own_past_is_shown(api: Api, site: Site) -> None:
    path = f"/v1/vms/{site.name('team')}/web-1"
    response = api.get(path, token=site.token, params={"as_of": site.own_vm["position"]})
    assert response.json() == site.own_vm["resource"]
    group = api.get(f"/v1/groups/{site.name('lit')}", token=site.token, params={"as_of": site.own_vm["position"]})
    assert "capacity" not in group.json()


def test_others_operations_and_commands_are_not_there(api: Api, site: Site) -> None:
    other = api.get(f"/v1/vms/{site.name('other')}/web-1").json()["operation"]
    assert api.get(f"/v1/operations/{other}", token=site.token).status_code == 404
    assert api.get(f"/v1/history/operation/{other}", token=site.token).status_code == 404
    (started,) = api.get("/v1/events", params={"stream": f"vm/{site.name('other')}/web-1"}).json()["items"]
    assert api.get(f"/v1/commands/{started['command']}", token=site.token).status_code == 404
    own = api.get(f"/v1/operations/{site.own_vm['operation']}", token=site.token)
    assert own.status_code == 200


def test_capacity_is_shown_by_tenant_alone(api: Api, site: Site) -> None:
    for by in ("region", "dc", "rack", "group", "host"):
        assert api.get(f"/v1/capacity?by={by}", token=site.token).status_code == 403


def test_no_sum_is_told_by_an_order(api: Api, site: Site) -> None:
    assert api.get("/v1/groups?sort=-cpu_available", token=site.token).status_code == 422


def test_no_parent_is_told_by_an_order_or_a_filter(api: Api, site: Site) -> None:
    for field in ("parent", "owner"):
        asked = {field: site.name("mid")}
        assert api.get("/v1/tenants", token=site.token, params=asked).json()["items"] == []
        for sort in (field, f"-{field}"):
            page = api.get("/v1/tenants", token=site.token, params={"sort": sort, "limit": 1}).json()
            cursor = base64.urlsafe_b64decode(page["next_cursor"] + "==").decode()
            assert site.name("mid") not in cursor
            params = {"sort": sort, "cursor": page["next_cursor"]}
            rest = api.get("/v1/tenants", token=site.token, params=params).json()
            assert [item["name"] for item in page["items"] + rest["items"]] == [site.name("team"), site.name("own")]


def refusals(api: Api, site: Site) -> Iterator[tuple[str, httpx.Response]]:
    base = {"tenant": site.name("own"), "name": "web-2", "group": site.name("lit"), "resources": {"cpu": 1}}
    for code, fields in (
        ("quota_exceeded", {"resources": {"cpu": 7}}),
        ("no_capacity", {"resources": {"cpu": 1, "gpu": 3}}),
        ("no_capacity", {"resources": {"gpu": 3}, "group": [site.name("lit")]}),
        ("quota_exceeded", {"resources": {"cpu": 7}, "group": "*"}),
        ("not_found", {"group": site.name("dark")}),
        ("not_found", {"tenant": site.name("other")}),
        ("not_found", {"tenant": site.name("othr")}),
    ):
        yield code, api.post("/v1/vms", {**base, **fields}, token=site.token)


def test_no_refusal_tells_of_others(api: Api, site: Site) -> None:
    for code, response in refusals(api, site):
        problem = response.json()
        assert problem["code"] == code, problem
        must_tell_nothing(site, response, asked=problem.get("name") or "-")
        assert "nearest" not in json.dumps(problem)
        told = api.get(f"/v1/commands/{problem['command']}", token=site.token)
        assert told.json()["problem"] == problem


def test_tenants_above_are_one_without_a_name(api: Api, site: Site) -> None:
    code, response = next(refusals(api, site))
    assert code == "quota_exceeded"
    (shortfall,) = response.json()["shortfalls"]
    assert (shortfall["tenant"], shortfall["limit"], shortfall["used"]) == (None, None, None)
    assert (shortfall["requested"], shortfall["short"]) == (7, 4)


@pytest.fixture(scope="module")
def confined(api: Api, site: Site) -> dict[str, str]:
    """A token of each role that can be confined to a tenant, for `own`."""
    return {role: api.token(role, tenant=site.name("own")) for role in ("viewer", "auditor", "operator")}


@pytest.fixture(scope="module")
def others(api: Api, site: Site) -> dict[str, str]:
    """What another tenant has, by the name that a path or a body has for it."""
    n = site.name
    vm = f"vm/{n('other')}/web-1"
    (scheduled,) = api.get("/v1/events", params={"stream": vm, "topic": "vm.scheduled"}).json()["items"]
    return {
        "tenant": n("other"), "vm": "web-1", "group": n("dark"), "host": n("dark-0"), "rack": n("rack"),
        "operation": api.get(f"/v1/{vm.replace('vm/', 'vms/', 1)}").json()["operation"],
        "command": scheduled["command"], "token": api.get("/v1/whoami").json()["name"], "kind": "tenant",
    }  # fmt: skip


def asked_of(endpoint: Endpoint, site: Site, others: dict[str, str]) -> dict[str, str]:
    return {**others, "name": others["tenant"] if "kind" in endpoint.path_fields else site.name("new")}


@pytest.mark.parametrize("endpoint", [e for e in GUARDED if e.method == "GET" and e.path_fields], ids=named_route)
def test_what_others_have_is_there_for_who_may_see_it(
    api: Api, site: Site, others: dict[str, str], endpoint: Endpoint
) -> None:
    """Or else the next test would find nothing that is hidden."""
    response = ask(api, endpoint, token=ADMIN, names=asked_of(endpoint, site, others))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("role", ["viewer", "auditor", "operator"])
@pytest.mark.parametrize("endpoint", GUARDED, ids=named_route)
def test_no_route_shows_or_does_anything_of_others(
    api: Api, site: Site, confined: dict[str, str], others: dict[str, str], endpoint: Endpoint, role: str
) -> None:
    """Every route, asked for what another tenant has, by name: for who is confined it is not there."""
    names = asked_of(endpoint, site, others)
    response = ask(api, endpoint, token=confined[role], names=names)
    if endpoint.answer_type == "text/event-stream":
        assert response.status_code == 200  # what it tells is another test's
        return
    told = response.text
    for name in names.values():
        told = told.replace(name, "")
    assert not [secret for secret in site.secrets if secret in told], told
    if endpoint.body == "Batch":
        statuses = {result["status"] for result in response.json()["results"]}
        assert statuses <= {403, 404}, response.text
    elif endpoint.path_fields or endpoint.model is not None:
        assert response.status_code in (403, 404), response.text
    else:
        assert response.status_code in (200, 403), response.text


def test_what_is_not_its_own_is_not_changed(api: Api, site: Site) -> None:
    token, n = site.token, site.name
    assert api.post(f"/v1/hosts/{n('lit-0')}/cordon", token=token).status_code == 404
    assert api.call("DELETE", f"/v1/vms/{n('other')}/web-1", token=token).status_code == 404
    assert api.call("PUT", f"/v1/groups/{n('lit')}/quotas/{n('own')}", {"limits": {}}, token=token).status_code == 404
    assert api.post("/v1/tenants", {"name": n("mine")}, token=token).status_code == 404


def test_what_others_have_and_what_nobody_has_is_refused_in_the_same_true_words(api: Api, site: Site) -> None:
    def told(method: str, path: str, body: Any, tenant: str) -> dict[str, Any]:
        answer = api.call(method, path.format(tenant), body and {**body, "tenant": tenant}, token=site.token)
        problem: dict[str, Any] = json.loads(answer.text.replace(tenant, "asked"))
        assert answer.status_code == 404
        # The nearest of its own names goes by the letters of what it asked for, in reads.
        problem["detail"] = problem["detail"].partition(" Did you mean")[0]
        return {name: value for name, value in problem.items() if name not in ("command", "instance", "did_you_mean")}

    provision = {"name": "web-9", "group": site.name("lit"), "resources": {"cpu": 1}}
    for method, path, body, what in (
        ("GET", "/v1/tenants/{}", None, "tenant 'asked'"),
        ("PATCH", "/v1/tenants/{}", {}, "tenant 'asked'"),
        ("GET", "/v1/vms/{}/web-1", None, "vm 'asked/web-1'"),
        ("DELETE", "/v1/vms/{}/web-1", None, "vm 'asked/web-1'"),
        ("POST", "/v1/vms", provision, "tenant 'asked'"),
    ):
        others, nobodys = (told(method, path, body, site.name(tenant)) for tenant in ("other", "othxx"))
        assert others == nobodys
        assert others["detail"] == f"There is no {what} in this token's scope."


def test_a_suspension_above_the_scope_is_told_without_its_name(api: Api, named: str) -> None:
    for name, parent in (("top", None), ("own", "top"), ("team", "own")):
        api.done("POST", "/v1/tenants", {"name": f"{named}-{name}", "parent": parent and f"{named}-{parent}"})
    viewer = api.token("viewer", tenant=f"{named}-own")
    above = api.done("POST", f"/v1/tenants/{named}-top/suspend")
    below = api.done("POST", f"/v1/tenants/{named}-own/suspend")
    path = f"/v1/tenants/{named}-team"
    for params, by in (({"as_of": above["position"]}, None), ({"min_position": below["position"]}, f"{named}-own")):
        response = api.get(path, token=viewer, params=params)
        shown = response.json()
        assert (shown["state"], shown["suspended"], shown["suspended_by"]) == ("active", True, by)
        assert f"{named}-top" not in response.text


def test_a_repeat_and_a_receipt_show_nothing_of_what_left_the_scope(api: Api, named: str) -> None:
    top, below, group = f"{named}-top", f"{named}-below", f"{named}-group"
    api.done("POST", "/v1/tenants", {"name": top})
    api.done("POST", "/v1/tenants", {"name": below, "parent": top})
    api.done("POST", "/v1/groups", {"name": group})
    api.done("POST", "/v1/hosts", {"name": f"{named}-host", "group": group, "capacity": {"cpu": 8}})
    api.done("PUT", f"/v1/groups/{group}/quotas/{below}", {"limits": {"cpu": 8}})
    token = api.token("operator", tenant=top)
    vm = {"tenant": below, "name": "web-1", "group": group, "resources": {"cpu": 1}}
    asked = {"token": token, "headers": {"Idempotency-Key": named}}
    first = api.done("POST", "/v1/vms", vm, **asked)
    moved = api.done("POST", f"/v1/tenants/{below}/move", {"parent": None})
    for wait in ({}, {"Prefer": "wait=5"}):
        again = api.post("/v1/vms", vm, token=token, headers={"Idempotency-Key": named, **wait})
        assert (again.status_code, again.headers["Berth-Replayed"]) == (200, "true")
        assert "Location" not in again.headers and "ETag" not in again.headers
        told = again.json()
        assert (told["command"], told["position"]) == (first["command"], first["position"])
        assert (told["resource"], told["operation"]) == (None, None)
    api.shown(moved, f"/v1/tenants/{below}")  # from here on it shows so
    receipt = api.get(f"/v1/commands/{first['command']}", token=token).json()
    assert (receipt["position"], receipt["resource"]) == (first["position"], None)
