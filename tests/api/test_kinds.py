"""What there is, for clients that know no kind by themselves: the command line, `apply`, the portal."""

import json
from typing import Any

import jsonschema_rs
import pytest

from api.app import ENDPOINTS
from api.routes.kinds import inlined
from commands.catalogue import COMMANDS, ROUTED
from domain.kinds import KINDS
from domain.scheduling.registry import STRATEGIES
from domain.token import ROLES
from tests.api.served import Api
from tests.api.test_every_field import steps

every_kind = pytest.mark.parametrize("name", [kind.name for kind in KINDS])
every_command = pytest.mark.parametrize("name", ROUTED)


@pytest.fixture(scope="module")
def told(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/v1/kinds").json()
    return found


@pytest.fixture(scope="module")
def kinds(told: dict[str, Any]) -> dict[str, Any]:
    return {kind["name"]: kind for kind in told["kinds"]}


@pytest.fixture(scope="module")
def commands(told: dict[str, Any]) -> dict[str, Any]:
    return {command["name"]: command for kind in told["kinds"] for command in kind["commands"]}


def test_every_kind_and_every_command_that_can_be_given_stands_there_and_nothing_else(
    told: dict[str, Any], kinds: dict[str, Any], commands: dict[str, Any]
) -> None:
    assert kinds.keys() == {kind.name for kind in KINDS}
    assert commands.keys() == {name for name, model in COMMANDS.items() if model.route is not None}
    assert (set(told["strategies"]), told["roles"]) == (set(STRATEGIES), list(ROLES))
    for kind in told["kinds"]:
        assert all(command["name"].startswith(f"{kind['name']}.") for command in kind["commands"])


def test_kinds_stand_in_the_order_in_which_they_can_be_made(told: dict[str, Any]) -> None:
    seen: set[str] = set()
    for kind in told["kinds"]:
        assert set(kind["refs"].values()) <= seen | {kind["name"]}
        seen.add(kind["name"])


@every_kind
def test_what_a_table_shows_are_fields(kinds: dict[str, Any], name: str) -> None:
    kind = kinds[name]
    fields = {field["name"] for field in kind["fields"]}
    shown = {*kind["columns"], *kind["wide"], *kind["amounts"]}
    assert shown <= fields
    assert set(kind["yields"]) <= set(kind["columns"])
    assert set(kind["sorts"]) <= fields
    assert set(kind["failed_states"]) <= set(kind["states"])
    assert len(kind["amounts"]) <= 2


@every_kind
def test_a_list_takes_the_filters_and_sorts_that_are_told(api: Api, kinds: dict[str, Any], name: str) -> None:
    kind = kinds[name]
    of_amounts = [f"cpu_{amount}" for amount in kind["amount_sorts"]]
    for sort in (*kind["sorts"], *of_amounts):
        for sign in ("", "-"):
            assert api.get(kind["list"], params={"sort": f"{sign}{sort}", "limit": 1}).status_code == 200
    for filter in kind["filters"]:
        value = _value(filter["name"], filter["schema"])
        given = [value, value] if filter["repeatable"] else [value]
        assert api.get(kind["list"], params={filter["name"]: given, "limit": 1}).status_code == 200
    assert api.get(kind["list"], params={"sort": "cpu_used"}).status_code == (200 if of_amounts else 422)


def _value(name: str, schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema["type"] == "boolean":
        return "true"
    return "2026-01-01T00:00:00Z" if schema.get("format") == "date-time" else "a=b" if name == "label" else "nobody"


@every_kind
def test_a_resource_has_the_fields_that_are_told(kinds: dict[str, Any], name: str) -> None:
    for field in kinds[name]["fields"]:
        assert "$ref" not in json.dumps(field["schema"]), "nothing else is there to look it up in"
        jsonschema_rs.Draft202012Validator(field["schema"])


@every_command
def test_a_command_has_its_route_and_its_words(commands: dict[str, Any], name: str) -> None:
    command = commands[name]
    assert (command["method"], command["path"]) in {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert command["summary"]
    assert not command["summary"].endswith(".")


@every_command
def test_the_body_of_a_command_is_a_schema_by_itself(commands: dict[str, Any], name: str) -> None:
    """It takes the bodies that the API takes, and nothing that is in the path."""
    body = commands[name]["body"]
    validator = jsonschema_rs.Draft202012Validator(body)
    assert not [field for field in body["properties"] if f"{{{field}}}" in commands[name]["path"]]
    if name in (accepted := steps("n", "o")):
        assert validator.is_valid(accepted[name][1])
    assert not validator.is_valid({"nonsense": 1})


@every_command
def test_every_field_of_a_body_says_what_it_is(commands: dict[str, Any], name: str) -> None:
    body = commands[name]["body"]
    parts = [part for part in body.get("$defs", {}).values() if "properties" in part]
    for field, schema in ((field, schema) for part in (body, *parts) for field, schema in part["properties"].items()):
        assert schema.get("description"), f"{field} of {name} says nothing"
        assert "title" in schema or "$ref" in json.dumps(schema)


def test_verbs_are_those_of_the_command_line(commands: dict[str, Any]) -> None:
    assert commands["vm.provision"]["verb"] == "create"
    assert {commands[name]["verb"] for name in ("vm.update", "quota.set")} == {"set"}
    assert {commands[name]["verb"] for name in ("vm.delete", "token.revoke")} == {"delete"}
    assert commands["vm.resize"]["verb"] == "resize"


def test_which_commands_leave_work_is_told(commands: dict[str, Any]) -> None:
    """What an operation is started for is named after its command."""
    starting = {name for name, command in commands.items() if command["starts_operation"]}
    assert starting == {"vm.provision", "vm.resize", "vm.start", "vm.stop", "vm.delete"}


def test_who_has_it_is_not_sent_it_again(api: Api) -> None:
    first = api.get("/v1/kinds")
    tag = first.headers["etag"]
    for told in (tag, f"W/{tag}", f'"else", {tag}', "*"):
        again = api.get("/v1/kinds", headers={"If-None-Match": told})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers
    assert api.get("/v1/kinds", headers={"If-None-Match": '"else"'}).content == first.content
    head = api.call("HEAD", "/v1/kinds")
    assert (head.headers["etag"], head.headers["content-length"]) == (tag, str(len(first.content)))


def test_a_schema_is_told_with_what_it_refers_to() -> None:
    definitions = {"Bmc": {"properties": {"at": {"$ref": "#/x/Place"}}}, "Place": {"type": "string"}}
    schema = {"anyOf": [{"$ref": "#/x/Bmc"}, {"type": "null"}], "description": "how it is reached"}
    assert inlined(schema, definitions) == {
        "anyOf": [{"properties": {"at": {"type": "string"}}}, {"type": "null"}],
        "description": "how it is reached",
    }
