"""`berth operation`: what a person does about an operation that did not end by itself."""

from typing import Any

import click

from cli import kinds, options
from cli.options import Verb
from cli.session import Session


@click.group()
def operation() -> None:
    """Retry, settle or cancel an operation."""


def _act(session: Session, identity: str, action: str, said: str, body: dict[str, Any] | None = None) -> None:
    answer = session.command("POST", f"{kinds.path(kinds.OPERATION, identity)}/{action}", body or {})
    session.tell(said, kinds.OPERATION, identity, answer)


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@options.write_and_wait
@click.pass_obj
def retry(session: Session, identity: str) -> None:
    """Try the step again that failed or got stuck."""
    _act(session, identity, "retry", "tried again")


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
    outputs = {"outputs": {"addresses": list(addresses)}} if addresses else {}
    _act(session, identity, "settle", f"settled as {verdict}", {"as": verdict, **outputs})


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@options.write_and_wait
@click.pass_obj
def cancel(session: Session, identity: str) -> None:
    """Stop it and undo what it did."""
    _act(session, identity, "cancel", "cancelled")
