"""`berth wait`: hold a script until a resource is in a state."""

import time
from typing import Any

import click

from cli import kinds, operations, options, terminal
from cli.errors import Failed, Refused, TimedOut
from cli.session import Session

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 1.0


@click.command()
@options.kind()
@options.name
@click.option(
    "--for", "states", multiple=True, required=True, metavar="STATE", help="This state; repeat for any of several."
)
@click.option("--timeout", type=options.duration, default="60s", show_default=True, metavar="DURATION")
@options.where
@click.pass_obj
def wait(session: Session, kind: str, names: tuple[str, ...], states: tuple[str, ...], timeout: float) -> None:
    """Wait until a resource is in a state; `deleted` also when it is not there any more.

    Ends with 1 as soon as it has failed instead, or its operation failed or is stuck, with 4 when the time is over.
    """
    of = kinds.find(kind)
    name = kinds.one_name(of, names)
    _must_be_known(session, of, states)
    until = time.monotonic() + timeout
    pause_s = PAUSE_S_MIN
    under_way: str | None = None
    while True:
        found = _look(session, of, name, is_gone_enough="deleted" in states)
        state = str(found.get("state"))
        if state in states:
            return terminal.say(f"{of.name} {name} is {state}")
        if state in of.failed_states:
            if of is kinds.OPERATION and state == "stuck":
                raise operations.stuck(name, found)
            why = f" ({found['reason']})" if found.get("reason") else ""
            raise Failed(
                f"{of.name} {name} is {state}{why}, not {' or '.join(states)}; see `berth describe {of.name} {name}`"
            )
        under_way = _follow(session, found, under_way, name=f"{of.name} {name}", states=states)
        if time.monotonic() + pause_s > until:
            raise TimedOut(f"{of.name} {name} is {state} after {timeout:g} s, not {' or '.join(states)}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, PAUSE_S_MAX)


def _must_be_known(session: Session, kind: kinds.Kind, states: tuple[str, ...]) -> None:
    """A misspelt state would be waited for in vain: the API refuses it as a filter, and lists those that there are."""
    query = [("state", state) for state in states if state != "deleted"]  # which is also of what is not there any more
    if query:
        session.get(kinds.list_path(kind), [*query, ("limit", "1")]).json(items=list)


def _follow(
    session: Session, found: dict[str, Any], before: str | None, *, name: str, states: tuple[str, ...]
) -> str | None:
    """The operation that is under way on it now; fails if that one is stuck, or the one before ended in vain."""
    now = found.get("operation")
    identity = now if isinstance(now, str) else None
    operations.must_go_on(session.connection, identity)
    if before is not None and identity is None:
        ended = operations.look(session.connection, before)
        if ended.get("state") in ("failed", "cancelled"):
            why = f": {ended['message']}" if ended.get("message") else ""
            raise Failed(
                f"{name} is {found.get('state')}, not {' or '.join(states)}: operation {before} {ended['state']}{why}"
            )
    return identity


def _look(session: Session, kind: kinds.Kind, name: str, *, is_gone_enough: bool) -> dict[str, Any]:
    try:
        return session.read(kind, name).json(state=str)
    except Refused as refused:
        if refused.code == "not_found" and is_gone_enough:
            return {"state": "deleted"}
        raise
