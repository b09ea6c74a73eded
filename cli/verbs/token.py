"""`berth token reset admin`: the way back in for whoever owns the data directory."""

import json
import os
import secrets
import time
from pathlib import Path

import click

from cli import options, terminal
from cli.connection import Connection
from cli.errors import Failed, Refused, Unreachable

ACCEPTED_S_MAX = 15.0
LOOK_S = 0.2


@click.group()
def token() -> None:
    """Tokens, from outside: what needs no token to be done."""


@token.command()
@click.argument("name", type=click.Choice(["admin"]))
@click.option("--data", type=options.FOLDER, metavar="DIR", help="The data directory (else BERTH_DATA, else .berth).")
def reset(name: str, data: str | None) -> None:
    """Give the token `admin` another secret, as the owner of the data directory.

    For when admin.token was lost, or the log came from elsewhere. The old secret ends; the token is an administrator's
    without an end again, even if it was revoked. It is recorded: `berth history token admin`, `berth audit`.
    """
    directory = Path(data or os.environ.get("BERTH_DATA", ".berth")).absolute()
    if not (directory / "log").is_dir():
        raise Failed(f"{directory} is no data directory of Berth; name it with --data")
    file = directory / f"{name}.token"
    secret = f"berth_{secrets.token_urlsafe(32)}"
    _write(file, secret)
    url = _url(directory)
    if url is None:
        terminal.say(f"The new token is in {file}. Berth does not run there; the token works from the next start on.")
        return
    if not _is_accepted(url, secret):
        raise Failed(
            f"The new token is in {file}, but {url} did not take it within {ACCEPTED_S_MAX:g} s. It does as soon as an "
            f"engine leads; see {directory / 'log'}."
        )
    terminal.say(f"The new token is in {file}, and works: export BERTH_TOKEN=$(cat {file})")


def _write(file: Path, secret: str) -> None:
    """All at once, readable by the directory's owner alone, as whom Berth runs."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(secret + "\n")
        owner = file.parent.stat()
        if owner.st_uid != os.geteuid():
            os.chown(partial, owner.st_uid, owner.st_gid)
        partial.replace(file)
    except PermissionError:
        partial.unlink(missing_ok=True)
        raise Failed(f"{file.parent} belongs to another user; run this as that user, or as root") from None


def _url(directory: Path) -> str | None:
    try:
        return str(json.loads((directory / "endpoints.json").read_text())["http"])
    except OSError:
        return None


def _is_accepted(url: str, secret: str) -> bool:
    until = time.monotonic() + ACCEPTED_S_MAX
    while time.monotonic() < until:
        try:
            Connection(url, secret).request("GET", "/v1/whoami")
            return True
        except (Refused, Unreachable):
            time.sleep(LOOK_S)
    return False
