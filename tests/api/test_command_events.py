"""A command's own event is the audit's entry: for who may read the audit, in pages, counts and live alike."""

import json
from typing import Any

import pytest

from tests.api.served import ADMIN, Api
from tests.api.test_live import events_of

SOURCE = "127.0.0.1"


@pytest.fixture(scope="module")
def since(api: Api) -> int:
    """Some commands after this position: accepted and refused ones, one on a token."""
    n = "told"
    position: int = api.get("/v1/events?limit=1").json()["position"]
    why = {"headers": {"Berth-Reason": "secret-ticket"}}
    api.done("POST", "/v1/tenants", {"name": n}, **why)
    api.post("/v1/tenants", {"name": n}, **why)
    api.done("POST", "/v1/tokens", {"name": f"{n}-token", "role": "viewer"}, **why)
    last = api.done("PATCH", f"/v1/tenants/{n}", {"description": "told-last"}, **why)
    api.shown(last, "/v1/tenants")
    return position


@pytest.fixture(scope="module")
def tokens(api: Api, since: int) -> dict[str, str]:
    return {role: api.token(role) for role in ("viewer", "operator", "auditor")} | {"admin": ADMIN}


def kinds(events: list[dict[str, Any]]) -> set[str]:
    return {event["stream"].partition("/")[0] for event in events}


@pytest.mark.parametrize("role", ["viewer", "operator", "auditor", "admin"])
@pytest.mark.parametrize("sort", ["position", "-position"])
def test_a_page_has_them_for_who_reads_the_audit(
    api: Api, since: int, tokens: dict[str, str], role: str, sort: str
) -> None:
    asked: dict[str, Any] = {"after": since, "limit": 1000, "count": "true", "sort": sort}
    response = api.get("/v1/events", token=tokens[role], params=asked)
    page = response.json()
    assert page["count"] == len(page["items"]) > 0
    assert "tenant" in kinds(page["items"])
    may = role in ("auditor", "admin")
    assert ("command" in kinds(page["items"]), "token" in kinds(page["items"])) == (may, may)
    assert [told in response.text for told in ("secret-ticket", SOURCE, "told-token")] == [may] * 3
    for narrowed in ({"topic": "command.accepted"}, {"topic": "command.rejected"}, {"q": "secret-ticket"}):
        page = api.get("/v1/events", token=tokens[role], params={**asked, **narrowed}).json()
        assert (page["count"] > 0, len(page["items"])) == (may, page["count"])
    own = api.get("/v1/events", token=ADMIN, params={"topic": "command.accepted", "after": since}).json()["items"][0]
    page = api.get("/v1/events", token=tokens[role], params={"stream": own["stream"], "count": "true"}).json()
    assert page["count"] == len(page["items"]) == int(may)


@pytest.mark.parametrize("role", ["viewer", "operator", "auditor"])
def test_the_live_stream_has_them_for_who_reads_the_audit(
    api: Api, since: int, tokens: dict[str, str], role: str
) -> None:
    told = []
    for event in events_of(api, f"/v1/events/stream?after={since}", token=tokens[role]):
        told.append(json.loads(event["data"]))
        if told[-1]["topic"] == "tenant.updated":
            break
    assert ("command" in kinds(told)) == (role == "auditor")
    assert ("secret-ticket" in json.dumps(told)) == (role == "auditor")


def test_a_receipt_of_a_token_is_not_for_everybody(api: Api, since: int, tokens: dict[str, str]) -> None:
    (entry,) = api.get("/v1/audit", params={"resource": "token/told-token"}).json()["items"]
    path = f"/v1/commands/{entry['id']}"
    statuses = {role: api.get(path, token=token).status_code for role, token in tokens.items()}
    assert statuses == {"viewer": 404, "operator": 404, "auditor": 200, "admin": 200}


def test_within_a_scope_it_is_the_same(api: Api, since: int) -> None:
    for role in ("viewer", "operator", "auditor"):
        token = api.token(role, tenant="told")
        items = api.get("/v1/events", token=token, params={"after": since, "limit": 1000}).json()["items"]
        assert kinds(items) == {"tenant", "command"} if role == "auditor" else {"tenant"}
