"""What can be set is shown: with every field of every command set, each answer is as described, and whole as CSV."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from api.app import ENDPOINTS
from tests.api.served import Api

WORDS = {"labels": {"team": "pay, ment"}, "description": "wörds", "display_name": "A name", "external_id": "CMDB-7"}
SAID = {**WORDS, "protected": True}
BMC = {"address": "bmc-1", "protocol": "redfish", "credential": "vault/bmc-1", "system": "Systems/1"}
RULES = [
    {"type": "affinity", "set": "a", "level": "rack"},
    {"type": "anti_affinity", "set": "b", "level": "host"},
    {"type": "spread", "set": "c", "level": "dc", "max_skew": 2},
    {"type": "partition", "set": "d", "level": "rack", "partition": 3},
]
STUCK = {"attempt": 1, "outcome": "failed", "message": "no disk", "percent": 40, "outputs": {"node": "7"}, "code": "E7"}
FLAGS = {"force", "retryable"}  # of the command alone: what is made of them shows elsewhere


def steps(n: str, operation: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By command, its path and its body; in an order in which each is accepted."""
    place = {"region": f"{n}-north", "dc": f"{n}-1", "room": f"{n}-cage"}
    where = {**place, "rack": n, "host": n, "labels": WORDS["labels"]}
    rack = {**place, "units": 42}
    group = {"region": f"{n}-north", "strategy": "worst_fit", "overcommit": {"cpu": 1.5}}
    host = {"capacity": {"cpu": 8, "memory_mib": 4096}, "rack": n, "unit": 7, "bmc": BMC}
    placed = {"resources": {"cpu": 2}, "image": "debian-13", "strategy": "best_fit", "where": where, "rules": RULES}
    return {
        "tenant.create": ("/v1/tenants", {**SAID, "name": n, "parent": f"{n}-top"}),
        "tenant.update": (f"/v1/tenants/{n}", SAID),
        "tenant.move": (f"/v1/tenants/{n}/move", {"parent": f"{n}-top"}),
        "rack.create": ("/v1/racks", {**SAID, **rack, "name": n}),
        "rack.update": (f"/v1/racks/{n}", {**SAID, **rack}),
        "group.create": ("/v1/groups", {**SAID, **group, "name": n}),
        "group.update": (f"/v1/groups/{n}", {**SAID, **group}),
        "host.register": ("/v1/hosts", {**SAID, **host, "name": n, "group": n}),
        "host.update": (f"/v1/hosts/{n}", {**SAID, **host}),
        "host.move": (f"/v1/hosts/{n}/move", {"group": n}),
        "quota.set": (f"/v1/groups/{n}/quotas/{n}", {**SAID, "limits": {"cpu": 64, "vms": 3}}),
        "vm.provision": ("/v1/vms", {**SAID, **placed, "tenant": n, "name": n, "group": n}),
        "vm.update": (f"/v1/vms/{n}/{n}", SAID),
        "operation.report": (f"/v1/operations/{operation}/report", {**STUCK, "step": "vm.create"}),
        "operation.settle": (
            f"/v1/operations/{operation}/settle",
            {"as": "succeeded", "outputs": {"addresses": ["10.0.0.7", "10.0.0.8"]}, "reason": "seen"},
        ),
        "vm.resize": (f"/v1/vms/{n}/{n}/resize", {"resources": {"cpu": 1}}),
        "token.create": (
            "/v1/tokens",
            {**WORDS, "name": n, "role": "viewer", "tenant": n, "expires_at": "2099-01-01T00:00:00Z"},
        ),
    }


COMMANDS = {endpoint.model.kind: endpoint for endpoint in ENDPOINTS if endpoint.model is not None}


