"""`GET /v1/kinds`: every kind with its fields, filters, sorts and commands. Clients that know no kind by themselves are
made from it: the command line, `apply`, the portal."""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from api.body_schemas import body_schema
from api.endpoint import Call, Endpoint
from api.parameters import LABEL, SEARCH
from api.reading import filters_of
from api.reply import Answerable, Reply, encode
from api.schemas import SCHEMAS
from commands.catalogue import handlers_of
from commands.model import Command, Route
from domain.kind import Kind
from domain.kinds import in_order_of_references
from domain.scheduling.registry import STRATEGIES
from domain.token import ROLES
from projections.view import EVERY_ROLE
from projections.views import VIEWS

Document = dict[str, Any]


def described_kinds() -> Document:
    return {
        "kinds": [_kind(kind) for kind in in_order_of_references()],
        "strategies": sorted(STRATEGIES),
        "roles": list(ROLES),
    }


def _kind(kind: Kind[Any]) -> Document:
    view = VIEWS[kind.name]
    return {
        "name": kind.name,
        "plural": kind.plural,
        "short": view.short,
        "named_by": kind.named_by,
        "path": kind.path,
        "list": kind.list_path,
        "states": kind.states,
        "failed_states": [state for state in view.failed_states if state in kind.states],
        "refs": kind.refs,
        "fields": [
            {
                "name": field.name,
                "schema": inlined(field.schema, SCHEMAS),
                **({"description": field.description} if field.description else {}),
            }
            for field in view.fields
        ],
        "filters": [
            {
                "name": filter.name,
                "description": filter.description,
                "schema": filter.schema,
                "repeatable": filter.repeatable,
            }
            for filter in (*filters_of(view), SEARCH, LABEL)
        ],
        "sorts": view.sorts(),
        "amount_sorts": list(view.amount_sorts.sql) if view.amount_sorts is not None else [],
        "columns": view.columns,
        "wide": view.wide,
        "amounts": view.amounts,
        "yields": view.yields,
        "commands": [_command(model, model.route) for model in handlers_of(kind) if model.route is not None],
    }


def _command(model: type[Command], route: Route) -> Document:
    return {
        "name": model.kind,
        "verb": route.verb,
        "method": route.method,
        "path": route.path,
        "summary": model.summary(),
        "description": model.details(),
        "body": body_schema(model),
        "starts_operation": model.starts_operation,
    }


def inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema with what it refers to in the references' places: who reads it has nothing else."""
    match schema:
        case {"$ref": str(ref), **rest}:
            return {**inlined(definitions[ref.rpartition("/")[2]], definitions), **rest}
        case dict():
            return {name: inlined(inner, definitions) for name, inner in schema.items()}
        case list() | tuple():
            return [inlined(inner, definitions) for inner in schema]
        case _:
            return schema


@cache
def _whole() -> tuple[bytes, bytes]:
    """What is answered for as long as this process runs, and its tag."""
    body = encode(described_kinds())
    return body, b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode()


async def _kinds(call: Call) -> Answerable:
    call.query()
    body, tag = _whole()
    headers = ((b"etag", tag), (b"cache-control", b"private, no-cache"))
    if _has(call.headers.get(b"if-none-match", b""), tag):
        return Reply(304, headers=headers)
    return Reply(200, body, headers=headers)


def _has(given: bytes, tag: bytes) -> bool:
    """Whether an If-None-Match (RFC 9110, 13.1.2) names what would be answered. What a proxy made weak is the same."""
    tags = [one.strip().removeprefix(b"W/") for one in given.split(b",")]
    return tag in tags or tags == [b"*"]


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/kinds",
        name="get_kinds",
        summary="Every kind of resource: its fields, filters, sorts and commands",
        handle=_kinds,
        roles=EVERY_ROLE,
        headers=("If-None-Match",),
        answer="Kinds",
        statuses=(200, 304),
        refusals=(401, 422),
    ),
)
