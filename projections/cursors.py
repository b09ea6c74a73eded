"""Cursors: where the next page of a list begins. Opaque to clients, and good for the very list that gave them alone."""

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from sqlalchemy.types import Boolean, Integer, TypeEngine

NO_CURSOR = "this is no cursor: take next_cursor of the page before"
INT8_MAX = 2**63 - 1


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """After the row with this sort value and this key. `of` is a hash of what the list was asked for."""

    of: str
    value: Any
    key: Any


def asked(*question: Any) -> str:
    """What binds a cursor to its list: kind, sort, filters, scope."""
    return hashlib.sha256(msgspec.json.encode(question, order="deterministic")).hexdigest()[:16]


def encode(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def decode(text: str, *, of: str) -> Cursor:
    """Raises ValueError: it is no cursor, or one of another list."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.json.decode(raw, type=Cursor)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise ValueError(NO_CURSOR) from None
    if cursor.of != of:
        raise ValueError("this cursor belongs to a list with another sort or other filters: begin without a cursor")
    return cursor


def fits(value: Any, type: TypeEngine[Any]) -> bool:
    """Can it be a value of a column of this type? Whoever makes up a cursor is told so, and not by the database."""
    if isinstance(type, Boolean):
        return isinstance(value, bool)
    if isinstance(type, Integer):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT8_MAX
    return isinstance(value, str) and "\0" not in value


def value(text: bytes | None, type: TypeEngine[Any]) -> Any:
    """A column's value, from how PostgreSQL writes it."""
    if text is None:
        return None
    if isinstance(type, Boolean):
        return text == b"t"
    return int(text) if isinstance(type, Integer) else text.decode()
