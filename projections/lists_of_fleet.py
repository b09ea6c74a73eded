"""Lists over a fleet of the past: by the same views as the statements of `lists.py`, row by row the same.

What has left the fleet and is still listed is not here: it stands in the read model, and never changes again.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kinds import owner_of
from projections.listing import ListQuery, Order, Portion, ScopeThen, capped, filled
from projections.resources import redacted, resource
from projections.view import Bearer, View
from projections.views import VIEWS
from projections.words import folded

Passes = Callable[[str, Entry], Any]
ValueOf = Callable[[str, Entry], Any]

_AMOUNT = re.compile(r"([a-z][a-z0-9_]{0,62})_(available|used|capacity)")
_WORDS = ("name", "display_name", "description", "external_id")

_json = msgspec.json.Encoder().encode


def portion(fleet: Fleet, query: ListQuery) -> Portion:
    """The next rows: some of all that there are, as many as `limit` and PORTION_BYTES_MAX let.

    Cost: a look at each that lives, and what is shown of those in the portion.
    """
    view, scope = VIEWS[query.kind], query.scope
    conditions = tuple(_conditions(fleet, view, query))
    order, value_of = _sort(fleet, view, query.sort, scope)
    found = [
        (value_of(key, entry), key)
        for key, entry in _living(fleet, query.kind)
        if all(passes(key, entry) for passes in conditions)
    ]
    count = capped(len(found)) if query.count else None
    after = query.after
    if after is not None:
        found = [row for row in found if order.is_behind(row, after)]
    ordered = order.sorted(found)[: query.limit]
    rows = filled((value, key, _document(fleet, view, key, scope)) for value, key in ordered)
    return Portion(rows, len(found) > len(rows), count)


def _document(fleet: Fleet, view: View[Any], key: str, scope: ScopeThen | None) -> bytes:
    document = resource(fleet, view.kind.stream(key))
    assert document is not None
    return _json(redacted(view, document, scope, at=fleet.at) if scope is not None else document)


def _living(fleet: Fleet, kind: str) -> Iterator[tuple[str, Entry]]:
    begin = len(kind) + 1
    return ((stream[begin:], entry) for stream, entry in fleet.living[kind].items())


def _conditions(fleet: Fleet, view: View[Any], query: ListQuery) -> Iterator[Passes]:
    """What all shown entries fulfil."""
    scope = query.scope
    if view.kind.ended:
        yield lambda key, entry: entry.state.state not in view.kind.ended
    if scope is not None:
        yield _in_scope(fleet, view, scope)
    filters: Mapping[str, Any] = {one.name: one for one in view.all_filters()}
    for name, value in query.filters.items():
        if name == "state":
            yield _in_state(frozenset([value] if isinstance(value, str) else value))
        else:
            yield filters[name].over(fleet, value, scope)
    if query.q:
        words, said = folded(query.q), [view.field(name).of_entry for name in _WORDS]
        yield lambda key, entry: words in folded("\n".join([text for of in said if (text := of(key, entry))]))
    labels = view.field("labels").of_entry
    for label in query.labels:
        name, _, wanted = label.partition("=")
        yield _has_label(labels, name, wanted)


def _in_state(states: frozenset[str]) -> Passes:
    return lambda key, entry: entry.state.state in states


def _has_label(labels: Callable[[str, Entry], Any], name: str, wanted: str) -> Passes:
    return lambda key, entry: labels(key, entry).get(name) == wanted


def _in_scope(fleet: Fleet, view: View[Any], scope: ScopeThen) -> Passes:
    def passes(key: str, entry: Entry) -> bool:
        return view.is_in_scope(scope, Bearer(key, owner_of(entry.state), entry.created_at, fleet.at))

    return passes


def _sort(fleet: Fleet, view: View[Any], sort: str, scope: ScopeThen | None) -> tuple[Order, ValueOf]:
    is_falling, name = sort.startswith("-"), sort.removeprefix("-")
    amount = _AMOUNT.fullmatch(name)
    if amount is not None and view.amount_sorts is not None and name not in view.sorts():
        of, what = amount.groups()
        over = view.amount_sorts.over
        return Order(is_falling, False), lambda key, entry: over(fleet, entry.state, what, of)
    field = view.field(name)
    if field.joined is None and not field.is_above:
        return Order(is_falling, field.is_total), field.of_entry
    return Order(is_falling, field.is_total), lambda key, entry: field.compared(fleet, key, entry, scope)
