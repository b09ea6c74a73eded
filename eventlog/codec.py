"""Events to rows and back: which topic is which event, and the bytes that are kept for ever.

A row's state is the JSON {"at", "actor", "command", "data"}. Class and module names are free to change, topics and the
bytes of what was written are not: `tests/eventlog/golden_events.json` holds a row of every topic. Dictionaries keep
their order, so that a replayed state answers in the very bytes in which the writer's own does; no event may hold a set,
which has no order.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from domain import command, recorded
from domain.kind import Former
from domain.kinds import KINDS
from domain.recorded import Recorded

Event = TypeVar("Event")


class Row(msgspec.Struct, frozen=True, gc=False):
    """An event as the table holds it. `position` is the library's notification id, `version` its originator version."""

    stream: str
    version: int
    position: int
    topic: str
    state: bytes


class State(msgspec.Struct, Generic[Event], frozen=True, gc=False):
    """What is inside of `Row.state`. The order of the fields is that of the bytes."""

    at: int
    actor: str
    command: str
    data: Event


class UnknownTopic(Exception):
    """The log holds an event that this version of Berth does not know. A reader stops there: it never skips one."""

    def __init__(self, topic: str, position: int) -> None:
        super().__init__(
            f"The event at position {position} has the topic {topic!r}, which this version of Berth does not know: "
            "run the version that wrote it, or a newer one."
        )
        self.topic = topic
        self.position = position


def merged(*parts: Mapping[str, type]) -> dict[str, type]:
    """All topics together; one topic names one event, and one event has one topic."""
    topics: dict[str, type] = {}
    for part in parts:
        doubles = topics.keys() & part.keys()
        assert not doubles, f"topics that are declared twice: {sorted(doubles)}"
        topics.update(part)
    assert len(set(topics.values())) == len(topics), "an event has two topics"
    return topics


TOPICS: dict[str, type] = merged(recorded.TOPICS, command.TOPICS, *(kind.events for kind in KINDS))
TOPIC_OF: dict[type, str] = {event: topic for topic, event in TOPICS.items()}
FORMER: dict[str, Former] = {topic: former for kind in KINDS for topic, former in kind.former.items()}

_encode_state = msgspec.json.Encoder().encode


def encode(event: Recorded) -> Row:
    return Row(
        event.stream,
        event.version,
        event.position,
        TOPIC_OF[type(event.event)],
        _encode_state(State(event.at, event.actor, event.command, event.event)),
    )


def decoder(topics: Mapping[str, type], former: Mapping[str, Former]) -> Callable[[Row], Recorded]:
    """A function from rows to events that knows these topics.

    It raises UnknownTopic, and msgspec.ValidationError for bytes that are not what their topic says.
    """
    assert not topics.keys() & former.keys(), "a topic is written today or upcast, not both"
    current = {topic: _state_decoder(event) for topic, event in topics.items()}
    upcast = {topic: (_state_decoder(old.written_as), old.upcast) for topic, old in former.items()}

    def decode(row: Row) -> Recorded:
        stream, version, position = row.stream, row.version, row.position
        if decode_state := current.get(row.topic):
            state = decode_state(row.state)
            # positional: names would take 40 ns of the 2.5 µs that folding an event takes
            return Recorded(stream, version, position, state.at, state.actor, state.command, state.data)
        if row.topic not in upcast:
            raise UnknownTopic(row.topic, position)
        decode_state, into_todays = upcast[row.topic]
        state = decode_state(row.state)
        written = Recorded(
            stream=stream,
            version=version,
            position=position,
            at=state.at,
            actor=state.actor,
            command=state.command,
            event=state.data,
        )
        return msgspec.structs.replace(written, event=into_todays(written))

    return decode


def _state_decoder(event: type) -> Callable[[bytes], State[Any]]:
    return msgspec.json.Decoder(State[event]).decode  # type: ignore[valid-type]  # a type made at run time


decode = decoder(TOPICS, FORMER)


class _Time(msgspec.Struct, frozen=True, gc=False):
    at: int


_decode_time = msgspec.json.Decoder(_Time).decode


def time_of(row: Row) -> int:
    """The row's `at` alone, in microseconds since 1970: known for every topic, the unknown too."""
    return _decode_time(row.state).at
