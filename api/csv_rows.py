"""Any list as CSV (RFC 4180), with one header for all of its pages: a column for each field that the list's schema has.

Amounts have a column for each class that was known when the first page was read, and one for all others; objects
with fields of their own one for each of these. All else is one cell: lists of words with spaces between, labels and
what has no form as JSON.
"""

import asyncio
import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from api.reply import CSV, Headers
from domain.values import ordered

CLASSES_MAX = 64  # that have columns; the rest of an amount's classes, and later ones, are one cell, `used.others`
ROWS_AT_ONCE = 50  # what is made before others have their turn: a millisecond
OTHERS = "others"
BYTE_ORDER_MARK = "\ufeff"
# What a spreadsheet takes as the beginning of a formula, or passes over before one; Japanese ones take the wide forms.
FORMULA_BEGINS = tuple("=+-@\t\r\n＝＋－＠")


class CsvColumn(NamedTuple):
    """`path` leads to the cell's value; `without` are the classes that have columns of their own."""

    name: str
    path: tuple[str, ...]
    without: frozenset[str] | None = None


class CsvReply:
    """A table, sent as it is made. `items` are JSON or documents."""

    status = 200

    def __init__(
        self, items: Sequence[Any], columns: Sequence[CsvColumn], *, headers: Headers, for_excel: bool, is_head: bool
    ) -> None:
        self._items = items
        self._columns = columns
        self._headers = headers
        self._for_excel = for_excel
        self._is_head = is_head

    async def send(self, receive: Any, send: Any) -> None:
        headers = [(b"content-type", CSV), (b"x-content-type-options", b"nosniff"), *self._headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if not self._is_head:
            await send(_body(self._table_head()))
            for first in range(0, len(self._items), ROWS_AT_ONCE):
                await asyncio.sleep(0)
                await send(_body(self._lines(self._items[first : first + ROWS_AT_ONCE])))
        await send({"type": "http.response.body", "body": b""})

    def _table_head(self) -> str:
        mark = BYTE_ORDER_MARK if self._for_excel else ""
        return mark + _written([[column.name for column in self._columns]])

    def _lines(self, items: Sequence[Any]) -> str:
        documents = (msgspec.json.decode(item) if isinstance(item, msgspec.Raw) else item for item in items)
        rows = ([_cell(_value(document, column)) for column in self._columns] for document in documents)
        return _written([[_disarmed(cell) for cell in row] for row in rows] if self._for_excel else rows)


def columns(schema: Mapping[str, Any], schemas: Mapping[str, Any], *, classes: Iterable[str]) -> list[CsvColumn]:
    """Those of a list whose items have this schema."""
    return list(_columns(schema, schemas, with_columns(classes), at=()))


def with_columns(classes: Iterable[str]) -> list[str]:
    """The classes that have columns of their own, in their order."""
    return ordered(frozenset(classes) - {OTHERS})[:CLASSES_MAX]


def has_amounts(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    """Whether it matters which classes there are."""
    found = _resolved(schema, schemas)
    return _is_amounts(found) or any(has_amounts(field, schemas) for field in found.get("properties", {}).values())


def _columns(
    schema: Mapping[str, Any],
    schemas: Mapping[str, Any],
    classes: Sequence[str],
    *,
    at: tuple[str, ...],
) -> Iterable[CsvColumn]:
    found = _resolved(schema, schemas)
    if _is_amounts(found):
        yield from (CsvColumn(".".join((*at, name)), (*at, name)) for name in classes)
        yield CsvColumn(".".join((*at, OTHERS)), at, frozenset(classes))
    elif found.get("properties"):
        for name, field in found["properties"].items():
            yield from _columns(field, schemas, classes, at=(*at, name))
    else:
        yield CsvColumn(".".join(at), at)


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind a reference, or of what may also be null."""
    while True:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
            continue
        choices = [one for one in schema.get("anyOf", schema.get("oneOf", ())) if one.get("type") != "null"]
        if len(choices) != 1:
            return schema
        schema = choices[0]


def _is_amounts(schema: Mapping[str, Any]) -> bool:
    inside = schema.get("additionalProperties")
    return isinstance(inside, Mapping) and bool({"integer", "number"} & _types(inside))


def _types(schema: Mapping[str, Any]) -> set[str]:
    named = schema.get("type", ())
    return {named} if isinstance(named, str) else set(named)


def _value(document: Any, column: CsvColumn) -> Any:
    value = document
    for name in column.path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    if column.without is not None and isinstance(value, Mapping):
        return {name: amount for name, amount in value.items() if name not in column.without}
    return value


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list() if all(isinstance(entry, str) for entry in value):
            return " ".join(value)
        case list() | Mapping():
            return msgspec.json.encode(value).decode() if value else ""
        case _:
            return value


def _disarmed(cell: Any) -> Any:
    """With an apostrophe before it a spreadsheet shows the text. Numbers are no formulas, and stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_BEGINS) else cell


def _written(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _body(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}
