"""What has to be sent so that the platform is what the documents say: nothing for a document that is so already."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from cli import kinds, schema
from cli.connection import Query
from cli.errors import Failed, Refused
from cli.kinds import Command, Kind
from cli.schema import Shape
from cli.session import Session
from cli.site.document import Document

# From so many documents of a kind on, one list is read instead of each of them.
LIST_FROM = 20


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
    in_name = {kind.field_of(part) for part in kind.named_by}
    differences = [
        Difference(field, now.get(field), value)
        for field, value in body.items()
        if field not in in_name and not same(kind, field, now.get(field), value)
    ]
    if not differences:
        return Step(document, "unchanged", [], [], now)
    for difference in differences:
        if is_fixed(kind, difference.field):
            raise Failed(
                f"{document.place}, field {difference.field}: it is {_said(difference.old)}, as its creation decided "
                f"for good. Write so, or delete {kind.name} {document.name} and apply again"
            )
    return Step(document, "updated", differences, _changes(document, now, differences), now)


def is_fixed(kind: Kind, field: str) -> bool:
    """Whether the creation decides it for good: no later command takes it."""
    return _changer(kind, field) is None


def same(kind: Kind, field: str, now: Any, wanted: Any) -> bool:
    """Whether the platform already has what is wanted; of nothing there are several spellings.

    What the platform does not show is not the same: it is sent, and the platform says whether that changes anything.
    """
    shape = _shape_at_creation(kind, field)
    changer = _changer(kind, field)
    if shape.word == schema.OBJECT and changer is not None and isinstance(now, dict) and isinstance(wanted, dict):
        now = {part: now.get(part) for part in wanted}  # a patch leaves alone what the document does not speak of
    if shape.word == schema.AMOUNTS and (changer is None or changer.method != "PUT"):  # 0 of a limit forbids
        now, wanted = _above_zero(now), _above_zero(wanted)
    return bool(_without_empty(now) == _without_empty(wanted))


def current_of(session: Session, documents: list[Document]) -> Current:
    """A reader of what is there now, for these documents: kinds with many of them are read as one list."""
    counts = Counter(document.kind.name for document in documents)
    of_name = {document.kind.name: document.kind for document in documents}
    listed = {name: _list(session, of_name[name]) for name, count in counts.items() if count >= LIST_FROM}

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
    """With what the document speaks of and the resource itself does not show, if the explanation of its place knows it:
    the strategy by which it was placed."""
    kind = document.kind
    hidden = [field for field, value in document.body.items() if value is not None and field not in kind.fields]
    if resource is None or not kind.is_placed or not hidden:
        return resource
    path = f"/v1/explain/{kind.plural}/{kind.path_name(document.name)}"
    explained = session.get(path).json(explanation=dict)["explanation"]
    return {**resource, **{field: explained.get(field) for field in hidden}}


def _list(session: Session, kind: Kind) -> dict[str, dict[str, Any]]:
    query: Query = []
    return {kind.full_name(item): item for item in session.items(kind.list_path, query)}


def _creation(document: Document) -> Request:
    command = document.kind.creation
    assert command is not None  # else it would be no document
    body = {field: value for field, value in document.body.items() if value is not None}
    return _request(document, command, body)


def _changes(document: Document, now: dict[str, Any], differences: list[Difference]) -> list[Request]:
    """The requests of an update: a patch, and what has a command of its own. A PUT says again all that stands there,
    for the version that was read."""
    kind = document.kind
    whole = kind.command("set", "PUT")
    if whole is not None:
        wanted = {field: value for field, value in document.body.items() if value is not None}
        said = {**kinds.kept(whole, now, document.body), **wanted}
        return [_request(document, whole, said, if_match=f'"{now["version"]}"')]
    bodies: dict[str, tuple[Command, dict[str, Any]]] = {}
    for difference in differences:
        command = _changer(kind, difference.field)
        assert command is not None  # else it is fixed
        _, body = bodies.setdefault(command.name, (command, {}))
        body[difference.field] = _merge(command, difference)
    # What is patched goes first: a host's rack has to be right before it moves.
    ordered = sorted(bodies.values(), key=lambda entry: entry[0].method != "PATCH")
    return [_request(document, command, body) for command, body in ordered]


def _request(document: Document, command: Command, body: dict[str, Any], *, if_match: str | None = None) -> Request:
    """What is in the path of a command does not stand in its body too."""
    names = {part: value for part, value in document.kind.named(document.name).items() if part in command.in_path}
    said = {field: value for field, value in body.items() if field not in names}
    path = kinds.filled(command.path, names)
    return Request(command=command.name, method=command.method, path=path, body=said, names=names, if_match=if_match)


def _changer(kind: Kind, field: str) -> Command | None:
    """The command that changes a field later: the kind's `set`, or one of its own that needs nothing else."""
    general = kind.command("set")
    if general is not None and field in schema.properties(general.body):
        return general
    return kind.changing(field)


def _shape_at_creation(kind: Kind, field: str) -> Shape:
    creation = kind.creation
    assert creation is not None
    return schema.shape(schema.properties(creation.body).get(field, {}), creation.body)


def _merge(command: Command, difference: Difference) -> Any:
    """The new value as a JSON Merge Patch. A map is made so as a whole: what is gone from it has to be said as null, or
    as 0 where the command knows no null."""
    shape = schema.shape(schema.properties(command.body)[difference.field], command.body)
    if shape.word not in schema.MAPS or not isinstance(difference.new, dict):
        return difference.new
    gone = [name for name in difference.old or {} if name not in difference.new]
    nothing = None if shape.inner is not None and shape.inner.is_nullable else 0
    return {**difference.new, **dict.fromkeys(gone, nothing)}


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
