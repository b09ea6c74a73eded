"""What has to be sent so that the platform is what the documents say: nothing for a document that is so already."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from cli import kinds
from cli.connection import Query
from cli.errors import Failed, Refused
from cli.kinds import Kind
from cli.session import Session
from cli.site.document import Document

# From so many documents of a kind on, one list is read instead of each of them.
LIST_FROM = 20
# These are compared and sent as a whole: what the document leaves out of them goes away.
WHOLE = ("labels", "capacity", "resources", "overcommit")
AMOUNTS = ("capacity", "resources")  # of which there is no null; none of a class is 0
# Decided by the creation for good.
FIXED = {"vm": ("group", "image", "strategy", "where", "rules")}
CREATION = {"host": "host.register", "vm": "vm.provision", "quota": "quota.set"}
# What has a command of its own, and leaves the patch for it.
OWN_COMMAND = {"tenant": ("parent", "move"), "host": ("group", "move"), "vm": ("resources", "resize")}


class Request(NamedTuple):
    """A command, as it is sent alone, and (`item`) as one of several that are decided in dry run: without the version,
    which those before it may change."""

    command: str
    method: str
    path: str
    body: dict[str, Any]
    names: dict[str, str]  # what stands in the path
    if_match: str | None = None

    def item(self) -> dict[str, Any]:
        return {"command": self.command, **self.names, **self.body}


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
    now: dict[str, Any] = {}  # what is there before the step

    @property
    def state(self) -> str | None:
        return self.now.get("state")

    @property
    def operation(self) -> str | None:
        """The one that is under way on it."""
        operation = self.now.get("operation")
        return operation if isinstance(operation, str) else None


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
    if now.get("state") == "deleting":
        raise Failed(
            f"{document.place}: {kind.name} {document.name} is being deleted. Apply again when it is gone: "
            f"`berth wait {kind.name} {document.name} --for deleted`"
        )
    differences = [
        Difference(field, now.get(field), value)
        for field, value in body.items()
        if field not in ("name", "tenant") and not same(field, now.get(field), value)
    ]
    if not differences:
        return Step(document, "unchanged", [], [], now)
    for difference in differences:
        if difference.field in FIXED.get(kind.name, ()):
            raise Failed(
                f"{document.place}, field {difference.field}: it is {_said(difference.old)}, as its creation decided "
                f"for good. Write so, or delete {kind.name} {document.name} and apply again"
            )
    return Step(document, "updated", differences, _changes(document, now, differences), now)


def same(field: str, now: Any, wanted: Any) -> bool:
    """Whether the platform already has what is wanted; of nothing there are several spellings.

    What the platform does not show is not the same: it is sent, and the platform says whether that changes anything.
    """
    if field == "bmc" and isinstance(now, dict) and isinstance(wanted, dict):
        now = {part: now.get(part) for part in wanted}  # the parts that the document does not speak of are left alone
    if field in AMOUNTS:
        now, wanted = _above_zero(now), _above_zero(wanted)
    return bool(_without_empty(now) == _without_empty(wanted))


def current_of(session: Session, documents: list[Document]) -> Current:
    """A reader of what is there now, for these documents: kinds with many of them are read as one list."""
    counts = {kind: sum(document.kind is kind for document in documents) for kind in kinds.KINDS}
    listed = {kind.name: _list(session, kind) for kind, count in counts.items() if count >= LIST_FROM}

    def current(document: Document) -> dict[str, Any] | None:
        if document.kind.name not in listed:
            return read(session, document)
        return _completed(session, document, listed[document.kind.name].get(document.name))

    return current


def read(session: Session, document: Document, *, min_position: int | None = None) -> dict[str, Any] | None:
    """The resource as it is now, or None."""
    try:
        resource = session.read(document.kind, document.name, min_position=min_position).json(version=int)
    except Refused as refused:
        if refused.code == "not_found":
            return None
        raise
    return _completed(session, document, resource)


def _completed(session: Session, document: Document, resource: dict[str, Any] | None) -> dict[str, Any] | None:
    """With the strategy by which a VM was placed, if the document speaks of it; its explanation alone knows that."""
    if resource is None or document.kind is not kinds.VM or document.body.get("strategy") is None:
        return resource
    explained = session.get(kinds.explanation_path(document.name)).json(explanation=dict)["explanation"]
    return {**resource, "strategy": explained.get("strategy")}


def _list(session: Session, kind: Kind) -> dict[str, dict[str, Any]]:
    query: Query = []
    return {kinds.full_name(kind, item): item for item in session.items(kinds.list_path(kind), query)}


def _creation(document: Document) -> Request:
    kind = document.kind
    body = {field: value for field, value in document.body.items() if value is not None}
    command = CREATION.get(kind.name, f"{kind.name}.create")
    if kind is kinds.QUOTA:
        return _quota(document, body)
    return Request(command, "POST", kinds.list_path(kind), body, {})


def _changes(document: Document, now: dict[str, Any], differences: list[Difference]) -> list[Request]:
    """The requests of an update: a patch, and what has a command of its own."""
    kind, path = document.kind, kinds.path(document.kind, document.name)
    if kind is kinds.QUOTA:
        wanted = {field: value for field, value in document.body.items() if value is not None}
        return [_quota(document, {**kinds.kept(now, document.body), **wanted}, if_match=f'"{now["version"]}"')]
    names = dict(zip(kind.named_by, kinds.parts(kind, document.name), strict=True))
    own_field, action = OWN_COMMAND.get(kind.name, ("", ""))
    patch: dict[str, Any] = {}
    own: list[Request] = []
    for difference in differences:
        if difference.field == own_field:
            body = {own_field: _merge(difference)}
            own.append(Request(f"{kind.name}.{action}", "POST", f"{path}/{action}", body, names))
        else:
            patch[difference.field] = _merge(difference)
    return [*([Request(f"{kind.name}.update", "PATCH", path, patch, names)] if patch else []), *own]


def _quota(document: Document, body: dict[str, Any], *, if_match: str | None = None) -> Request:
    """A PUT replaces all of a quota, so it is sent for the version that was read."""
    group, tenant = kinds.parts(kinds.QUOTA, document.name)
    said = {field: value for field, value in body.items() if field not in ("group", "tenant")}
    names = {"group": group, "tenant": tenant}
    return Request("quota.set", "PUT", kinds.path(kinds.QUOTA, document.name), said, names, if_match)


def _merge(difference: Difference) -> Any:
    """The new value as a JSON Merge Patch: what is gone from a mapping has to be said as null."""
    if difference.field not in WHOLE or not isinstance(difference.new, dict):
        return difference.new
    gone = [name for name in difference.old or {} if name not in difference.new]
    return {**difference.new, **dict.fromkeys(gone, 0 if difference.field in AMOUNTS else None)}


def _said(value: Any) -> str:
    return "not set" if value in (None, "", {}, []) else json.dumps(value, ensure_ascii=False)


def _above_zero(amounts: Any) -> Any:
    return {name: value for name, value in amounts.items() if value} if isinstance(amounts, dict) else amounts


def _without_empty(value: Any) -> Any:
    """None for all that says nothing, at any depth: null, "", {} and []."""
    if isinstance(value, dict):
        found = {name: _without_empty(entry) for name, entry in value.items()}
        return {name: entry for name, entry in found.items() if entry is not None} or None
    if isinstance(value, list):
        return [_without_empty(entry) for entry in value] or None
    return None if value == "" else value
