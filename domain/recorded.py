"""The envelope of an event in the log, and the log's own events."""

from typing import Any

import msgspec

EVENT_BYTES_MAX = 256 * 1024


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """One event of the log.

    `version` equals `position`, except in `command/…` streams, where it is 1. `at` is microseconds since 1970 (UTC),
    the same for all events of one command and later than those of the one before. `command` is the command's id.
    """

    stream: str
    version: int
    position: int
    at: int
    actor: str
    command: str
    event: Any


class LogOpened(msgspec.Struct, frozen=True):
    """The log's first event. `log` is the log's own id, which tells a restored or foreign log apart."""

    log: str


class LeaderTookOver(msgspec.Struct, frozen=True):
    """A writer began to lead. From here on the append of any earlier writer collides. `leader` is a fresh id for
    each time."""

    leader: str


TOPICS: dict[str, type] = {"log.opened": LogOpened, "leader.took_over": LeaderTookOver}
