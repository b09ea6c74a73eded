"""`berth wait`: hold a script until a resource is in a state."""

import time
from typing import Any

import click

from cli import operations, options, terminal
from cli.by_kind import ByKind, Leaf, Named
from cli.errors import Failed, Refused, TimedOut
from cli.kinds import Kind, Kinds
from cli.session import Session

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 1.0


def _wait(kind: Kind, kinds: Kinds) -> click.Command:
    states = list(dict.fromkeys([*kind.states, "deleted"]))  # deleted is also what is not there any more
    params: list[click.Parameter] = [
        Named(kind).argument(),
        click.Option(
            ["--for", "states"],
            multiple=True,
            required=True,
            type=click.Choice(states),
            help="This state; repeat for any of several.",
        ),
        click.Option(
            ["--timeout"], type=options.duration, default="60s", show_default=True, metavar="DURATION", help="How long."
        ),
    ]

    @options.where
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...], states: tuple[str, ...], timeout: float) -> None:
        _until(session, kind, kind.one_name(names), states=states, timeout_s=timeout)

    help = f"""Wait until a {kind.name} is in a state; `deleted` also when it is not there any more.

    Ends with 1 as soon as it has failed instead, or its operation failed or is stuck, with 4 when the time is over.
    """
    made = click.command(kind.name, cls=Leaf, help=help)(run)
    made.params[:0] = params
    return made


def _until(session: Session, kind: Kind, name: str, *, states: tuple[str, ...], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    pause_s = PAUSE_S_MIN
    under_way: str | None = None
    while True:
        found = _look(session, kind, name, is_gone_enough="deleted" in states)
        state = str(found.get("state"))
        if state in states:
            return terminal.say(f"{kind.name} {name} is {state}")
        if state in kind.failed_states:
            if kind.name == operations.KIND and state == "stuck":
                raise operations.stuck(name, found)
            why = f" ({found['reason']})" if found.get("reason") else ""
            raise Failed(
                f"{kind.name} {name} is {state}{why}, not {' or '.join(states)}; "
                f"see `berth describe {kind.name} {name}`"
            )
        under_way = _follow(session, found, under_way, name=f"{kind.name} {name}", states=states)
        if time.monotonic() + pause_s > until:
            raise TimedOut(f"{kind.name} {name} is {state} after {timeout_s:g} s, not {' or '.join(states)}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, PAUSE_S_MAX)


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


def _look(session: Session, kind: Kind, name: str, *, is_gone_enough: bool) -> dict[str, Any]:
    try:
        return session.read(kind, name).json(state=str)
    except Refused as refused:
        if refused.code == "not_found" and is_gone_enough:
            return {"state": "deleted"}
        raise


wait = ByKind(
    "wait",
    make=_wait,
    of=lambda kind: True,
    help="Wait until a resource is in a state: berth wait vm TENANT/VM --for active.",
)
