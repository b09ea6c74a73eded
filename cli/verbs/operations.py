"""`berth operation`: what a person does about an operation that did not end by itself."""

import click

from cli import kinds, options
from cli.options import Verb
from cli.session import Session


@click.group()
def operation() -> None:
    """Retry, abandon or cancel an operation."""


def _act(session: Session, identity: str, action: str, said: str) -> None:
    answer = session.command("POST", f"{kinds.path(kinds.OPERATION, identity)}/{action}", {})
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
@options.write
@click.pass_obj
def abandon(session: Session, identity: str) -> None:
    """Give it up: you vouch that nothing stands there, and what it holds is given back."""
    _act(session, identity, "abandon", "abandoned")


@operation.command(cls=Verb)
@click.argument("identity", metavar="ID")
@options.write_and_wait
@click.pass_obj
def cancel(session: Session, identity: str) -> None:
    """Stop it and undo what it did."""
    _act(session, identity, "cancel", "cancelled")
