"""The statements of lists and of single resources: from what is asked of which kind, and by whom."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Select, Text, bindparam, cast, false, func, null, select
from sqlalchemy.dialects.postgresql import JSONB

from domain.values import from_rfc3339
from projections import sessions
from projections.cursors import Cursor
from projections.listings import LISTINGS, SCOPE, parent, subtree
from projections.pages import (
    FORMS_MAX,
    Condition,
    Listed,
    Question,
    Sort,
    asked,
    at_a_position,
    by_bytes,
    counted,
    form_of,
    page,
)
from projections.sessions import Statement
from projections.words import folded

COMMON_FILTERS = ("state", "owner", "external_id", "updated_since")
_SUM = re.compile(r"^(-?)([a-z][a-z0-9_]{0,62})_(available|used|capacity)$")


class _Form(NamedTuple):
    """A question without its values. SQLAlchemy names constants `state_1` and so on: ours are `state__1`."""

    kind: str
    filters: tuple[str, ...] = ()
    states: int = 0
    has_words: bool = False
    labels: int = 0
    is_scoped: bool = False
    sort: str = "name"
    after: str = "none"
    is_counted: bool = False


def several(
    kind: str,
    *,
    filters: Mapping[str, Any],
    sort: str,
    after: Cursor | None,
    limit: int,
    q: str | None,
    labels: Sequence[str],
    scope: str | None,
    count: bool,
) -> Question:
    """
    Raises:
        ValueError: an unknown filter or sort, a value that can't be, a cursor whose values can't be those of a row.
    """
    values: dict[str, Any] = {"scope": scope, "q": folded(q) if q else None}
    states: Sequence[str] = ()
    for name, value in filters.items():
        match name:
            case "state":
                states = [value] if isinstance(value, str) else value
                values |= {f"state__{n}": state for n, state in enumerate(states)}
            case "updated_since":
                values[name] = value if isinstance(value, int) else from_rfc3339(value)
            case _:
                values[name] = value
    for n, label in enumerate(labels):
        key, equals, value = label.partition("=")
        if not equals:
            raise ValueError(f"label takes key=value, and {label!r} has no =")
        values[f"label__{n}"] = msgspec.json.encode({key: value}).decode()
    general, values["class"] = _of_any_class(kind, sort)
    form = _Form(
        kind,
        filters=tuple(filters),
        states=len(states),
        has_words=bool(q),
        labels=len(labels),
        is_scoped=scope is not None,
        sort=general,
        after=form_of(after),
        is_counted=count,
    )
    return asked(_several(form), values, after=after, limit=limit)


@lru_cache
def one(kind: str, *, is_scoped: bool) -> Statement:
    """The resource that is called `key`."""
    where = [LISTINGS[kind].table.c.key == bindparam("key"), *_conditions(_Form(kind, is_scoped=is_scoped))]
    return sessions.statement(at_a_position(_rows(kind, where, null())))


OF_EVERY_KIND = (
    "name",
    "state",
    "owner",
    "external_id",
    "display_name",
    "description",
    "uid",
    "version",
    "created_at",
    "updated_at",
)


def sortable(kind: str) -> tuple[tuple[str, ...], bool]:
    """The fields by which a list of the kind can be sorted, and whether by amounts (`cpu_available`) too."""
    listing = LISTINGS[kind]
    return (*OF_EVERY_KIND, *listing.sorts), listing.sum_sort is not None


def must_sort(kind: str, sort: str) -> None:
    """
    Raises:
        ValueError: there is no such field to sort by.
    """
    general, _ = _of_any_class(kind, sort)
    _sort(kind, general, is_scoped=False)


def _of_any_class(kind: str, sort: str) -> tuple[str, str | None]:
    """`*_available` and `cpu`, of `cpu_available`: the form of a question does not depend on the class."""
    found = _SUM.match(sort) if LISTINGS[kind].sum_sort is not None else None
    return (f"{found[1]}*_{found[3]}", found[2]) if found else (sort, None)


@lru_cache(FORMS_MAX)
def _several(form: _Form) -> Listed:
    listing = LISTINGS[form.kind]
    key, where = listing.table.c.key, _conditions(form)
    sort = _sort(form.kind, form.sort, is_scoped=form.is_scoped)
    rows = page(_rows(form.kind, where, sort.expression), sort=sort, key=key, after=form.after)
    count = counted(listing.source, where) if form.is_counted else None
    return Listed(sessions.statement(at_a_position(rows, count=count)), sort, key.type)


def _rows(kind: str, where: Sequence[Condition], sort_value: Any) -> Select[Any]:
    listing = LISTINGS[kind]
    facts = [fact.label(f"fact_{n}") for n, fact in enumerate(listing.facts)]
    columns = (sort_value.label("sort_value"), listing.table.c.key, listing.table.c.document, *facts)
    return select(*columns).select_from(listing.source).where(*where)


def _conditions(form: _Form) -> list[Condition]:
    """What all shown rows fulfil."""
    listing = LISTINGS[form.kind]
    table = listing.table
    found: list[Condition] = [] if listing.always is None else [listing.always]
    if form.is_scoped:
        found.append(listing.in_scope)
    for name in form.filters:
        value: Any = bindparam(name)
        match name:
            case "state":
                found.append(table.c.state.in_([bindparam(f"state__{n}", type_=Text) for n in range(form.states)]))
            case "owner" | "parent" if form.kind == "tenant":
                found.append(parent(is_scoped=form.is_scoped) == value)
            case "owner":
                found.append(listing.owner == value if listing.owner is not None else false())
            case "external_id":
                found.append(table.c.external_id == value)
            case "updated_since":
                found.append(table.c.updated_at >= value)
            case _ if name in listing.filters:
                found.append(listing.filters[name](value))
                if name == "subtree" and form.is_scoped:  # or it would tell who is above the scope
                    found.append(value.in_(subtree(SCOPE, name="asker")))
            case _:
                raise ValueError(f"a list of {form.kind}s has no filter {name}")
    if form.has_words:
        found.append(func.strpos(listing.words, bindparam("q", type_=Text)) > 0)
    for n in range(form.labels):
        found.append(table.c.labels.contains(cast(bindparam(f"label__{n}", type_=Text), JSONB)))
    return found


@lru_cache(FORMS_MAX)
def _sort(kind: str, text: str, *, is_scoped: bool) -> Sort:
    """`name`, `-updated_at`, `*_available`: any scalar field, and for what has capacity its amount of any class.

    Cursors carry values of what is sorted by: so within a scope it is what the scope shows.

    Raises:
        ValueError: there is no such field to sort by.
    """
    listing = LISTINGS[kind]
    table = listing.table
    is_falling, field = text.startswith("-"), text.removeprefix("-")
    match field:
        case "name":
            return Sort(table.c.name if "name" in table.c else table.c.key, is_falling, True)
        case "version" | "created_at" | "updated_at" | "state":
            return Sort(table.c[field], is_falling, True)
        case "external_id":
            return Sort(table.c.external_id, is_falling)
        case "owner" | "parent" if kind == "tenant":
            return Sort(parent(is_scoped=is_scoped), is_falling)
        case "owner":
            return Sort(listing.owner if listing.owner is not None else cast(None, Text), is_falling)
        case "uid" | "display_name" | "description" | "protected":
            return Sort(by_bytes(table.c.document[field].as_string()), is_falling)
        case _ if field in listing.sorts:
            return Sort(by_bytes(listing.sorts[field]), is_falling)
        case _ if field.startswith("*_") and listing.sum_sort is not None:
            return Sort(listing.sum_sort(field[2:]), is_falling)
        case _:
            fields, has_sums = sortable(kind)
            known = ", ".join(fields) + (" and amounts such as cpu_available" if has_sums else "")
            raise ValueError(f"there is no {field!r} to sort by; - before a field sorts falling: {known}")
