"""Who may do what: tokens, and every route with every role."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from api.app import ENDPOINTS
from api.auth import Tokens
from api.commanding import submitted
from api.endpoint import Endpoint
from commands.catalogue import COMMANDS, ROUTED
from commands.model import Command
from commands.tokens import hash_of
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import Unauthenticated
from domain.token import ROLES
from projections.definitions import SCHEMA
from projections.queries import TokenRow
from tests.api.served import Api

GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.roles is not None]
OPEN = [endpoint for endpoint in ENDPOINTS if endpoint.roles is None]
UNKNOWN = {
    "operation": "01a20e9d-a7a9-7ccb-bd6f-d7517dda50bc",
    "command": "01a20e9d-a7a9-7ccb-bd6f-d7517dda50bc",
    "kind": "tenant",
    "code": "no_quota",
    "component": "api",
}
EXAMPLES = ("nobody", "nobodys.work")  # texts: one of them matches a field's pattern


def path_of(endpoint: Endpoint, names: Mapping[str, str] = UNKNOWN) -> str:
    path = endpoint.path.replace(":path", "")
    for field in endpoint.path_fields:
        path = path.replace(f"{{{field}}}", names.get(field, "nobody"))
    return path + ("?by=tenant" if "by" in endpoint.parameters else "")


def body_of(model: type[Command], names: Mapping[str, str] = UNKNOWN, *, without: Collection[str] = ()) -> Any:
    """The least that a command's fields must say, from its own schema; fields of that name get `names`. A reason that
    is taken from the body is needed, there or in the header."""
    schema = model.model_json_schema()
    needed = [field for field in schema.get("required", ()) if field not in without]
    needed += [field for field in ("reason",) if field in schema["properties"]]
    return {field: names.get(field) or _example(schema["properties"][field], schema) for field in needed}


def _example(field: dict[str, Any], schema: dict[str, Any]) -> Any:
    if "$ref" in field:
        return _example(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return _example(field["anyOf"][0], schema)
    if "enum" in field:
        return field["enum"][0]
    match field["type"]:
        case "integer":
            return field.get("minimum", 1)
        case "object" if "patternProperties" in field:
            return {"cpu": 1}
        case "object":
            return {name: _example(field["properties"][name], schema) for name in field.get("required", ())}
        case "array":
            return [_example(field["items"], schema)]
        case "string":
            return next(text for text in EXAMPLES if re.search(field.get("pattern", ""), text))
        case other:
            raise AssertionError(f"no example of {other}: {field}")


def batch_of_all(names: Mapping[str, str] = UNKNOWN) -> dict[str, Any]:
    """A command of every kind."""
    return {"commands": [{"command": kind, **body_of(ROUTED[kind], names)} for kind in sorted(ROUTED)]}


def ask(api: Api, endpoint: Endpoint, *, token: str | None, names: Mapping[str, str] = UNKNOWN) -> httpx.Response:
    """Use an endpoint as it is meant to be used, but so that nothing comes of it."""
    path = path_of(endpoint, names)
    if endpoint.answer_type == "text/event-stream":
        with api.http.stream("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {}) as response:
            if response.status_code != 200:
                response.read()
            return response
    if endpoint.body == "Batch":
        return api.call(endpoint.method, path, batch_of_all(names), token=token, params={"dry_run": "true"})
    if endpoint.model is None:
        return api.call(endpoint.method, path, token=token)
    body = body_of(endpoint.model, names, without=endpoint.path_fields)
    return api.call(endpoint.method, path, body, token=token, params={"dry_run": "true"})


def named(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


@pytest.fixture(scope="module")
def tokens(api: Api) -> dict[str, str]:
    """The controller's has the name that stands in the example of a step: what is another's is forbidden to it."""
    controller = api.done("POST", "/v1/tokens", {"name": "nobodys", "role": "controller"})["secret"]
    return {role: api.token(role) for role in ROLES if role != "controller"} | {"controller": controller}


@pytest.mark.parametrize("endpoint", GUARDED, ids=named)
def test_nobody_unknown_gets_in(api: Api, endpoint: Endpoint) -> None:
    for token in (None, "guessed"):
        response = ask(api, endpoint, token=token)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("endpoint", OPEN, ids=named)
def test_what_needs_no_token_is_open(api: Api, endpoint: Endpoint) -> None:
    assert ask(api, endpoint, token=None).status_code == 200


def may_command(role: str, kind: str) -> bool:
    """As the contract says it, apart from the tables that the engine and the API are made of."""
    match role:
        case "admin":
            return True
        case "operator":
            return not kind.startswith("token.")
        case _:
            return role == "controller" and kind == "operation.report"


def may_read(role: str, endpoint: Endpoint) -> bool:
    area = endpoint.path.split("/")[2]
    if role == "admin" or area in ("whoami", "kinds") or endpoint.path == "/v1/commands/{command}":
        return True
    if role == "controller":
        return area == "operations"
    if area in ("audit", "verify"):
        return role == "auditor"
    return area != "tokens"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("endpoint", GUARDED, ids=named)
def test_a_role_does_what_is_its_own_and_no_more(
    api: Api, tokens: dict[str, str], endpoint: Endpoint, role: str
) -> None:
    """Every route with every role. What may be asked is asked in vain: of what does not exist, or as a dry run."""
    response = ask(api, endpoint, token=tokens[role])
    if endpoint.body == "Batch":
        assert response.status_code == 200
        results = dict(zip(sorted(ROUTED), response.json()["results"], strict=True))
        assert not [kind for kind, result in results.items() if result["status"] in (400, 422)]
        assert {kind for kind, result in results.items() if result["status"] != 403} == {
            kind for kind in ROUTED if may_command(role, kind)
        }
        return
    is_allowed = may_command(role, endpoint.model.kind) if endpoint.model else may_read(role, endpoint)
    if is_allowed:
        assert response.status_code in (200, 201, 202, 404, 409), response.text
    else:
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert response.json()["permission"]


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


def test_no_token_is_called_unknown_while_the_read_model_is_behind(api: Api, named: str) -> None:
    with psycopg.connect(api.conninfo) as held:
        held.execute(SQL("LOCK TABLE {}.progress IN EXCLUSIVE MODE").format(Identifier(SCHEMA)))
        api.done("POST", "/v1/tenants", {"name": named})
        behind = api.get("/v1/whoami", token="berth_unknown-" + named)
        assert (behind.status_code, behind.json()["code"]) == (503, "unavailable")
        assert "retry-after" in behind.headers
    api.get(f"/v1/tenants/{named}")
    assert api.get("/v1/whoami", token="berth_unknown-" + named).status_code == 401


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
    history = api.get(f"/v1/history/token/{named}")
    audit = api.get("/v1/audit", params={"resource": f"token/{named}"})
    for told in (events, history, audit):
        assert named in told.text
        assert first["secret"] not in told.text
        assert hash_of(first["secret"]) not in told.text, "hashes are nobody's to read"


def test_a_controller_reads_no_others_commands(api: Api, tokens: dict[str, str], named: str) -> None:
    command = api.done("POST", "/v1/tenants", {"name": named})["command"]
    assert api.get(f"/v1/commands/{command}", token=tokens["viewer"]).status_code == 200
    assert api.get(f"/v1/commands/{command}", token=tokens["controller"]).status_code == 404


async def test_a_token_that_the_engine_does_not_take_is_looked_up_again() -> None:
    """An API process may hold it for good for a moment longer; then the answer is 401, and the next asks anew."""
    asked = 0

    async def look_up(hash: str, is_patient: bool) -> tuple[TokenRow | None, bool]:
        nonlocal asked
        asked += 1
        return TokenRow("otto", "operator", None, hash, "active", None), True

    class Refusing:
        async def submit(self, envelope: Envelope) -> list[Answer]:
            problem = Unauthenticated().problem()
            return [Answer(item.id, problem["status"], 0, problem=problem) for item in envelope.items]

    tokens = Tokens(look_up)
    await tokens.authenticate(b"Bearer secret")
    call = cast(
        Any, SimpleNamespace(context=SimpleNamespace(gateway=Refusing(), tokens=tokens), actor=Actor("otto", ""))
    )
    item = Item("id", COMMANDS["tenant.create"].model_validate({"name": "acme"}), {}, "id")
    with pytest.raises(Unauthenticated):
        await submitted(call, Envelope(call.actor, (item,), 0.0))
    assert asked == 1
    await tokens.authenticate(b"Bearer secret")
    assert asked == 2
