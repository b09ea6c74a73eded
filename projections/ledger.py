"""The statements of the audit: pages of entries, and a command's."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import Text, and_, bindparam, func, null, or_, select

from domain.values import from_rfc3339
from projections import sessions
from projections.cursors import Cursor
from projections.listings import operation_of, tenants_in_scope
from projections.pages import FORMS_MAX, Condition, Listed, Question, Sort, asked, at_a_position, counted, form_of, page
from projections.sessions import Statement
from projections.tables import audit, operations
from projections.words import folded

FILTERS = ("actor", "resource", "command", "outcome", "since", "until")


def entries(
    *,
    filters: Mapping[str, Any],
    is_falling: bool,
    after: Cursor | None,
    limit: int,
    q: str | None,
    scope: str | None,
    count: bool,
) -> Question:
    """By position. `since` and `until` are inclusive, each a time or a position.

    Raises:
        ValueError: a filter that the audit does not have, or a value that it can't have.
    """
    values: dict[str, Any] = {"scope": scope, "q": folded(q) if q else None}
    conditions = []
    for name, value in filters.items():
        if name not in FILTERS:
            raise ValueError(f"the audit has no filter {name}")
        column = name
        if name in ("since", "until"):
            column = "position" if str(value).isdecimal() else "at"
            value = int(value) if column == "position" else from_rfc3339(value)
        conditions.append((name, column))
        values[name] = value
    listed = _entries(
        tuple(conditions),
        is_falling=is_falling,
        after=form_of(after),
        has_words=bool(q),
        is_scoped=scope is not None,
        is_counted=count,
    )
    return asked(listed, values, after=after, limit=limit)


@lru_cache(FORMS_MAX)
def _entries(
    conditions: tuple[tuple[str, str], ...],
    *,
    is_falling: bool,
    after: str,
    has_words: bool,
    is_scoped: bool,
    is_counted: bool,
) -> Listed:
    where = [_in_scope()] if is_scoped else []
    if has_words:
        # Not in requests and problems: of these a scope leaves things out. All but the reason are lower-case ASCII.
        words = (audit.c.actor, audit.c.command, audit.c.resource, audit.c.reason)
        where.append(func.strpos(func.concat_ws("\n", *words), bindparam("q", type_=Text)) > 0)
    for name, column in conditions:
        value: Any = bindparam(name)
        match name:
            case "since":
                where.append(audit.c[column] >= value)
            case "until":
                where.append(audit.c[column] <= value)
            case _:
                where.append(audit.c[column] == value)
    position = audit.c.position
    sort = Sort(position, is_falling, True)
    rows = select(position.label("sort_value"), position.label("key"), audit.c.document).where(*where)
    count = counted(audit, where) if is_counted else None
    shown = at_a_position(page(rows, sort=sort, key=position, after=after), count=count)
    return Listed(sessions.statement(shown), sort, position.type)


@lru_cache
def entry(*, is_scoped: bool) -> Statement:
    """Of the command `id`."""
    where = [audit.c.id == bindparam("id"), *([_in_scope()] if is_scoped else [])]
    rows = select(null().label("sort_value"), audit.c.position.label("key"), audit.c.document).where(*where).limit(1)
    return sessions.statement(at_a_position(rows))


def _in_scope() -> Condition:
    """Commands on what the subtree's tenants have; an operation is its target's tenant's."""
    seen = tenants_in_scope()
    operation = select(operations.c.key).where(
        operations.c.key == func.substr(audit.c.resource, len("operation/") + 1), operation_of(seen)
    )
    of_operation = and_(audit.c.resource.startswith("operation/"), operation.correlate(audit).exists())
    return or_(audit.c.owner.in_(select(seen.c.uid)), of_operation)
