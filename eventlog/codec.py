"""Events to rows and back: which topic is which event, and the bytes that are kept for ever.

A row's state is the JSON {"at", "actor", "command", "data"}. Class and module names are free to change, topics and the
bytes of what was written are not: `tests/eventlog/golden_events.json` holds a row of every topic. Dictionaries keep
their order, so that a replayed state answers in the very bytes in which the writer's own does; no event may hold a set,
which has no order.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from domain import command, group, host, operation, quota, rack, recorded, tenant, token, vm
from domain.recorded import Recorded

DOMAIN: tuple[Any, ...] = (recorded, command, tenant, quota, group, rack, host, vm, operation, token)

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


class Upcaster(msgspec.Struct, frozen=True):
    """How a topic that is no longer written is read: as the class that it had then, turned into the event of today."""

    written_as: type
    upcast: Callable[[Any], Any]


class UnknownTopic(Exception):
    """The log holds an event that this version of Berth does not know. A reader stops there: it never skips one."""

    def __init__(self, topic: str, position: int) -> None:
        super().__init__(
            f"The event at position {position} has the topic {topic!r}, which this version of Berth does not know: "
            "run the version that wrote it, or a newer one."
        )
        self.topic = topic
        self.position = position


def merged(modules: tuple[Any, ...]) -> dict[str, type]:
    """The topics of all `modules`; one topic names one event, and one event has one topic."""
    topics: dict[str, type] = {}
    for module in modules:
        doubles = topics.keys() & module.TOPICS.keys()
        assert not doubles, f"{module.__name__} names topics that others have: {sorted(doubles)}"
        topics.update(module.TOPICS)
    assert len(set(topics.values())) == len(topics), "an event has two topics"
    return topics


TOPICS: dict[str, type] = merged(DOMAIN)
TOPIC_OF: dict[type, str] = {event: topic for topic, event in TOPICS.items()}
UPCASTERS: dict[str, Upcaster] = {
    "operation.step_started": Upcaster(
        written_as=operation.OperationStepStartedInItsTurn,
        upcast=lambda old: operation.OperationStepStarted(old.step, old.attempt, 0),
    ),
}

_encode_state = msgspec.json.Encoder().encode


def encode(event: Recorded) -> Row:
    return Row(
        event.stream,
        event.version,
        event.position,
        TOPIC_OF[type(event.event)],
        _encode_state(State(event.at, event.actor, event.command, event.event)),
    )


def decoder(topics: Mapping[str, type], upcasters: Mapping[str, Upcaster]) -> Callable[[Row], Recorded]:
    """A function from rows to events that knows these topics.

    It raises UnknownTopic, and msgspec.ValidationError for bytes that are not what their topic says.
    """
    assert not topics.keys() & upcasters.keys(), "a topic is written today or upcast, not both"
    current = {topic: _state_decoder(event) for topic, event in topics.items()}
    former = {topic: (_state_decoder(old.written_as), old.upcast) for topic, old in upcasters.items()}

    def decode(row: Row) -> Recorded:
        if decode_state := current.get(row.topic):
            state = decode_state(row.state)
            event = state.data
        elif row.topic in former:
            decode_state, upcast = former[row.topic]
            state = decode_state(row.state)
            event = upcast(state.data)
        else:
            raise UnknownTopic(row.topic, row.position)
        return Recorded(row.stream, row.version, row.position, state.at, state.actor, state.command, event)

    return decode


def _state_decoder(event: type) -> Callable[[bytes], State[Any]]:
    return msgspec.json.Decoder(State[event]).decode  # type: ignore[valid-type]


decode = decoder(TOPICS, UPCASTERS)


class _Time(msgspec.Struct, frozen=True, gc=False):
    at: int


_decode_time = msgspec.json.Decoder(_Time).decode


def time_of(row: Row) -> int:
    """The row's `at` alone, in microseconds since 1970: known for every topic, the unknown too."""
    return _decode_time(row.state).at
