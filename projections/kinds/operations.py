"""Operations, as they are shown: with what a started step's controller told last."""

from collections.abc import Mapping
from typing import Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Index

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kinds import owner_of
from domain.operation import KIND, Operation
from projections.field_types import (
    INTEGER,
    MAYBE,
    MAYBE_INTEGER,
    MAYBE_TIME,
    STRING,
    TIME,
    Name,
    closed,
    enum,
    listed,
    ref,
)
from projections.fields import Field, Scope, common, own, shown_time
from projections.view import EVERY_ROLE, Bearer, Document, Others, View

T = TypeVar("T")

STEP_STATES = ("pending", "started", "succeeded", "failed", "cancelled")

# The log's own side table, outside of any read model: progress is never an event.
_PROGRESS = """
CASE WHEN operations.state = 'running' THEN (
    SELECT json_agg(json_build_array(step, attempt, percent, message)) FROM berth.progress
    WHERE operation = operations.key
) END
"""


# An operation outlives what it worked on, and even its tenant: who bears that name later does not see it. A tenant with
# work under way is not deleted, so no operation is as old as the tenant that follows upon its own.
IN_SCOPE = """
EXISTS (SELECT FROM scope WHERE scope.key = operations.owner AND scope.created_at <= operations.created_at)
"""


class Facts(NamedTuple, Generic[T]):
    progress: T


_json = msgspec.json.Encoder().encode
_document = msgspec.json.Decoder(Document).decode
_progress = msgspec.json.Decoder(list[tuple[str, int, int | None, str | None]]).decode


def _shown(key: str, entry: Entry) -> Document:
    """Made anew with every report, so written out: 2 × faster than field by field."""
    operation: Operation = entry.state
    return {
        "uid": key,
        "name": key,
        "display_name": None,
        "external_id": None,
        "owner": owner_of(operation),
        "state": operation.state,
        "labels": {},
        "description": None,
        "protected": False,
        "version": entry.version,
        "created_at": shown_time(entry.created_at),
        "updated_at": shown_time(entry.updated_at),
        "id": key,
        "kind": operation.kind,
        "target": operation.target,
        "waiting_for": operation.waiting_for,
        "steps": _steps(operation),
        "percent": _percent(operation),
        "message": operation.reason,
        "started_at": shown_time(operation.started_at),
        "ended_at": _shown_end(key, entry),
    }


def _percent(operation: Operation) -> int | None:
    return 100 if operation.state == "succeeded" else None


def _steps(operation: Operation) -> list[Document]:
    return [
        {
            "name": step.name,
            "controller": step.controller,
            "state": step.state,
            "attempt": step.attempt,
            "message": step.message,
        }
        for step in operation.steps
    ]


def _from_row(document: bytes, facts: Facts[bytes | None], scope: str | None) -> bytes:
    if not facts.progress:
        return document
    told = {(step, attempt): (percent, message) for step, attempt, percent, message in _progress(facts.progress)}
    return _json(_present(_document(document), told))


def _present(document: Document, progress: Mapping[tuple[str, int], tuple[int | None, str | None]]) -> Document:
    """`progress` of the moment, (percent, message) by (step, attempt): what a started step's controller told last."""
    if document["state"] != "running":
        return document
    for step in document["steps"]:
        told = progress.get((step["name"], step["attempt"])) if step["state"] == "started" else None
        if told is not None:
            document["percent"], message = told
            step["message"] = message or step["message"]
            document["message"] = message or document["message"]
    return document


def _from_fleet(fleet: Fleet, operation: Operation, document: Document) -> Document:
    """Progress of the moment is no state: only queries know it."""
    return document


def _ended_at(key: str, entry: Entry) -> int | None:
    return entry.updated_at if entry.state.is_over else None


def _shown_end(key: str, entry: Entry) -> str | None:
    return shown_time(entry.updated_at) if entry.state.is_over else None


def _is_in_scope(scope: Scope, bearer: Bearer) -> bool:
    """It stays when its tenant is gone, so its own time tells whose it was."""
    return scope.has_tenant(bearer.owner, bearer.created_at)


VIEW: View[Operation] = View(
    kind=KIND,
    fields=(
        *common(KIND, owner_column=Name),
        Field(name="id", schema=STRING, shown=lambda key, entry: key, sql="operations.key", sorts=True),
        own("kind", STRING, column=Name, filters=True, sorts=True),
        own("target", STRING, column=Name, is_indexed=True, filters=True, filter_as="Only on this stream", sorts=True),
        own("waiting_for", MAYBE),
        own("steps", listed(ref("Step")), _steps),
        own("percent", MAYBE_INTEGER, _percent),
        own("message", MAYBE, "reason", sorts=True),
        own(
            "started_at",
            TIME,
            lambda operation: shown_time(operation.started_at),
            stored="started_at",
            sql="operations.created_at",
            sorts=True,
        ),
        Field(
            name="ended_at",
            schema=MAYBE_TIME,
            shown=_shown_end,
            stored=_ended_at,
            sql="CASE WHEN operations.state NOT IN ('running', 'stuck') THEN operations.updated_at END",
            sorts=True,
        ),
    ),
    indexes=(Index("operations_by_owner", "owner", "key"),),
    is_lively=True,
    document=_shown,
    others=Others(facts=Facts(progress=_PROGRESS), from_row=_from_row, from_fleet=_from_fleet),
    definitions={
        "Step": closed(
            {"name": STRING, "controller": STRING, "state": enum(*STEP_STATES), "attempt": INTEGER, "message": MAYBE}
        )
    },
    in_scope=IN_SCOPE,
    is_in_scope=_is_in_scope,
    readers=EVERY_ROLE,
    stays_with=("succeeded", "failed", "cancelled"),
    short=("op", "ops"),
    columns=("name", "kind", "target", "state", "percent", "started_at"),
    wide=("waiting_for", "ended_at", "message", "version"),
    yields=("percent", "started_at"),
    failed_states=("failed", "cancelled", "stuck"),
)
