"""An event of the log as JSON: the same over HTTP and NATS, without the hashes of tokens' secrets, which nobody may
read."""

from functools import lru_cache
from typing import Any

import msgspec

from domain.values import to_rfc3339
from eventlog.codec import Row


class _State(msgspec.Struct, frozen=True, gc=False):
    """The content of `Row.state`, with the event's own JSON not decoded."""

    at: int
    actor: str
    command: str
    data: msgspec.Raw


class _Event(msgspec.Struct, frozen=True, gc=False):
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
_time = lru_cache(maxsize=16)(to_rfc3339)  # the events of a command share theirs


def body(row: Row) -> bytes:
    """The event's JSON: {`position`, `stream`, `version`, `topic`, `at`, `actor`, `command`, `data`}."""
    return _encode(_event(row))


def document(row: Row) -> dict[str, Any]:
    """`body`, decoded."""
    decoded: dict[str, Any] = msgspec.json.decode(body(row))
    return decoded


def message(row: Row, *, log: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers (CloudEvents 1.0, binary mode) of the event's message; `log` is the log's own id."""
    event = _event(row)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(row.position),
        "ce-source": log,
        "ce-type": row.topic,
        "ce-subject": row.stream,
        "ce-time": event.at,
        "Nats-Msg-Id": message_id(row.position, log=log),
    }
    return _encode(event), headers


def message_id(position: int, *, log: str) -> str:
    return f"{log}:{position}"


def _event(row: Row) -> _Event:
    state = _decode(row.state)
    at = _time(state.at)
    data = state.data
    if row.stream.startswith(_MADE_ANEW):
        data = _audit_entry(row, state, at) if row.stream.startswith("command/") else _without_hash(state)
    return _Event(
        position=row.position,
        stream=row.stream,
        version=row.version,
        topic=row.topic,
        at=at,
        actor=state.actor,
        command=state.command,
        data=data,
    )


_MADE_ANEW = ("command/", "token/")

# What an event leaves out where there is none.
_NONE: dict[str, Any] = {
    "resource": None,
    "token": None,
    "source": None,
    "reason": None,
    "problem": None,
    "positions": [],
}


def _audit_entry(row: Row, state: _State, at: str) -> msgspec.Raw:
    """A command's event is the audit's entry, complete without the fields around `data`."""
    said: dict[str, Any] = msgspec.json.decode(state.data)
    outcome = row.topic.removeprefix("command.")
    known = {"position": row.position, "at": at, "actor": state.actor, "outcome": outcome, "token": state.actor}
    return msgspec.Raw(_encode({**_NONE, **known, **said}))


def _without_hash(state: _State) -> msgspec.Raw:
    """A token's event. Only what authenticates needs the hash of its secret, and that reads the log itself."""
    said: dict[str, Any] = msgspec.json.decode(state.data)
    said.pop("hash", None)
    return msgspec.Raw(_encode(said))
