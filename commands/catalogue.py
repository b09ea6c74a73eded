"""Every command by its name, with its handler: found by the kinds, in `commands/<plural>.py` of each."""

import importlib
from collections.abc import Callable
from typing import Any

from commands.model import ENGINE_ROLE, Command, Done
from domain.kind import Kind
from domain.kinds import KINDS
from domain.transaction import Transaction

Handler = Callable[[Any, Transaction], Done]


def handlers_of(kind: Kind[Any]) -> dict[type[Command], Handler]:
    """The commands on a kind, as its file lists them.

    Raises:
        ImportError: there is no such file, or no list in it, or one of another kind's commands; says what to write.
    """
    file = f"commands/{kind.module}.py"
    try:
        module = importlib.import_module(f"commands.{kind.module}")
    except ModuleNotFoundError as error:
        if error.name != f"commands.{kind.module}":
            raise
        message = f"the kind {kind.name!r} has no commands: write {file}, with HANDLERS at its end"
        raise ModuleNotFoundError(message, name=error.name) from None
    found: dict[type[Command], Handler] | None = getattr(module, "HANDLERS", None)
    if found is None:
        raise ImportError(f"{file} needs HANDLERS at its end: each command with its handler", path=file)
    if strangers := [model.__name__ for model in found if model.about_kind is not kind]:
        raise ImportError(f"{file} has commands that are not about the kind {kind.name!r}: {strangers}", path=file)
    return found


HANDLERS: dict[type[Command], Handler] = {
    model: handler for kind in KINDS for model, handler in handlers_of(kind).items()
}
COMMANDS: dict[str, type[Command]] = {model.kind: model for model in HANDLERS}
# Those that can be given from outside, one by one or several at once.
ROUTED: dict[str, type[Command]] = {kind: model for kind, model in COMMANDS.items() if model.route is not None}


def permits(role: str, command: str) -> bool:
    """May the role give the command at all?"""
    return role == ENGINE_ROLE or role in COMMANDS[command].roles
