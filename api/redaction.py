"""Leaves out of resources, events and audit entries what an actor confined to a tenant may not read."""

from collections.abc import Mapping
from typing import Any

from api import refusals
from api.tenant_scope import TenantScope
from domain.kinds import tenant_of
from domain.values import from_rfc3339
from projections import resources
from projections.kinds import tenants

Document = dict[str, Any]

EXPLAINED = ("strategy", "group", "considered", "reasons", "score", "load", "groups")
# Shown of others' refused commands: fields that describe the resource itself. Names are shown only if in scope.
OWN_WORDS = frozenset(
    {
        *("name", "vm", "cluster", "operation", "display_name", "description", "external_id", "labels", "protected"),
        *("resources", "limits", "image", "strategy", "rules", "force", "reason"),
        *("step", "attempt", "outcome", "message", "percent"),
    }
)


def resource(kind: str, document: Document, scope: TenantScope | None, *, at: int | None = None) -> Document | None:
    """The resource without what is out of scope; None if all of it is. `at` is the time of that state."""
    return resources.in_scope(kind, document, scope, at=at) if scope is not None else document


def event(document: Document, scope: TenantScope) -> Document:
    """An event of a stream in scope, without what is out of scope."""
    data: Mapping[str, Any] = document["data"]
    at = from_rfc3339(document["at"])
    match document["stream"].partition("/")[0]:
        case "tenant":
            return {**document, "data": tenants.redacted(scope, data, at)}
        case "quota" if "by" in data and not scope.has_tenant(tenant_of(data["by"]), at):
            return {**document, "data": {**data, "by": None}}
        case "vm" if "explanation" in data:
            return {**document, "data": {**data, "explanation": explanation(data["explanation"], scope, at=at)}}
        case "command":
            return {**document, "data": command(data, scope)}
        case _:
            return document


def command(entry: Mapping[str, Any], scope: TenantScope) -> Document:
    """The audit entry of a command whose resource is in scope."""
    shown = dict(entry)
    at, is_own = from_rfc3339(entry["at"]), entry.get("token") == scope.actor
    if entry.get("problem"):
        reader = refusals.Reader(scope, at, is_own)
        shown["resource"] = reader.stream(entry.get("resource"))
    if isinstance(entry.get("request"), dict) and not is_own:
        shown["request"] = _request(entry["request"], scope, at, is_refused=bool(entry.get("problem")))
    if entry.get("problem"):
        shown["problem"] = refusals.in_scope(entry["problem"], scope, at=at, is_own=is_own)
    if not is_own:
        shown.pop("warnings", None)  # they may name what only who was warned may see
    return shown


def explanation(found: Mapping[str, Any], scope: TenantScope | None, *, at: int | None = None) -> Document:
    """Why a VM runs where it runs, without the hosts that it did not get."""
    if scope is None:
        return dict(found)
    shown = {field: found[field] for field in EXPLAINED if field in found}
    if isinstance(shown.get("groups"), list):
        shown["groups"] = [group for group in shown["groups"] if scope.has_group(group.get("group"), at)]
    return shown


def _request(request: Mapping[str, Any], scope: TenantScope, at: int, *, is_refused: bool) -> Document:
    """What another asked for. What was done shows in the resource itself, but for the tenants above it."""
    shown: Document = {}
    for field, value in request.items():
        match field:
            case "tenant" | "parent" | "owner":
                shown[field] = value if scope.has_tenant(value, at) else None
            case "group" if isinstance(value, list):
                shown[field] = [name for name in value if scope.has_group(name, at)]
            case "group" if is_refused and value != "*":
                shown[field] = value if scope.has_group(value, at) else None
            case _ if not is_refused or field in OWN_WORDS:
                shown[field] = value
            case _:
                pass
    return shown
