"""The rows of the living tables: by column, a function of one entry alone."""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import ARRAY
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.types import TypeEngine

from domain.entry import Entry
from projections import resources
from projections.view import Document, View
from projections.views import VIEWS
from projections.words import folded

Write = Callable[[Any], Any]

_json = msgspec.json.Encoder().encode


def row(stream: str, entry: Entry) -> dict[str, Any]:
    """`key`, the document as JSON, and what filters, sorts and joins look at."""
    kind, _, key = stream.partition("/")
    document = resources.own(stream, entry)
    return {
        "key": key,
        "words": words(document),
        "labels": _text(document["labels"]),
        "document": _text(document),
        **{name: write(of(key, entry)) for name, of, write in _COLUMNS[kind]},
    }


def words(document: Document) -> str:
    """What free text looks in."""
    said = (document["name"], document["display_name"], document["description"], document["external_id"])
    return folded("\n".join([text for text in said if text]))


def _columns(view: View[Any]) -> list[tuple[str, Callable[[str, Entry], Any], Write]]:
    fields = ((field.name, field.of_entry, field.column) for field in view.fields if field.column is not None)
    stored = ((one.name, one.of, one.type) for one in view.stored)
    return [(name, of, _write(type)) for name, of, type in (*fields, *stored)]


def _write(type: TypeEngine[Any]) -> Write:
    """How `changes.py` takes a value of a column."""
    if isinstance(type, JSON):  # JSONB too
        return _text
    return ",".join if isinstance(type, ARRAY) else _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    return _json(value).decode()


_COLUMNS = {name: _columns(view) for name, view in VIEWS.items()}
