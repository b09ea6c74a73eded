"""`berth verify`: the proof, as a sentence and an exit code."""

from typing import Any

import click

from cli import options, output, tables, terminal
from cli.connection import Connection
from cli.session import Session

TIMEOUT_S = 600.0  # the whole log is replayed
SHOWN_MAX = 50


def ask(connection: Connection, *, full: bool = False) -> dict[str, Any]:
    """The verification's result: `position`, `events`, `violations`, `differences`."""
    path = "/v1/verify?full=true" if full else "/v1/verify"
    answer = connection.request("POST", path, timeout_s=TIMEOUT_S)
    return answer.json(position=int, events=int, violations=list, differences=list)


@click.command()
@click.option("--full", is_flag=True, help="Compare every checkpoint with the replay, too.")
@options.read_whole
@click.pass_context
def verify(ctx: click.Context, full: bool) -> None:
    """Replay the log, check what must never break, compare the read models with the fold. Exit 1 if any is wrong."""
    session = ctx.find_object(Session)
    assert session is not None
    result = ask(session.connection, full=full)
    found = [*result["violations"], *result["differences"]]
    if session.is_structured:
        output.data(result, form=session.form)
    else:
        terminal.say(
            f"{result['events']:,} events up to position {result['position']}: "
            f"{len(result['violations'])} violations, {len(result['differences'])} differences"
        )
        for entry in found[:SHOWN_MAX]:
            terminal.say(f"  {tables.cell(entry, human=True)}")
        if len(found) > SHOWN_MAX:
            terminal.say(f"  … and {len(found) - SHOWN_MAX} more; `-o json` has them all")
    ctx.exit(1 if found else 0)
