"""What an actor who is confined to a tenant sees: which streams, and of what they see, how much.

Everything here is about one `Sight`: today's subtree of the actor's tenant, and the groups where it has quota. For an
actor who sees everything there is none.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec

from domain.errors import QuotaExceeded
from projections.queries import LIST_MAX, ReadModel, decoded

Document = dict[str, Any]

SUMS = ("hosts", "capacity", "used", "available")
OWN_COMMANDS = ("vm.", "cluster.")  # their refusals, redacted, speak of nothing but what is the tenant's


class Sight(msgspec.Struct, frozen=True):
    """`actor` is confined to the tenant `root`."""

    actor: str
    root: str
    tenants: frozenset[str]
    groups: frozenset[str]


async def sight_of(read_model: ReadModel, *, actor: str, root: str) -> Sight:
    tenants = [tenant["name"] async for tenant in _all(read_model, "tenant", root)]
    groups = [group["name"] async for group in _all(read_model, "group", root)]
    return Sight(actor, root, frozenset(tenants), frozenset(groups))


async def _all(read_model: ReadModel, kind: str, root: str) -> AsyncIterator[Document]:
    cursor: str | None = None
    while True:
        page = await read_model.list_(kind, limit=LIST_MAX, cursor=cursor, scope=root)
        for item in decoded(page)["items"]:
            yield item
        cursor = page["next_cursor"]
        if cursor is None:
            return


def owner_of(stream: str | None) -> str | None:
    """The tenant whose a stream is; None for what no tenant has, and for operations and commands, which follow another
    stream."""
    kind, *names = (stream or "").split("/")
    match kind, names:
        case ("tenant", [tenant]) | ("vm" | "cluster", [tenant, _]) | ("quota", [_, tenant]):
            return tenant
        case _:
            return None


def resource(kind: str, document: Document, sight: Sight | None) -> Document | None:
    """The resource as it may be shown, None if it may not."""
    if sight is None:
        return document
    match kind:
        case "tenant":
            if document["name"] not in sight.tenants:
                return None
            return _tenant(document, sight)
        case "group":
            return {k: v for k, v in document.items() if k not in SUMS} if document["name"] in sight.groups else None
        case "quota":
            return document if document["tenant"] in sight.tenants else None
        case "vm" | "operation" | "host":
            return document if document["owner"] in sight.tenants else None
        case _:
            return None


def event(document: Document, sight: Sight) -> Document:
    """An event of a visible stream, with what is not the actor's left out."""
    data: Mapping[str, Any] = document["data"]
    match document["stream"].partition("/")[0]:
        case "tenant":
            return {**document, "data": _tenant(data, sight)}
        case "quota" if "by" in data and owner_of(data["by"]) not in sight.tenants:
            return {**document, "data": {**data, "by": None}}
        case "vm" if "explanation" in data:
            return {**document, "data": {**data, "explanation": explanation(data["explanation"], sight)}}
        case "command":
            return {**document, "data": command(data, sight)}
        case _:
            return document


def command(entry: Mapping[str, Any], sight: Sight) -> Document:
    """An audit entry of a command on something visible."""
    shown = dict(entry)
    if shown.get("token") != sight.actor:
        shown.pop("warnings", None)  # they may name what only who was warned may see
    if isinstance(shown.get("request"), dict):
        shown["request"] = _tenant(shown["request"], sight)
    if shown.get("problem"):
        is_own = shown.get("token") == sight.actor
        shown["problem"] = problem(shown["problem"], sight, command=shown["command"], is_own=is_own)
    return shown


def problem(body: Mapping[str, Any], sight: Sight | None, *, command: str, is_own: bool = True) -> Document:
    """A refusal without hosts' names, and with the tenants above as one that has no name.

    What others asked for was decided with what they see: of their refusals only the bare fact is told.
    """
    if sight is None:
        return dict(body)
    if not is_own and not command.startswith(OWN_COMMANDS):
        kept = {k: v for k, v in body.items() if k in ("type", "title", "status", "code", "index", "errors", "state")}
        return {**kept, "detail": f"{body['title']}."}
    shown = dict(body)
    match body["code"]:
        case "quota_exceeded":
            shown["shortfalls"] = _shortfalls(body["shortfalls"], sight)
            shown["detail"] = QuotaExceeded(body["tenant"], body["group"], shown["shortfalls"]).detail
        case "no_capacity":
            del shown["nearest"]
            shown["alternatives"] = [a for a in body["alternatives"] if a["group"] in sight.groups]
        case _:
            pass
    if isinstance(body.get("groups"), list) and all(isinstance(group, dict) for group in body["groups"]):
        shown["groups"] = [problem(group, sight, command=command, is_own=is_own) for group in body["groups"]]
    return shown


def explanation(found: Mapping[str, Any], sight: Sight | None) -> Document:
    """Why a VM runs where it runs, without the hosts that it did not get."""
    if sight is None:
        return dict(found)
    shown = {k: v for k, v in found.items() if k not in ("runner_up", "hosts")}
    if isinstance(shown.get("groups"), list):
        shown["groups"] = [group for group in shown["groups"] if group.get("group") in sight.groups]
    return shown


def _tenant(document: Mapping[str, Any], sight: Sight) -> Document:
    """The scope's root has nothing above it; `path` begins with it."""
    shown = dict(document)
    for field in ("parent", "owner"):
        if shown.get(field) is not None and shown[field] not in sight.tenants:
            shown[field] = None
    for field in ("path", "children"):  # of the past, they may name what is not below it today
        if field in shown:
            shown[field] = [name for name in shown[field] if name in sight.tenants]
    return shown


def _shortfalls(found: Iterable[Mapping[str, Any]], sight: Sight) -> list[Document]:
    own = [dict(entry) for entry in found if entry["tenant"] in sight.tenants]
    above = [entry for entry in found if entry["tenant"] not in sight.tenants]
    if not above:
        return own
    first = above[0]["resource"]
    worst = max((entry for entry in above if entry["resource"] == first), key=lambda entry: int(entry["short"]))
    return [*own, {**worst, "tenant": None, "limit": None, "used": None}]
