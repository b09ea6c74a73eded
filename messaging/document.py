"""An event of the log as the world sees it: over HTTP and NATS the same."""

from typing import Any

import msgspec

from domain.values import to_rfc3339
from eventlog.codec import Row


class _State(msgspec.Struct, frozen=True):
    """What is inside of a row, with the event's own JSON left as it stands."""

    at: int
    actor: str
    command: str
    data: msgspec.Raw


class _Event(msgspec.Struct, frozen=True):
    position: int
    stream: str
    version: int
    topic: str
    at: str
    actor: str
    command: str
    data: msgspec.Raw


_decode = msgspec.json.Decoder(_State).decode
_encode = msgspec.json.Encoder().encode


def body(row: Row) -> bytes:
    """The event's JSON: {`position`, `stream`, `version`, `topic`, `at`, `actor`, `command`, `data`}."""
    return _encode(_event(row))


def document(row: Row) -> dict[str, Any]:
    """The same, decoded."""
    decoded: dict[str, Any] = msgspec.json.decode(body(row))
    return decoded


def headers(row: Row, *, log: str) -> dict[str, str]:
    """CloudEvents 1.0, binary mode; `log` is the log's own id."""
    return {
        "ce-specversion": "1.0",
        "ce-id": str(row.position),
        "ce-source": log,
        "ce-type": row.topic,
        "ce-subject": row.stream,
        "ce-time": to_rfc3339(_decode(row.state).at),
        "Nats-Msg-Id": f"{log}:{row.position}",
    }


def _event(row: Row) -> _Event:
    state = _decode(row.state)
    at = to_rfc3339(state.at)
    return _Event(row.position, row.stream, row.version, row.topic, at, state.actor, state.command, state.data)
