"""The audit: its row of a command, and the statements that read it, pages of entries and one command's."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Text, bindparam, func, null, select, text

from domain.command import CommandAccepted, CommandEvent, CommandRejected
from domain.fleet import Fleet
from domain.kinds import tenant_of
from domain.recorded import Recorded
from domain.tenant import KIND as TENANT
from domain.values import from_rfc3339
from projections import sessions
from projections.cursors import Cursor
from projections.fields import shown_time
from projections.kinds import operations
from projections.pages import FORMS_MAX, Condition, Listed, Question, Sort, asked, at_a_position, counted, form_of, page
from projections.sessions import Statement
from projections.tables import audit
from projections.words import folded

# Commands on what the subtree's tenants have; an operation is its target's tenant's.
_IN_SCOPE: Any = text(
    f"""(
        audit.owner IN (SELECT uid FROM scope)
        OR audit.resource LIKE 'operation/%' AND EXISTS (
            SELECT FROM operations
            WHERE operations.key = substr(audit.resource, {len("operation/") + 1}) AND {operations.IN_SCOPE}
        )
    )"""
)

_json = msgspec.json.Encoder().encode

FILTERS = ("actor", "resource", "command", "outcome", "since", "until")


def audit_row(recorded: Recorded, fleet: Fleet) -> dict[str, Any]:
    """The ledger's row of a command's own event; `document` is the audit's entry. `fleet` stands at that event."""
    event: CommandEvent = recorded.event
    accepted = event if isinstance(event, CommandAccepted) else None
    rejected = event if isinstance(event, CommandRejected) else None
    outcome = "accepted" if accepted is not None else "rejected"
    owner = tenant_of(event.resource) if event.resource is not None else None
    tenant = fleet.get(TENANT, owner) if owner is not None else None
    entry = {
        "id": event.id,
        "position": recorded.position,
        "at": shown_time(recorded.at),
        "actor": recorded.actor,
        "role": event.role,
        "token": event.token or recorded.actor,
        "source": event.source,
        "command": event.command,
        "resource": event.resource,
        "reason": event.reason,
        "request": event.request,
        "outcome": outcome,
        "problem": rejected.problem if rejected is not None else None,
        "positions": accepted.positions if accepted is not None else [],
        "operation": accepted.operation if accepted is not None else None,
        "created": accepted.created if accepted is not None else False,
        "batch": event.batch,
    }
    if accepted is not None and accepted.warnings:
        entry["warnings"] = accepted.warnings
    return {
        "position": recorded.position,
        "at": recorded.at,
        "id": event.id,
        "actor": recorded.actor,
        "resource": event.resource,
        "command": event.command,
        "outcome": outcome,
        "owner": tenant.uid if tenant is not None else None,
        "reason": folded(event.reason) if event.reason is not None else None,
        "document": _json(entry).decode(),
    }


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
    where: list[Condition] = [_IN_SCOPE] if is_scoped else []
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
    shown = at_a_position(page(rows, sort=sort, key=position, after=after), count=count, is_scoped=is_scoped)
    return Listed(sessions.statement(shown), sort, position.type)


@lru_cache
def entry(*, is_scoped: bool) -> Statement:
    """Of the command `id`."""
    where = [audit.c.id == bindparam("id"), *([_IN_SCOPE] if is_scoped else [])]
    rows = select(null().label("sort_value"), audit.c.position.label("key"), audit.c.document).where(*where).limit(1)
    return sessions.statement(at_a_position(rows, is_scoped=is_scoped))
