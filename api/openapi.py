"""The description of the API, made from the very endpoints that serve it."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from api.body import JSON_TYPE, PATCH_TYPE
from api.body_schemas import body_schema
from api.endpoint import Endpoint
from api.parameters import KEY, REASON_CHARACTERS_MAX, Parameter
from api.problem_schemas import response_name, responses
from api.schemas import SCHEMAS
from domain.kinds import BY_NAME
from domain.values import NAME_PATTERN
from projections.field_types import enum, ref

Document = dict[str, Any]

ID_PATTERN = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

HEADERS: dict[str, tuple[str, Document]] = {
    "Idempotency-Key": (
        "Makes retries safe: the same key and request get the first answer again, for ever",
        {"type": "string", "pattern": f"^{KEY.pattern}$"},
    ),
    "If-Match": ('The version that the resource must have, as ETag gives it: "4711"', {"type": "string"}),
    "If-None-Match": (
        "*, where something is set: only if it does not exist yet. Where something is read, the ETag of what you have",
        {"type": "string"},
    ),
    "Prefer": ("wait=<seconds>: wait for the operation's end, at most 60", {"type": "string"}),
    "Berth-Reason": (
        "Why; kept in the audit. UTF-8, percent-encoded outside printable ASCII",
        {"type": "string", "maxLength": REASON_CHARACTERS_MAX},
    ),
    "Last-Event-ID": ("Go on after this position", {"type": "string"}),
}


def describe(endpoints: Sequence[Endpoint]) -> Document:
    """An OpenAPI 3.1 document."""
    schemas: Document = dict(SCHEMAS)
    paths: dict[str, Document] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path.replace(":path", ""), {})[endpoint.method.lower()] = _operation(
            endpoint, schemas
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Berth",
            "version": _version(),
            "description": "The resource-management layer of a private cloud: who has what, where it runs, and why.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "where this description was read"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": responses(),
        },
        "security": [{"token": []}],
    }


def _version() -> str:
    try:
        return version("berth-cloud")
    except PackageNotFoundError:
        return "0"


def _operation(endpoint: Endpoint, schemas: Document) -> Document:
    described: Document = {
        "summary": endpoint.summary,
        "operationId": _id(endpoint),
        "tags": [_tag(endpoint)],
        "parameters": [
            *(_path_parameter(name) for name in endpoint.path_fields),
            *(_query_parameter(parameter) for parameter in endpoint.parameters.values()),
            *(_header_parameter(name) for name in endpoint.headers),
        ],
        "responses": _responses(endpoint),
    }
    if endpoint.model is not None and (details := endpoint.model.details()):
        described["description"] = details
    if endpoint.roles is None:
        described["security"] = []
    if body := _body(endpoint, schemas):
        described["requestBody"] = body
    return described


def _id(endpoint: Endpoint) -> str:
    """What generated clients call their function: `provision_vm`, `list_vms`."""
    if endpoint.model is None:
        return endpoint.name
    kind, _, verb = endpoint.model.kind.partition(".")
    return f"{verb}_{kind}"


def _tag(endpoint: Endpoint) -> str:
    parts = endpoint.path.split("/")
    return parts[2] if parts[1] == "v1" and len(parts) > 2 else "running"


def _path_parameter(name: str) -> Document:
    schema: Document
    match name:
        case "kind":
            schema = enum(*BY_NAME)
        case _ if name in BY_NAME:
            schema = {"type": "string", "pattern": ID_PATTERN if BY_NAME[name].has_id_for_name else NAME_PATTERN}
        case _:
            schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameter(parameter: Parameter) -> Document:
    schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    }


def _header_parameter(name: str) -> Document:
    description, schema = HEADERS[name]
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _body(endpoint: Endpoint, schemas: Document) -> Document | None:
    if endpoint.body is not None:
        return {"required": True, "content": {JSON_TYPE: {"schema": ref(endpoint.body)}}}
    if endpoint.model is None:
        return None
    schema = body_schema(endpoint.model, ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    if not schema["properties"]:
        return None
    schemas[endpoint.model.__name__] = schema
    types = (JSON_TYPE, PATCH_TYPE) if endpoint.method == "PATCH" else (JSON_TYPE,)
    return {"required": True, "content": {type: {"schema": ref(endpoint.model.__name__)} for type in types}}


def _responses(endpoint: Endpoint) -> Document:
    told: Document = {}
    for status in endpoint.statuses:
        found: Document = {"description": HTTPStatus(status).phrase}
        if status == HTTPStatus.NOT_MODIFIED:
            pass
        elif endpoint.answer is not None:
            name = f"{endpoint.answer}Answer" if endpoint.model is not None else endpoint.answer
            found["content"] = {endpoint.answer_type: {"schema": ref(name)}}
            if endpoint.answer.endswith("List"):
                found["content"]["text/csv"] = {"schema": {"type": "string"}}
        else:
            schema = {} if endpoint.answer_type == "application/json" else {"type": "string"}
            found["content"] = {endpoint.answer_type: {"schema": schema}}
        if endpoint.model is not None:
            found["headers"] = {
                name: {"schema": {"type": "string"}}
                for name in ("Berth-Position", "ETag", "Location", "Berth-Replayed")
            }
        told[str(status)] = found
    # Whoever must say who they are may be told so, to come again, or that nobody can be looked up just now.
    of_tokens = (401, 429, 503) if endpoint.roles is not None else ()
    for status in sorted({*endpoint.refusals, *of_tokens, 405, 500}):
        told[str(status)] = {"$ref": f"#/components/responses/{response_name(status)}"}
    return told