def settable(schema: Mapping[str, Any], parts: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The fields of a body and of what stands in them, by their paths."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from settable(inner, parts, at)
    for name, field in schema.get("properties", {}).items():
        yield f"{at}/{name}"
        yield from settable(field, parts, f"{at}/{name}")


def given(body: Any, at: str = "") -> Iterator[str]:
    for inner in body if isinstance(body, list) else ():
        yield from given(inner, at)
    for name, value in body.items() if isinstance(body, dict) else ():
        yield f"{at}/{name}"
        yield from given(value, f"{at}/{name}")


def test_every_field_that_a_command_has_is_set_here() -> None:
    set_here = steps("n", "o")
    for kind, endpoint in COMMANDS.items():
        assert endpoint.model is not None
        schema = endpoint.model.model_json_schema()
        apart = {f"/{name}" for name in FLAGS | set(endpoint.path_fields)}
        fields = set(settable(schema, schema.get("$defs", {}))) - apart
        missing = fields - set(given(set_here[kind][1])) if kind in set_here else fields
        assert not missing, f"set {sorted(missing)} of {kind} in these steps"


@pytest.fixture(scope="module")
def site(api: Api) -> str:
    """A resource of each kind, all of whose fields are set. `Api.call` holds each answer to its schema."""
    n, operation = "every-field", ""
    api.done("POST", "/v1/tenants", {"name": f"{n}-top"})
    for kind in steps(n, operation):
        path, body = steps(n, operation)[kind]
        answer = api.done(COMMANDS[kind].method, path, body)
        operation = answer["operation"] or operation
        if kind == "operation.report":
            api.done("POST", path, {**body, "step": "vm.delete"})  # it can't be undone either: a person must say
    api.shown(answer, "/v1/tokens")
    return n


LISTS = ("tenants", "racks", "groups", "hosts", "quotas", "vms", "operations", "tokens")


def path_of(kind: str, item: Mapping[str, Any]) -> str:
    match kind:
        case "quotas":
            return f"/v1/groups/{item['group']}/quotas/{item['tenant']}"
        case "vms":
            return f"/v1/vms/{item['tenant']}/{item['name']}"
        case _:
            return f"/v1/{kind}/{item['name']}"


@pytest.mark.parametrize("kind", LISTS)
def test_all_of_a_resource_is_in_its_list_and_its_table(api: Api, site: str, kind: str) -> None:
    mine = {"target": f"vm/{site}/{site}"} if kind == "operations" else {"external_id": "CMDB-7"}
    items = api.get(f"/v1/{kind}", params=mine).json()["items"]
    assert items
    text = api.get(f"/v1/{kind}", params=mine, headers={"Accept": "text/csv"}).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for item, row in zip(items, rows, strict=True):
        assert api.get(path_of(kind, item)).json() == item
        for path, leaf in leaves(item):
            assert in_table(row, path, leaf), (path, leaf, row)


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All that is said, each with the names that lead to it. A list is one of them, whatever is in it."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*at, name))
        elif inner not in (None, []):
            yield (*at, name), inner


def in_table(row: Mapping[str, str], path: tuple[str, ...], leaf: Any) -> bool:
    """In a column of its own, or in the cell of what it is part of."""
    for length in range(len(path), 0, -1):
        if (cell := row.get(".".join(path[:length]))) is not None:
            break
    else:
        return False
    if length == len(path):
        is_words = isinstance(leaf, list) and all(isinstance(word, str) for word in leaf)
        told = " ".join(leaf) if is_words else leaf if isinstance(leaf, str) else msgspec.json.encode(leaf).decode()
        return cell == told
    found = msgspec.json.decode(cell)
    for name in path[length:]:
        found = found[name]
    return bool(found == leaf)


def test_what_was_set_is_shown(api: Api, site: str) -> None:
    """The table and the schema may agree on leaving something out."""
    host, vm = api.get(f"/v1/hosts/{site}").json(), api.get(f"/v1/vms/{site}/{site}").json()
    assert host["bmc"] == BMC
    assert (vm["rules"], vm["addresses"]) == (RULES, ["10.0.0.7", "10.0.0.8"])
    wanted = steps(site, "")
    for kind, shown in (("host.register", host), ("vm.provision", vm)):
        body = {name: value for name, value in wanted[kind][1].items() if name not in ("strategy", "resources")}
        assert {name: shown[name] for name in body} == body
