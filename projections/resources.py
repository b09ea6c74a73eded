"""A resource as it is shown: its own document, and what others add to it, from a fleet or from its row.

    entry ── own() ──► document ──┬── tables.py ──► the row, with the facts beside it ── from_row() ──┐
                                  └── the fleet knows the facts ────────────────────── resource() ──┴──► JSON

Both ways give the same: a view has one function of form for them, and tests compare them for every kind.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from domain.entry import Entry
from domain.fleet import Fleet
from domain.values import from_rfc3339
from projections.field_types import Schema, compared_as
from projections.fields import Scope, by_name
from projections.members import with_members
from projections.view import Bearer, Document, View
from projections.views import VIEWS

Facts = Sequence[bytes | None]
OfEntry = Callable[[str, Entry], Document]
OfFleet = Callable[[Fleet, Any, Document], Document]
OfRow = Callable[[bytes, Facts, str | None], bytes]


def own(stream: str, entry: Entry) -> Document:
    """What the resource itself knows, as it is shown. A fresh dict, the caller's to complete; values may be shared."""
    kind, _, key = stream.partition("/")
    return _SHOWN[kind].own(key, entry)


def resource(fleet: Fleet, stream: str, entry: Entry | None = None) -> Document | None:
    """The resource's JSON as it is now, equal to what `queries.py` gives at the fleet's position.

    `entry` is the last state of something that has just left. None: it is not there. A revoked token never leaves the
    fleet, as its name stands in the audit for ever: it answers its own revocation here, and queries omit it.
    """
    kind, _, key = stream.partition("/")
    standing = fleet.living[kind].get(stream) or entry
    if standing is None:
        return None
    shown = _SHOWN[kind]
    return shown.of_fleet(fleet, standing.state, shown.own(key, standing))


def from_row(kind: str) -> OfRow:
    """What makes the JSON that goes to the client, of a row's document and of the facts beside it, in the order of
    `facts`. The third argument is the scope of whoever asks: within one, no tenant above it is named."""
    return _SHOWN[kind].of_row


def in_scope(kind: str, document: Document, scope: Scope, *, at: int | None = None) -> Document | None:
    """As it is shown to whoever is confined to a tenant; None: not at all. `at` is when it was so (microseconds since
    1970), None: now."""
    view = VIEWS[kind]
    bearer = Bearer(document["name"], document["owner"], from_rfc3339(document["created_at"]), at)
    return redacted(view, document, scope, at=at) if view.is_in_scope(scope, bearer) else None


def redacted(view: View[Any], document: Document, scope: Scope, *, at: int | None = None) -> Document:
    """What is in scope, without what is not shown within one."""
    hidden = _HIDDEN[view.kind.name]
    shown = {name: value for name, value in document.items() if name not in hidden} if hidden else document
    return view.redacted(scope, shown, at) if view.redacted is not None else shown


def facts(view: View[Any]) -> dict[str, str]:
    """What is read beside a row: SQL by name."""
    if view.others is not None:
        found: dict[str, str] = view.others.facts._asdict()
        return found
    return {field.name: field.sql for field in view.fields if field.shown is None}


class _Shown(NamedTuple):
    own: OfEntry
    of_fleet: OfFleet
    of_row: OfRow


def _shown(view: View[Any]) -> _Shown:
    own = view.document or by_name((field.name, field.shown) for field in view.fields if field.shown is not None)
    others = view.others
    if others is None:
        return _Shown(own, _with_fields_of_others(view), _with_facts(view))
    # 3 × faster than the class's own `_make`.
    named, of_row = partial(tuple.__new__, type(others.facts)), others.from_row
    return _Shown(own, others.from_fleet, lambda document, facts, scope: of_row(document, named(facts), scope))


def _with_fields_of_others(view: View[Any]) -> OfFleet:
    joined = tuple((field.name, field.joined) for field in view.fields if field.joined is not None)

    def complete(fleet: Fleet, state: Any, document: Document) -> Document:
        for name, of in joined:
            document[name] = of(fleet, state)
        return document

    return complete


def _with_facts(view: View[Any]) -> OfRow:
    """Where each fact is a field."""
    read = tuple((field.name, _reader(field.schema)) for field in view.fields if field.shown is None)

    def complete(document: bytes, facts: Facts, scope: str | None) -> bytes:
        return with_members(document, {name: of(fact) for (name, of), fact in zip(read, facts, strict=True)})

    return complete


def _reader(schema: Schema) -> Callable[[bytes | None], Any]:
    """A value, of how PostgreSQL writes it."""
    readers: dict[type, Callable[[bytes], Any]] = {int: int, bool: b"t".__eq__}
    of = readers.get(compared_as(schema).python_type, bytes.decode)
    return lambda text: of(text) if text is not None else None


_SHOWN = {name: _shown(view) for name, view in VIEWS.items()}
_HIDDEN = {name: frozenset(field.name for field in view.fields if field.is_hidden) for name, view in VIEWS.items()}
