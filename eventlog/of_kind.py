"""One kind's events alone, and what they lead to: no other kind's events change its states.

So a kind that is folded otherwise than before, or shown otherwise, is made anew without folding all that happened.
"""

from collections.abc import Collection, Iterator
from typing import Any

import psycopg
from psycopg.sql import SQL

from domain.entry import Entry
from domain.kind import Kind
from domain.recorded import Recorded
from eventlog.codec import Row, decode
from eventlog.table import EVENTS_TABLE

# A plain walk through the log, in the server: no index leads to topics, and none is worth it.
_OF_TOPICS = SQL(
    "SELECT originator_id, originator_version, notification_id, topic, state FROM {}"
    " WHERE notification_id <= %s AND topic = ANY(%s) ORDER BY notification_id"
).format(EVENTS_TABLE)


def recorded_of(connection: psycopg.Connection[Any], topics: Collection[str], *, until: int) -> Iterator[Recorded]:
    """The events of these topics from the first, up to a position; some at a time are in memory."""
    with connection.cursor() as cursor:
        for stream, version, position, topic, state in cursor.stream(_OF_TOPICS, (until, list(topics)), binary=True):
            yield decode(Row(stream, version, position, topic, bytes(state)))


def topics_of(kind: Kind[Any]) -> list[str]:
    return [*kind.events, *kind.former]


def entries_of_kind(
    connection: psycopg.Connection[Any], kind: Kind[Any], *, until: int
) -> Iterator[tuple[str, Entry, bool]]:
    """After each of the kind's events up to a position: its stream, what stands there then, and whether that has ended
    with it."""
    living: dict[str, Entry] = {}
    for recorded in recorded_of(connection, topics_of(kind), until=until):
        stream, event, old = recorded.stream, recorded.event, living.get(recorded.stream)
        state = kind.evolve(old.state if old is not None else None, event)
        entry = Entry(state, recorded.position, old.created_at if old is not None else recorded.at, recorded.at)
        has_ended = type(event) in kind.ends
        if has_ended:
            living.pop(stream, None)
        else:
            living[stream] = entry
        yield stream, entry, has_ended
