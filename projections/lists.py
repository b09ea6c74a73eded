"""The statements of lists and of single resources: from what is asked of which kind, and by whom.

A statement is made once for each form of a question; the values that are asked for are its parameters.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Select, Text, bindparam, cast, func, literal_column, null, select, text
from sqlalchemy.dialects.postgresql import JSONB

from domain.values import from_rfc3339
from projections import sessions
from projections.capacity import BY_HOST
from projections.cursors import Cursor
from projections.field_types import Name
from projections.listing import Order
from projections.listings import Listing, listing_of
from projections.pages import (
    FORMS_MAX,
    Condition,
    Expression,
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
from projections.views import VIEWS
from projections.words import folded

_AMOUNT = re.compile(r"^(-?)([a-z][a-z0-9_]{0,62})_(available|used|capacity)$")


# A host as a row of capacity is listed as hosts are.
LISTINGS: dict[str, Listing] = {**{name: listing_of(view) for name, view in VIEWS.items()}, "capacity": BY_HOST}


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
    is_ended: bool = False


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
    ended_by: int | None = None,
) -> Question:
    """With `ended_by`, those alone that had ended at that position.

    Raises:
        ValueError: an unknown filter or sort, a value that can't be, a cursor whose values can't be those of a row.
    """
    values: dict[str, Any] = {"scope": scope, "q": folded(q) if q else None, "ended_by": ended_by}
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
        is_ended=ended_by is not None,
    )
    return asked(_several(form), values, after=after, limit=limit)


@lru_cache
def one(kind: str, *, is_scoped: bool) -> Statement:
    """The resource that is called `key`."""
    listing = LISTINGS[kind]
    where = [_key(listing.table) == bindparam("key"), *_conditions(listing, _Form(kind, is_scoped=is_scoped))]
    return sessions.statement(at_a_position(_rows(listing, where, null()), is_scoped=is_scoped))


def has_ended(kind: str) -> bool:
    """Whether some of what has ended is still listed."""
    return bool(LISTINGS[kind].ended)


def order_of(kind: str, sort: str) -> Order:
    """
    Raises:
        ValueError: there is no such field to sort by.
    """
    general, _ = _of_any_class(kind, sort)
    found = _sort(kind, general, is_scoped=False)
    return Order(found.is_falling, found.is_total)


def must_sort(kind: str, sort: str, *, is_scoped: bool = False) -> None:
    """
    Raises:
        ValueError: there is no such field to sort by, or none that a scope shows.
    """
    general, _ = _of_any_class(kind, sort)
    _sort(kind, general, is_scoped=is_scoped)


def _of_any_class(kind: str, sort: str) -> tuple[str, str | None]:
    """`*_available` and `cpu`, of `cpu_available`: the form of a question does not depend on the class."""
    listing = LISTINGS[kind]
    if sort.removeprefix("-") in listing.sorts or not listing.amount_sorts:
        return sort, None
    found = _AMOUNT.match(sort)
    return (f"{found[1]}*_{found[3]}", found[2]) if found else (sort, None)


@lru_cache(FORMS_MAX)
def _several(form: _Form) -> Listed:
    listing = LISTINGS[form.kind]
    where = _conditions(listing, form)
    sort = _sort(form.kind, form.sort, is_scoped=form.is_scoped)
    rows = page(_rows(listing, where, sort.expression), sort=sort, key=_key(listing.table), after=form.after)
    count = counted(text(listing.source), where) if form.is_counted else None
    return Listed(sessions.statement(at_a_position(rows, count=count, is_scoped=form.is_scoped)), sort, Name)


@lru_cache
def _key(table: str) -> Expression:
    """One and the same, so that `pages.py` can tell that it is sorted by."""
    return literal_column(f"{table}.key", Name)


def _rows(listing: Listing, where: Sequence[Condition], sort_value: Expression) -> Select[Any]:
    facts: list[Expression] = [literal_column(sql).label(f"fact_{name}") for name, sql in listing.facts.items()]
    document: Expression = literal_column(f"{listing.table}.document").label("document")
    columns = (sort_value.label("sort_value"), _key(listing.table).label("key"), document, *facts)
    return select(*columns).select_from(text(listing.source)).where(*where)


def _conditions(listing: Listing, form: _Form) -> list[Condition]:
    """What all shown rows fulfil."""
    found = [_condition(listing.always)] if listing.always else []
    if form.is_ended:
        found.append(_condition(listing.ended or "false"))
    if form.is_scoped:
        found.append(_condition(listing.in_scope))
    for name in form.filters:
        if name == "state":
            states = [bindparam(f"state__{n}", type_=Text) for n in range(form.states)]
            found.append(literal_column(f"{listing.table}.state").in_(states))
            continue
        if name not in listing.filters:
            raise ValueError(f"a list of {listing.name} has no filter {name}")
        declared = listing.filters[name]
        found.append(_condition((form.is_scoped and declared.sql_in_scope) or declared.sql))
    if form.has_words:
        found.append(func.strpos(literal_column(listing.words), bindparam("q", type_=Text)) > 0)
    labels: Expression = literal_column(f"{listing.table}.labels", JSONB())
    for n in range(form.labels):
        found.append(labels.contains(cast(bindparam(f"label__{n}", type_=Text), JSONB)))
    return found


def _condition(sql: str) -> Any:
    return _text(f"({sql})")


@lru_cache(FORMS_MAX)
def _sort(kind: str, asked_for: str, *, is_scoped: bool) -> Sort:
    """`name`, `-updated_at`, `*_available`: any scalar field, and for what has capacity its amount of any class.

    Cursors carry values of what is sorted by: so within a scope it is what the scope shows.

    Raises:
        ValueError: there is no such field to sort by, or none that the scope shows.
    """
    listing = LISTINGS[kind]
    is_falling, name = asked_for.startswith("-"), asked_for.removeprefix("-")
    sort = listing.sorts.get(name)
    amount = listing.amount_sorts.get(name.removeprefix("*_")) if name.startswith("*_") else None
    if sort is None and amount is None:
        known = ", ".join(listing.sorts) + (" and amounts such as cpu_available" if listing.amount_sorts else "")
        raise ValueError(f"can't sort by {name!r}, only by {known}; a leading - sorts descending")
    if is_scoped and (sort.is_hidden if sort is not None else listing.hides_amounts):
        raise ValueError("your token may not see sums over hosts, and so not sort by them")
    if sort is None:
        return Sort(cast(_text(amount or ""), BigInteger), is_falling)
    if sort.sql == f"{listing.table}.key":
        return Sort(_key(listing.table), is_falling, sort.is_total)
    expression: Expression = literal_column(sort.sql, sort.type)
    if sort.is_above and is_scoped:
        expression = cast(_text(f"CASE WHEN {listing.table}.key <> :scope THEN {sort.sql} END"), sort.type)
    return Sort(by_bytes(expression), is_falling, sort.is_total)


def _text(sql: str) -> Any:
    """For `cast`, which makes an expression of it: parameters can stand in it, as they can't in a literal column."""
    return text(sql)
