"""What an actor who is confined to a tenant is shown of what it sees."""

from collections.abc import Mapping
from typing import Any

from api import refusals
from api.sight import Sight, owner_of
from domain.values import from_rfc3339

Document = dict[str, Any]

SUMS = ("hosts", "capacity", "used", "available")
EXPLAINED = ("strategy", "group", "considered", "reasons", "score", "load", "groups")
# Of others' refused commands: what speaks of the thing itself alone. Names are shown if they are seen.
OWN_WORDS = frozenset(
    {
        *("name", "vm", "cluster", "operation", "display_name", "description", "external_id", "labels", "protected"),
        *("resources", "limits", "image", "strategy", "rules", "force", "reason"),
        *("step", "attempt", "outcome", "message", "percent"),
    }
)


def resource(kind: str, document: Document, sight: Sight | None, *, at: int | None = None) -> Document | None:
    """The resource as it may be shown, None if it may not; `at` is when it was so."""
    if sight is None:
        return document
    match kind:
        case "tenant":
            return _tenant(document, sight, at) if sight.has_tenant(document["name"], at) else None
        case "group":
            return (
                {k: v for k, v in document.items() if k not in SUMS} if sight.has_group(document["name"], at) else None
            )
        case "operation":  # it stays when its tenant is gone, so its own time tells whose it was
            began_at = from_rfc3339(document["started_at"])
            return document if sight.has_tenant(document["owner"], began_at) else None
        case "vm" | "quota" | "host":
            return document if sight.has_tenant(document["owner"], at) else None
        case _:
            return None


def event(document: Document, sight: Sight) -> Document:
    """An event of a visible stream, with what is not the actor's left out."""
    data: Mapping[str, Any] = document["data"]
    at = from_rfc3339(document["at"])
    match document["stream"].partition("/")[0]:
        case "tenant":
            return {**document, "data": _tenant(data, sight, at)}
        case "quota" if "by" in data and not sight.has_tenant(owner_of(data["by"]), at):
            return {**document, "data": {**data, "by": None}}
        case "vm" if "explanation" in data:
            return {**document, "data": {**data, "explanation": explanation(data["explanation"], sight, at=at)}}
        case "command":
            return {**document, "data": command(data, sight)}
        case _:
            return document


def command(entry: Mapping[str, Any], sight: Sight) -> Document:
    """An audit entry of a command on something visible."""
    shown = dict(entry)
    at, is_own = from_rfc3339(entry["at"]), entry.get("token") == sight.actor
    if entry.get("problem"):
        reader = refusals.Reader(sight, at, is_own)
        shown["resource"] = reader.stream(entry.get("resource"))
    if isinstance(entry.get("request"), dict) and not is_own:
        shown["request"] = _request(entry["request"], sight, at, is_refused=bool(entry.get("problem")))
    if entry.get("problem"):
        shown["problem"] = refusals.in_scope(entry["problem"], sight, at=at, is_own=is_own)
    if not is_own:
        shown.pop("warnings", None)  # they may name what only who was warned may see
    return shown


def explanation(found: Mapping[str, Any], sight: Sight | None, *, at: int | None = None) -> Document:
    """Why a VM runs where it runs, without the hosts that it did not get."""
    if sight is None:
        return dict(found)
    shown = {field: found[field] for field in EXPLAINED if field in found}
    if isinstance(shown.get("groups"), list):
        shown["groups"] = [group for group in shown["groups"] if sight.has_group(group.get("group"), at)]
    return shown


def _request(request: Mapping[str, Any], sight: Sight, at: int, *, is_refused: bool) -> Document:
    """What another asked for. What was done shows in the resource itself, but for the tenants above it."""
    shown: Document = {}
    for field, value in request.items():
        match field:
            case "tenant" | "parent" | "owner":
                shown[field] = value if sight.has_tenant(value, at) else None
            case "group" if isinstance(value, list):
                shown[field] = [name for name in value if sight.has_group(name, at)]
            case "group" if is_refused and value != "*":
                shown[field] = value if sight.has_group(value, at) else None
            case _ if not is_refused or field in OWN_WORDS:
                shown[field] = value
            case _:
                pass
    return shown


def _tenant(document: Mapping[str, Any], sight: Sight, at: int | None) -> Document:
    """The scope's root has nothing above it; `path` begins with it."""
    shown = dict(document)
    for field in ("parent", "owner", "suspended_by"):
        if field in shown and not sight.has_tenant(shown[field], at):
            shown[field] = None
    for field in ("path", "children"):  # of the past, they may name what is not below it today
        if field in shown:
            shown[field] = [name for name in shown[field] if sight.has_tenant(name, at)]
    return shown
