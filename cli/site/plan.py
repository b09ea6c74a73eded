"""What has to be sent so that the platform is what the documents say: nothing for a document that is so already."""

from collections.abc import Callable
from typing import Any, NamedTuple

from cli import kinds
from cli.connection import Query
from cli.errors import Failed, Refused
from cli.kinds import Kind
from cli.session import Session
from cli.site.document import DESCRIBED, Document

# From so many documents of a kind on, one list is read instead of each of them.
LIST_FROM = 20
# These are compared and sent as a whole: what the document leaves out of them goes away.
WHOLE = ("labels", "capacity", "overcommit")
# Not shown by the API, or what the scheduler made of it: they matter for the creation alone.
ONLY_AT_CREATION = {"vm": ("where", "strategy")}
FIXED = {"vm": ("group", "image", "rules")}


class Request(NamedTuple):
    method: str
    path: str
    body: Any
    if_match: str | None = None


class Difference(NamedTuple):
    field: str
    old: Any
    new: Any


class Step(NamedTuple):
    """What one document leads to: `created`, `updated` or `unchanged`, the differences, and the requests."""

    document: Document
    outcome: str
    differences: list[Difference]
    requests: list[Request]


Current = Callable[[Document], dict[str, Any] | None]


def steps(documents: list[Document], current: Current) -> list[Step]:
    """A step per document, in their order."""
    return [step(document, current(document)) for document in documents]


def step(document: Document, now: dict[str, Any] | None) -> Step:
    """The step from `now` (None: it is not there) to what the document says.

    Raises:
        Failed: it says something that cannot be changed.
    """
    kind, body = document.kind, document.body
    if now is None:
        added = [Difference(field, None, value) for field, value in body.items()]
        return Step(document, "created", added, [_creation(document)])
    quiet = ("name", "tenant", *ONLY_AT_CREATION.get(kind.name, ()))
    differences = [
        Difference(field, now.get(field), value)
        for field, value in body.items()
        if field not in quiet and not same(field, now.get(field), value)
    ]
    if not differences:
        return Step(document, "unchanged", [], [])
    for difference in differences:
        if difference.field in FIXED.get(kind.name, ()):
            raise Failed(
                f"{document.place}, field {difference.field}: it is {difference.old!r}, and a file cannot change that; "
                f"write so, or delete {kind.name} {document.name} first"
            )
    return Step(document, "updated", differences, _changes(document, now, differences))


def same(field: str, now: Any, wanted: Any) -> bool:
    """Whether the platform already has what is wanted; of nothing there are several spellings."""
    if field == "bmc" and isinstance(now, dict) and isinstance(wanted, dict):
        # The platform may keep parts to itself; what it does not show cannot be compared.
        wanted = {part: value for part, value in wanted.items() if part in now}
        now = {part: now[part] for part in wanted}
    if field in ("capacity", "resources"):
        now, wanted = _above_zero(now), _above_zero(wanted)
    now, wanted = _without_nulls(now), _without_nulls(wanted)
    if now in (None, "", {}, []) and wanted in (None, "", {}, []):
        return True
    return bool(now == wanted)


def current_of(session: Session, documents: list[Document]) -> Current:
    """A reader of what is there now, for these documents: kinds with many of them are read as one list."""
    counts = {kind: sum(document.kind is kind for document in documents) for kind in kinds.KINDS}
    listed = {kind.name: _list(session, kind) for kind, count in counts.items() if count >= LIST_FROM}

    def current(document: Document) -> dict[str, Any] | None:
        if document.kind.name in listed:
            return listed[document.kind.name].get(document.name)
        return read(session, document)

    return current


def read(session: Session, document: Document, *, min_position: int | None = None) -> dict[str, Any] | None:
    """The resource as it is now, or None."""
    try:
        resource: dict[str, Any] = session.read(document.kind, document.name, min_position=min_position).json()
    except Refused as refused:
        if refused.code == "not_found":
            return None
        raise
    return resource


def _list(session: Session, kind: Kind) -> dict[str, dict[str, Any]]:
    query: Query = []
    return {kinds.full_name(kind, item): item for item in session.items(kinds.list_path(kind), query)}


def _creation(document: Document) -> Request:
    body = {field: value for field, value in document.body.items() if value is not None}
    if document.kind is kinds.QUOTA:
        return Request("PUT", kinds.path(kinds.QUOTA, document.name), _without_names(body))
    return Request("POST", kinds.list_path(document.kind), body)


def _changes(document: Document, now: dict[str, Any], differences: list[Difference]) -> list[Request]:
    """The requests of an update. What has a command of its own leaves the patch: moves, resizes."""
    path = kinds.path(document.kind, document.name)
    if document.kind is kinds.QUOTA:
        # A PUT replaces all of it, so what the document leaves alone has to be said again.
        kept = {field: now[field] for field in DESCRIBED if now.get(field) and field not in document.body}
        wanted = {field: value for field, value in document.body.items() if value is not None}
        return [Request("PUT", path, _without_names({**kept, **wanted}))]
    own = {"tenant": ("parent", "move"), "host": ("group", "move"), "vm": ("resources", "resize")}
    field, action = own.get(document.kind.name, ("", ""))
    patch: dict[str, Any] = {}
    requests: list[Request] = []
    for difference in differences:
        if difference.field == field:
            requests.append(Request("POST", f"{path}/{action}", {field: difference.new}))
        else:
            patch[difference.field] = _merge(difference)
    return [*([Request("PATCH", path, patch)] if patch else []), *requests]


def _merge(difference: Difference) -> Any:
    """The new value as a JSON Merge Patch: what is gone from a mapping has to be said as null."""
    if difference.field not in WHOLE or not isinstance(difference.new, dict):
        return difference.new
    gone = [name for name in difference.old or {} if name not in difference.new]
    # Amounts have no null; none of a class is 0.
    return {**difference.new, **dict.fromkeys(gone, 0 if difference.field == "capacity" else None)}


def _without_names(body: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in body.items() if field not in ("group", "tenant")}


def _above_zero(amounts: Any) -> Any:
    return {name: value for name, value in amounts.items() if value} if isinstance(amounts, dict) else amounts


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(entry) for name, entry in value.items() if entry is not None}
    return [_without_nulls(entry) for entry in value] if isinstance(value, list) else value
