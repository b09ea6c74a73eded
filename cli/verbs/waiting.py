"""`berth wait`: hold a script until a resource is in a state."""

import time

import click

from cli import kinds, options, terminal
from cli.errors import Failed, Refused, TimedOut
from cli.session import Session

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 1.0


@click.command()
@options.kind()
@click.argument("name")
@click.option(
    "--for", "states", multiple=True, required=True, metavar="STATE", help="This state; repeat for any of several."
)
@click.option("--timeout", type=options.duration, default="60s", show_default=True, metavar="DURATION")
@options.where
@click.pass_obj
def wait(session: Session, kind: str, name: str, states: tuple[str, ...], timeout: float) -> None:
    """Wait until a resource is in a state; `deleted` also when it is not there any more.

    Ends with 1 as soon as it has failed instead, with 4 when the time is over.
    """
    of = kinds.find(kind)
    _must_be_known(session, of, states)
    until = time.monotonic() + timeout
    pause_s = PAUSE_S_MIN
    while True:
        state = _state(session, of, name, is_gone_enough="deleted" in states)
        if state in states:
            return terminal.say(f"{of.name} {name} is {state}")
        if state in of.failed_states:
            raise Failed(
                f"{of.name} {name} is {state}, not {' or '.join(states)}; see `berth describe {of.name} {name}`"
            )
        if time.monotonic() + pause_s > until:
            raise TimedOut(f"{of.name} {name} is {state} after {timeout:g} s, not {' or '.join(states)}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, PAUSE_S_MAX)


def _must_be_known(session: Session, kind: kinds.Kind, states: tuple[str, ...]) -> None:
    """A misspelt state would be waited for in vain: the API refuses it as a filter, and lists those that there are."""
    query = [("state", state) for state in states if state != "deleted"]  # which is also of what is not there any more
    if query:
        session.get(kinds.list_path(kind), [*query, ("limit", "1")])


def _state(session: Session, kind: kinds.Kind, name: str, *, is_gone_enough: bool) -> str:
    try:
        return str(session.read(kind, name).json().get("state"))
    except Refused as refused:
        if refused.code == "not_found" and is_gone_enough:
            return "deleted"
        raise
