"""The rows of the living tables: by column, a function of one entry alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ARRAY
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.types import TypeEngine

from domain.entry import Entry
from projections import resources
from projections.fields import Own, by_name, value_of
from projections.view import Document, View
from projections.views import VIEWS
from projections.words import folded

_json = msgspec.json.Encoder().encode


def row(stream: str, entry: Entry) -> dict[str, Any]:
    """`key`, the document as JSON, and what filters, sorts and joins look at."""
    kind, _, key = stream.partition("/")
    document = resources.own(stream, entry)
    shown, columns = _COLUMNS[kind]
    found = columns(key, entry)
    for name in shown:
        found[name] = document[name]
    found["key"] = key
    found["words"] = words(document)
    found["labels"] = _text(document["labels"])
    found["document"] = _text(document)
    return found


def words(document: Document) -> str:
    """What free text looks in."""
    said = (document["name"], document["display_name"], document["description"], document["external_id"])
    return folded("\n".join([text for text in said if text]))


class _Columns(NamedTuple):
    shown: tuple[str, ...]  # what was made for the document already
    of_entry: Callable[[str, Entry], dict[str, Any]]


def _columns(view: View[Any]) -> _Columns:
    fields = [field for field in view.fields if field.column is not None]
    shown = tuple(field.name for field in fields if field.stored is None and not isinstance(field.shown, str))
    of_fields = ((field.name, field.own) for field in fields if field.name not in shown)
    others = ((one.name, _written(one.of, one.type)) for one in view.stored)
    return _Columns(shown, by_name((*of_fields, *others)))


def _written(of: Own, type: TypeEngine[Any]) -> Own:
    """As `changes.py` takes a value of a column."""
    get = value_of(of)
    if isinstance(type, JSON):  # JSONB too
        return lambda key, entry: _text(get(key, entry))
    return (lambda key, entry: ",".join(get(key, entry))) if isinstance(type, ARRAY) else of


def _text(value: Any) -> str:
    return _json(value).decode()


_COLUMNS = {name: _columns(view) for name, view in VIEWS.items()}
