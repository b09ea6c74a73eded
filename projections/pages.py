"""Pages of rows by key set, and what every statement of a read has in common: the position at which it is so.

A statement is made once for each form of a question, that is for all of it but its values: which filters, not for what.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    TextualSelect,
    and_,
    bindparam,
    collate,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from projections import cursors
from projections.cursors import Cursor
from projections.listing import COUNT_MAX
from projections.sessions import Statement
from projections.subtree import scope_clause
from projections.tables import progress

Condition = ColumnElement[bool]
Expression = ColumnElement[Any]

FORMS_MAX = 1_000

# `progress` has one row. Without LIMIT 1 the planner expects hundreds and materialises the page.
STANDING = select(progress.c.position).where(progress.c.is_complete).limit(literal_column("1"))


class Sort(NamedTuple):
    """`expression` may be null, which comes last either way, unless it `is_total`."""

    expression: Expression
    is_falling: bool
    is_total: bool = False


class Listed(NamedTuple):
    """The statement of a form of question. Its rows are position, count, sort value, key, document and facts."""

    statement: Statement
    sort: Sort
    key: TypeEngine[Any]


class Question(NamedTuple):
    """With a list's values: it gives one row more than `limit` if there are more."""

    statement: Statement
    values: dict[str, Any]
    sort: TypeEngine[Any]
    key: TypeEngine[Any]


def asked(listed: Listed, values: dict[str, Any], *, after: Cursor | None, limit: int) -> Question:
    """
    Raises:
        ValueError: a cursor whose values can't be those of a row.
    """
    sort = listed.sort.expression.type
    if after is not None:
        is_null = after.value is None and not listed.sort.is_total
        if not (is_null or cursors.fits(after.value, sort)) or not cursors.fits(after.key, listed.key):
            raise ValueError(cursors.NO_CURSOR)
        values |= {"after_value": after.value, "after_key": after.key}
    return Question(listed.statement, {**values, "limit": limit + 1}, sort, listed.key)


def form_of(after: Cursor | None) -> str:
    """What of a cursor the statement depends on."""
    return "none" if after is None else "null" if after.value is None else "value"


def page(rows: Select[Any], *, sort: Sort, key: Expression, after: str) -> Select[Any]:
    """The next rows by (sort, key); `after` is the cursor's form.

    A row that is added or removed meanwhile moves no other: each is shown once, if it stands all the while.
    """
    value, is_falling = sort.expression, sort.is_falling
    if after != "none":
        rows = rows.where(_behind(sort, key, is_null=after == "null"))
    directed = value.desc() if is_falling else value.asc()
    if not sort.is_total:
        directed = directed.nulls_last()
    falls_whole = sort.is_total and is_falling
    order = [directed] if value is key else [directed, key.desc() if falls_whole else key.asc()]
    return rows.order_by(*order).limit(bindparam("limit"))


def counted(source: Any, where: Iterable[Condition]) -> Select[Any]:
    """How many rows there are, counted up to one more than COUNT_MAX."""
    found: Select[Any] = select(literal_column("1")).select_from(source).where(*where)
    found = found.limit(literal_column(str(COUNT_MAX + 1)))
    return select(func.count()).select_from(found.subquery("counted"))


def at_a_position(
    rows: Select[Any] | TextualSelect, *, count: Select[Any] | None = None, is_scoped: bool = False
) -> Select[Any]:
    """Each row behind the position at which it is so, and the count. One row of nulls, if there is none; no row at all,
    while the read model is being built.

    The rows keep their order, as a join without a condition can but go through them for the one row of `progress`.
    Within a scope, their conditions may speak of `scope`.
    """
    found, here = rows.subquery("page"), STANDING.subquery("standing")
    counted = count.scalar_subquery() if count is not None else null()
    answer = select(here.c.position, counted.label("count"), *found.c).select_from(here.outerjoin(found, true()))
    return answer.add_cte(scope_clause()) if is_scoped else answer


def by_bytes(expression: Expression) -> Expression:
    """A text that compares as Python compares it."""
    if isinstance(expression.type, String) and expression.type.collation is None:
        return collate(expression, "C")
    return expression


def _behind(sort: Sort, key: Expression, *, is_null: bool) -> Condition:
    value = sort.expression
    last, last_key = bindparam("after_value", type_=value.type), bindparam("after_key", type_=key.type)
    if value is key:
        behind: Condition = key < last_key if sort.is_falling else key > last_key
        return behind
    if sort.is_total:  # one comparison of rows, which an index can begin at
        here, there = tuple_(value, key), tuple_(last, last_key)
        behind = here < there if sort.is_falling else here > there
        return behind
    if is_null:
        return and_(value.is_(None), key > last_key)
    further = value < last if sort.is_falling else value > last
    return or_(further, and_(value == last, key > last_key), value.is_(None))
