"""JSON that is put together: a document stands in its table as it goes to the client, and is decoded only where a fact
changes what is inside of it."""

from typing import Any

import msgspec

_json = msgspec.json.Encoder().encode


def with_members(document: bytes, members: dict[str, Any]) -> bytes:
    """A JSON object with more members behind its own."""
    return document[:-1] + b"," + _json(members)[1:] if members else document


def text_or_none(value: bytes | None) -> str | None:
    """A text, of how PostgreSQL writes it."""
    return value.decode() if value is not None else None
