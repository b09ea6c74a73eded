"""Any list as CSV (RFC 4180): nested amounts become columns such as `used.cpu`, lists of words one cell."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec


def csv_of(items: Iterable[Mapping[str, Any]], *, otherwise: Sequence[str]) -> bytes:
    """A header line and a line an item; a column that an item does not have is empty there. Without any item, the
    header says `otherwise`."""
    flat = [dict(_flattened(item)) for item in items]
    columns = list(dict.fromkeys(column for row in flat for column in row)) or otherwise
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([row.get(column, "") for column in columns] for row in flat)
    return text.getvalue().encode()


def _flattened(item: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in item.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _cell(value)


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
