"""The names of resources as Tab offers them: asked from the server, within half a second, or none at all."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import click

from cli.kinds import Kind
from cli.session import Session

T = TypeVar("T")
WITHIN_S = 0.5
NAMES_MAX = 200

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def completing(name: str) -> Complete:
    """What completes a name of that kind."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        session = ctx.find_object(Session)
        if session is None:
            return []
        found = within(lambda: _names(session, name, incomplete))
        return found or []

    return complete


def within(ask: Callable[[], T], *, seconds: float = WITHIN_S) -> T | None:
    """What `ask` answers, if it does so in time; whoever presses Tab is told of no fault.

    In a thread: a name server that is silent can't be interrupted.
    """
    answers: list[T] = []

    def run() -> None:
        with contextlib.suppress(Exception):
            answers.append(ask())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _names(session: Session, name: str, incomplete: str) -> list[str]:
    kind = session.recall().get(name)
    if kind is None:
        return []
    items = session.connection.request("GET", kind.list_path, query=_query(kind, incomplete)).objects("items")
    found = [kind.full_name(item) for item in items]
    return [full_name for full_name in found if full_name.startswith(incomplete)]


def _query(kind: Kind, incomplete: str) -> list[tuple[str, str]]:
    """What narrows the list to those that can be meant: the parts that are whole, and what the next begins with."""
    query: list[tuple[str, Any]] = [("limit", str(NAMES_MAX))]
    filters = {one.name for one in kind.filters}
    *whole, begun = incomplete.split("/")
    query += [(part, value) for part, value in zip(kind.named_by, whole, strict=False) if part in filters and value]
    if begun and "q" in filters and len(whole) == len(kind.named_by) - 1:
        query.append(("q", begun))
    return query
