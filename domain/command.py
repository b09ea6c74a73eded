"""What came of a command: its own event, last of all that it caused, which is the audit entry and the receipt at
once."""

from typing import Any

import msgspec


class Warned(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Something in an accepted request that is hardly meant so. `field` is a JSON Pointer into its body."""

    field: str
    message: str
    did_you_mean: str | None = None


class CommandAccepted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An audit entry of a command that was accepted. Its event's position is the receipt's.

    `fingerprint` tells whether a repeated key carries the same request; empty when the key was made up. `request` is
    the body and path fields as sent, without secrets. `positions` are those of the command's other events.
    """

    id: str
    command: str
    role: str
    request: Any
    resource: str | None = None
    operation: str | None = None
    created: bool = False
    positions: list[int] = []
    key: str = ""
    fingerprint: str = ""
    token: str | None = None
    source: str | None = None
    reason: str | None = None
    batch: str | None = None
    warnings: tuple[Warned, ...] = ()


class CommandRejected(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An audit entry of a command that was refused by a decision; `problem` is the answer's body."""

    id: str
    command: str
    role: str
    request: Any
    problem: dict[str, Any]
    resource: str | None = None
    key: str = ""
    fingerprint: str = ""
    token: str | None = None
    source: str | None = None
    reason: str | None = None
    batch: str | None = None


CommandEvent = CommandAccepted | CommandRejected

TOPICS: dict[str, type] = {"command.accepted": CommandAccepted, "command.rejected": CommandRejected}
