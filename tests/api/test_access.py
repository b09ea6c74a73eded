"""Who may do what: tokens, and every route with every role."""

from datetime import UTC, datetime, timedelta

import pytest

from api.app import ENDPOINTS
from api.endpoint import Endpoint
from commands.catalogue import permits
from commands.tokens import hash_of
from domain.token import ROLES
from tests.api.served import Api

GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.roles is not None]
OPEN = [endpoint for endpoint in ENDPOINTS if endpoint.roles is None]
VALUES = {
    "operation": "01a20e9d-a7a9-7ccb-bd6f-d7517dda50bc",
    "command": "01a20e9d-a7a9-7ccb-bd6f-d7517dda50bc",
    "kind": "tenant",
    "name": "nobody",
    "code": "no_quota",
}


def path_of(endpoint: Endpoint) -> str:
    path = endpoint.path.replace(":path", "")
    for field in endpoint.path_fields:
        path = path.replace(f"{{{field}}}", VALUES.get(field, "nobody"))
    return path + ("?by=tenant" if endpoint.path == "/v1/capacity" else "")


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture(scope="module")
def tokens(api: Api) -> dict[str, str]:
    return {role: api.token(role) for role in ROLES}


@pytest.mark.parametrize("endpoint", GUARDED, ids=named)
def test_nobody_unknown_gets_in(api: Api, endpoint: Endpoint) -> None:
    for token in (None, "guessed"):
        response = api.call(endpoint.method, path_of(endpoint), token=token)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("endpoint", OPEN, ids=named)
def test_what_needs_no_token_is_open(api: Api, endpoint: Endpoint) -> None:
    assert api.call(endpoint.method, path_of(endpoint), token=None).status_code == 200


READS = [e for e in GUARDED if e.model is None and e.path not in ("/v1/commands", "/v1/events/stream")]


def may_read(role: str, endpoint: Endpoint) -> bool:
    """As the contract says it, apart from the table that the API is made of."""
    area = endpoint.path.split("/")[2]
    if role == "admin" or area == "whoami" or endpoint.path == "/v1/commands/{command}":
        return True
    if role == "controller":
        return area == "operations"
    if area in ("audit", "verify"):
        return role == "auditor"
    return area != "tokens"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("endpoint", READS, ids=named)
def test_a_role_reads_what_is_its_own_and_no_more(
    api: Api, tokens: dict[str, str], endpoint: Endpoint, role: str
) -> None:
    response = api.call(endpoint.method, path_of(endpoint), token=tokens[role])
    if may_read(role, endpoint):
        assert response.status_code in (200, 404)
    else:
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert response.json()["permission"]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_commands_what_is_its_own_and_no_more(api: Api, tokens: dict[str, str], role: str) -> None:
    """Decided, and recorded, by the engine: here that it is asked with the right role, for every command."""
    valid = {
        "tenant.create": {"name": "a-a"},
        "tenant.move": {"parent": None},
        "rack.create": {"name": "a", "region": "r", "dc": "d"},
        "group.create": {"name": "a"},
        "host.register": {"name": "a", "group": "nowhere", "capacity": {"cpu": 1}},
        "host.move": {"group": "nowhere"},
        "quota.set": {"limits": {}},
        "vm.provision": {"tenant": "nobody", "name": "a", "group": "a", "resources": {"cpu": 1}},
        "vm.resize": {"resources": {"cpu": 1}},
        "operation.report": {"step": "vm.create", "attempt": 1, "outcome": "started"},
        "token.create": {"name": "a", "role": "viewer"},
    }
    for endpoint in GUARDED:
        if endpoint.model is None:
            continue
        kind = endpoint.model.kind
        body = valid.get(kind, {})
        params = {"dry_run": "true"}
        response = api.call(endpoint.method, path_of(endpoint), body, token=tokens[role], params=params)
        allowed = permits(role, kind)
        assert (response.status_code == 403) is not allowed, (kind, response.text)
        assert response.status_code != 422, (kind, response.text)


@pytest.mark.parametrize("way", ["alone", "batch"])
def test_a_revoked_token_is_refused_at_once(api: Api, named: str, way: str) -> None:
    for n in range(5):
        name = f"{named}-{n}"
        secret = api.done("POST", "/v1/tokens", {"name": name, "role": "viewer"})["secret"]
        api.call("DELETE", f"/v1/tokens/{name}", params={"dry_run": "true"})
        assert api.get("/v1/whoami", token=secret).json()["name"] == name
        if way == "alone":
            api.done("DELETE", f"/v1/tokens/{name}")
        else:
            api.done("POST", "/v1/commands", {"commands": [{"command": "token.revoke", "token": name}]})
        assert api.get("/v1/whoami", token=secret).status_code == 401


def test_an_expired_token_is_refused(api: Api, named: str) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    body = {"name": named, "role": "viewer", "expires_at": soon.isoformat()}
    secret = api.done("POST", "/v1/tokens", body)["secret"]
    assert api.get("/v1/whoami", token=secret).status_code == 200
    while datetime.now(UTC) <= soon:
        api.get("/healthz")
    assert api.get("/v1/whoami", token=secret).status_code == 401


def test_a_new_token_is_known_at_once(api: Api, named: str) -> None:
    for n in range(5):
        secret = api.done("POST", "/v1/tokens", {"name": f"{named}-{n}", "role": "viewer"})["secret"]
        assert api.get("/v1/whoami", token=secret).status_code == 200


def test_a_secret_is_told_once_and_kept_nowhere(api: Api, named: str) -> None:
    headers = {"Idempotency-Key": named}
    body = {"name": named, "role": "viewer"}
    first = api.done("POST", "/v1/tokens", body, headers=headers)
    again = api.done("POST", "/v1/tokens", body, headers=headers)
    assert "secret" in first
    assert "secret" not in again
    events = api.shown(first, "/v1/events", params={"stream": f"token/{named}"})
    assert first["secret"] not in events.text
    assert hash_of(first["secret"]) in events.text, "the log itself: what NATS has, and no less"


def test_a_controller_reads_no_others_commands(api: Api, tokens: dict[str, str], named: str) -> None:
    command = api.done("POST", "/v1/tenants", {"name": named})["command"]
    assert api.get(f"/v1/commands/{command}", token=tokens["viewer"]).status_code == 200
    assert api.get(f"/v1/commands/{command}", token=tokens["controller"]).status_code == 404
