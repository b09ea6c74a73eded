"""`berth operation`: what a person does about an operation that did not end by itself."""

from typing import Any

import click

from cli import kinds, operations, options
from cli.connection import Answer
from cli.errors import Failed
from cli.options import Verb
from cli.session import Session


@click.group()
def operation() -> None:
    """Retry, settle or cancel an operation."""


def _act(session: Session, identity: str, action: str, body: dict[str, Any] | None = None) -> Answer:
    return session.command("POST", f"{kinds.path(kinds.OPERATION, identity)}/{action}", body or {})


def _and_wait(session: Session, identity: str, answer: Answer, *, said: str, wanted: str) -> None:
    """Say what was done; with --wait only after the operation's end, and fail unless it ended as `wanted`."""
    if session.wait_s is None or session.dry_run:
        return session.tell(said, kinds.OPERATION, identity, answer)
    position = answer.json(position=int)["position"]
    found = operations.ended(session.connection, identity, timeout_s=session.wait_s, min_position=position)
    if found["state"] != wanted:
        why = f": {found['message']}" if found.get("message") else ""
        raise Failed(f"operation {identity} was {said} and has {_as_ended(found['state'])}{why}")
    session.tell(said, kinds.OPERATION, identity, answer, resource=found)


def _as_ended(state: str) -> str:
    return f"been {state}" if state == "cancelled" else state


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@options.write_and_wait
@click.pass_obj
def retry(session: Session, identity: str) -> None:
    """Try again the step at which an operation is stuck."""
    _and_wait(session, identity, _act(session, identity, "retry"), said="tried again", wanted="succeeded")


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@click.option(
    "--as",
    "verdict",
    type=click.Choice(["succeeded", "failed"]),
    required=True,
    help="Is done what it was to do? Of a deletion, succeeded means that nothing stands; of a creation, failed does.",
)
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS", help="Of a VM that stands; repeatable.")
@options.write
@click.pass_obj
def settle(session: Session, identity: str, verdict: str, addresses: tuple[str, ...]) -> None:
    """Say what is so where nobody else can: your word about the world ends it. Needs a --reason."""
    if not (session.reason or "").strip():
        raise click.UsageError(
            "say with --reason how you know what is so there: what it holds is given back or kept by your word"
        )
    outputs = {"outputs": {"addresses": list(addresses)}} if addresses else {}
    answer = _act(session, identity, "settle", {"as": verdict, **outputs})
    session.tell(f"settled as {verdict}", kinds.OPERATION, identity, answer)


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@options.write_and_wait
@click.pass_obj
def cancel(session: Session, identity: str) -> None:
    """Stop it and undo what it did."""
    _and_wait(session, identity, _act(session, identity, "cancel"), said="stopped", wanted="cancelled")
