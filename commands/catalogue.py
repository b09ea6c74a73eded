"""Every command by its name, with its handler, and which roles may give it."""

from collections.abc import Callable
from typing import Any

from commands import groups, hosts, operations, quotas, racks, tenants, tokens, vms
from commands.model import Command, Done
from domain.fleet import Transaction

Handler = Callable[[Any, Transaction], Done]

HANDLERS: dict[type[Command], Handler] = {
    model: handler
    for area in (tenants, racks, groups, hosts, quotas, vms, operations, tokens)
    for model, handler in area.HANDLERS.items()
}
COMMANDS: dict[str, type[Command]] = {model.kind: model for model in HANDLERS}

ENGINE_ROLE = "engine"
ENGINE_ONLY = frozenset({"operation.expire", "token.install"})
BATCHABLE = frozenset(COMMANDS) - ENGINE_ONLY
SCOPED_KINDS = ("vm.", "cluster.")  # what an operator who is confined to a tenant may do there


def permits(role: str, command: str) -> bool:
    """May the role give the command at all?"""
    if command in ENGINE_ONLY or role == ENGINE_ROLE:
        return role == ENGINE_ROLE
    match role:
        case "admin":
            return True
        case "operator":
            return not command.startswith("token.")
        case "controller":
            return command == "operation.report"
        case _:
            return False
