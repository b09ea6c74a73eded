"""`berth relay rebuild`: for the person who has looked why the relay stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from cli import options, terminal


@click.group()
def relay() -> None:
    """What carries the log to NATS."""


@relay.command()
@click.option(
    "--data", type=options.FOLDER, metavar="DIR", help="Where everything is kept (else BERTH_DATA, else .berth)."
)
@click.option("--yes", is_flag=True, help="Don't ask.")
def rebuild(data: str | None, yes: bool) -> None:
    """Delete the streams BERTH_EVENTS and BERTH_AUDIT; the relay fills them again from the log.

    Needed after the database was restored from a backup: the streams then hold events that the log does not. Consumers
    start from the beginning. With BERTH_NATS set, that server is asked; else the one of `berth up` in DIR.
    """
    environment = dict(os.environ)
    if "BERTH_NATS" not in environment:
        directory = Path(data or environment.get("BERTH_DATA", ".berth"))
        try:
            environment["BERTH_NATS"] = json.loads((directory / "endpoints.json").read_text())["nats"]
        except OSError as missing:
            raise click.ClickException(
                f"No platform runs in {directory} ({missing.strerror}). Name its directory with --data, or set"
                " BERTH_NATS and BERTH_NATS_CREDENTIALS."
            ) from None
        environment["BERTH_NATS_CREDENTIALS"] = str(directory / "nats" / "relay.json")
    if not yes:
        click.confirm("Delete BERTH_EVENTS and BERTH_AUDIT, and fill them again from the log?", abort=True)
    ended = subprocess.run([sys.executable, "-m", "workers", "relay-rebuild"], env=environment, check=False)
    if ended.returncode:
        raise click.ClickException("The streams were not made anew; see above.")
    terminal.say("The streams were made anew. The relay fills them within seconds.")
