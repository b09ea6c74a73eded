"""Operations as the command line follows them: until their end, or until only a person can help."""

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from cli import terminal
from cli.connection import Connection
from cli.errors import Failed, Refused, TimedOut

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 1.0
KIND = "operation"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
WAYS_OUT_OF_STUCK = ("retry", "settle")


class Stuck(Failed):
    """It waits for a person, so waiting for its end is in vain; exit code 1."""


def commands(identity: str, ways: Iterable[str]) -> list[str]:
    """What a person can type to get an operation out of where it is, one command each; each can be pasted."""
    typed: list[str] = []
    for way in ways:
        if way == "settle":  # which needs what is so, and how one knows
            typed += [
                f"berth settle operation {identity} --as {verdict} --reason 'how I know'"
                for verdict in ("succeeded", "failed")
            ]
        else:
            typed.append(f"berth {way} operation {identity} --wait")
    return typed


def look(connection: Connection, identity: str, *, min_position: int | None = None) -> dict[str, Any]:
    query = [("min_position", str(min_position))] if min_position else []
    return connection.request("GET", f"/v1/operations/{quote(identity, safe='')}", query=query).json(state=str)


def must_go_on(connection: Connection, identity: str | None) -> None:
    """
    Raises:
        Stuck: the operation waits for a person; says what one can do.
    """
    if not identity:
        return
    try:
        found = look(connection, identity)
    except Refused:  # who waits for a resource need not be allowed to see how it gets there
        return
    if found.get("state") == "stuck":
        raise stuck(identity, found)


def stuck(identity: str, found: dict[str, Any]) -> Stuck:
    about = terminal.printable(f"{found.get('kind')} on {found.get('target')}")
    why = terminal.printable(str(found.get("message") or "nobody knows what stands there"))
    ways = [f"  {command}" for command in commands(identity, WAYS_OUT_OF_STUCK)]
    first = f"operation {identity} ({about}) is stuck: {why}"
    return Stuck("\n".join([first, "  it does not go on by itself; try it again, or say what is so there:", *ways]))


def ended(
    connection: Connection, identity: str, *, timeout_s: float, min_position: int | None = None
) -> dict[str, Any]:
    """Wait for an operation's end, and answer with it as it ended.

    Raises:
        Stuck: it waits for a person.
        TimedOut: it is still under way after `timeout_s`.
    """
    until = time.monotonic() + timeout_s
    pause_s = PAUSE_S_MIN
    while True:
        found = look(connection, identity, min_position=min_position)
        if found.get("state") in ENDED:
            return found
        if found.get("state") == "stuck":
            raise stuck(identity, found)
        if time.monotonic() + pause_s > until:
            raise still_under_way(identity, timeout_s)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, PAUSE_S_MAX)


def still_under_way(identity: str | None, timeout_s: float) -> TimedOut:
    return TimedOut(
        f"operation {identity} is still under way after {timeout_s:g} s. See `berth describe operation {identity}`"
    )
