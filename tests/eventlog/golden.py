"""`python -m tests.eventlog.golden`: writes a golden row for every topic that has none, and leaves those that stand.

A golden row has every field filled, so that it holds each one's name and form. It is never edited: a changed event gets
a new topic, and the old one an upcaster.
"""

import json
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from domain.recorded import Recorded
from eventlog import codec
from eventlog.codec import Row

FILE = Path(__file__).parent / "golden_events.json"


def load() -> dict[str, Row]:
    stored: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {
        topic: Row(row["stream"], row["version"], row["position"], topic, row["state"].encode())
        for topic, row in stored.items()
    }


def save(rows: dict[str, Row]) -> None:
    stored = {
        topic: {"stream": row.stream, "version": row.version, "position": row.position, "state": row.state.decode()}
        for topic, row in sorted(rows.items())
    }
    FILE.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def sample(topic: str, event: type, position: int) -> Recorded:
    """An event with every field filled by its type."""
    return Recorded(
        stream=f"{topic.partition('.')[0]}/a",
        version=position,
        position=position,
        at=1_795_500_000_000_000 + position,
        actor="ann",
        command="01932f00-0000-7000-8000-000000000001",
        event=_filled(event, event.__name__),
    )


def _filled(kind: Any, name: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = typing.get_type_hints(kind)
        return kind(**{field: _filled(fields[field], field) for field in kind.__struct_fields__})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _filled(next(argument for argument in arguments if argument is not type(None)), name)
    if origin is dict:
        return {_filled(arguments[0], f"{name}-{n}"): _filled(arguments[1], name) for n in (1, 2)}
    if origin in (list, tuple):
        return origin([_filled(arguments[0], f"{name}-1")])
    plain: dict[Any, Any] = {str: f"{name} 租戶", int: 2**53 - 1, bool: True, float: 0.5}
    return plain.get(kind, {"any": [1, "two", None, {"three": 3.5}]})


if __name__ == "__main__":
    golden = load()
    for number, (topic, event) in enumerate(sorted(codec.TOPICS.items()), start=1):
        if topic not in golden:
            golden[topic] = codec.encode(sample(topic, event, number))
            print("written:", topic)
    save(golden)
