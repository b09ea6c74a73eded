"""What the fleet keeps of a resource that lives, and what a resource's own events lead to."""

from collections.abc import Iterable
from typing import Any

import msgspec

from domain.kinds import BY_EVENT
from domain.recorded import Recorded


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A state that lives. `version` is the position of its last event; times are microseconds since 1970."""

    state: Any
    version: int
    created_at: int
    updated_at: int


def last_entry(events: Iterable[Recorded]) -> Entry | None:
    """What the events of one stream, from its first, lead to; also if it has ended."""
    entry, alive = None, None
    for recorded in events:
        event = recorded.event
        kind = BY_EVENT[type(event)]
        state = kind.evolve(alive.state if alive else None, event)
        entry = Entry(state, recorded.position, alive.created_at if alive else recorded.at, recorded.at)
        alive = None if type(event) in kind.ends else entry
    return entry
