"""`berth login`, `berth context`, `berth whoami`: which server, and as whom. A token is never printed."""

import os
import sys
from urllib.parse import urlsplit

import click

from cli import contexts, options, output, tables, terminal
from cli.connection import Connection
from cli.contexts import Saved
from cli.errors import Failed
from cli.session import Session


@click.command()
@click.argument("url", required=False)
@click.option("--name", metavar="NAME", help="What to call the context (else the server's host).")
@click.option(
    "--token-file",
    type=options.FILE,
    metavar="FILE",
    help="The file with the token (else it is asked for, or read from a pipe; if nothing comes, that of the "
    "server in this directory).",
)
def login(url: str | None, name: str | None, token_file: str | None) -> None:
    """Save a server and a token as the context in use, once the server knows the token.

    Without URL: that of BERTH_URL, else the server that runs in this directory, else http://127.0.0.1:8420.
    """
    local = contexts.running_here()
    address = url or os.environ.get("BERTH_URL") or (local.url if local else contexts.DEFAULT_URL)
    if token_file is not None:
        token = contexts.read_token(token_file)
    else:
        is_local = local is not None and address.rstrip("/") == local.url.rstrip("/")
        token = _asked(default=local.token if local is not None and is_local else None)
    if not token:
        raise Failed("no token was given")
    connection = Connection(address, token)
    me = connection.request("GET", "/v1/whoami").json(name=str, role=str)
    label = name or urlsplit(connection.url).hostname or "default"
    saved = contexts.read_saved()
    entry = {"url": connection.url, "token": token}
    contexts.write_saved(Saved(label, {**saved.contexts, label: entry}))
    terminal.say(f"logged in to {connection.url} as {me.get('name')} ({me.get('role')}); context {label} is in use")


def _asked(*, default: str | None) -> str:
    """The token that a person types or a pipe brings; `default` if nothing comes."""
    if sys.stdin is None:
        return default or ""
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip() or default or ""
    if default is None:
        return str(click.prompt("Token", hide_input=True, err=True)).strip()
    typed = click.prompt(
        "Token (empty: the one in this directory)", hide_input=True, err=True, default="", show_default=False
    )
    return str(typed).strip() or default


@click.group()
def context() -> None:
    """List, choose, show and delete saved contexts."""


@context.command("list")
@options.form
@click.pass_obj
def list_(session: Session) -> None:
    """List the saved contexts; the one in use is marked."""
    saved = contexts.read_saved()
    items = [
        {
            "name": name,
            "url": entry["url"],
            "token": "saved" if entry.get("token") else None,
            "in_use": name == saved.current,
        }
        for name, entry in sorted(saved.contexts.items())
    ]
    if not items:
        return terminal.say("no context is saved; `berth login URL` saves one", err=True)
    if session.form == "name":
        return terminal.say("\n".join(saved.contexts))
    output.entries(items, ("name", "url", "token", "in_use"), form=session.form, headers=session.headers)


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Ask this context's server from now on."""
    saved = contexts.read_saved()
    _must_exist(name, saved)
    contexts.write_saved(Saved(name, saved.contexts))
    terminal.say(f"context {name} is in use: {saved.contexts[name]['url']}")


@context.command()
@click.argument("name", required=False)
@options.form_among("table", "json", "yaml", "csv")
@click.pass_obj
def show(session: Session, name: str | None) -> None:
    """Show where a call would go, and why there."""
    if name is not None:
        _must_exist(name, contexts.read_saved())
        session.context = name
    place = session.place
    shown = {"url": place.url, "from": place.source, "token": "known" if place.token else None}
    if session.is_structured:
        return output.data(shown, form=session.form)
    tables.show(tables.of_fields([shown], ("url", "from", "token"), human=terminal.for_a_person()))


@context.command()
@click.argument("name")
def delete(name: str) -> None:
    """Forget a context and its token."""
    saved = contexts.read_saved()
    _must_exist(name, saved)
    left = {other: entry for other, entry in saved.contexts.items() if other != name}
    contexts.write_saved(Saved(None if saved.current == name else saved.current, left))
    terminal.say(f"context {name} deleted")


@click.command()
@options.read
@click.pass_obj
def whoami(session: Session) -> None:
    """Say which server is asked, as whom, with which role and scope."""
    me = session.get("/v1/whoami").json(name=str)
    if session.is_structured:
        return output.data(me, form=session.form, headers=session.headers)
    if session.form == "name":
        return terminal.say(me["name"])
    shown = {"server": session.connection.url, **me}
    tables.show(tables.of_fields([shown], [field for field in shown if shown[field] is not None], human=True))


def _must_exist(name: str, saved: Saved) -> None:
    if name not in saved.contexts:
        known = ", ".join(sorted(saved.contexts)) or "none; `berth login URL` saves one"
        raise Failed(f"there is no context {name!r}; saved are: {known}")
