"""How commands reach the writer and answers come back: the same for a writer in this process and for one over NATS."""

from typing import Any, Literal, Protocol

import msgspec

from commands.model import Command
from domain.command import Warned


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who asks: a name, its role, and the tenant that it is confined to (None: everywhere).

    `source` is the address that the request came from. `origin` says who vouches for the name. Of a `token`, which is
    all that another process can claim to be, the engine believes nothing but the name: whether it is good, its role
    and its tenant are what the engine's own fleet says. A `controller` was told apart by its NATS user, which alone
    may publish on its subject; the `engine` is this very process.
    """

    name: str
    role: str
    tenant: str | None = None
    source: str | None = None
    origin: Literal["token", "controller", "engine"] = "token"


class Item(msgspec.Struct, frozen=True, gc=False):
    """One command of an envelope.

    `id` is the command's, a UUIDv7. `key` is the client's, or equals `id` when none was given. `fingerprint` is a
    hash of method, path and body, empty when the key was made up. `request` is what stands in the audit: path fields
    and body, as sent. `if_match` is the version that the resource must have; `create_only` refuses one that exists.
    """

    id: str
    command: Command
    request: dict[str, Any]
    key: str
    fingerprint: str = ""
    if_match: int | None = None
    create_only: bool = False


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One command, or several: each for itself in their order, or (`atomic`) all or none.

    `expires_at` is in seconds since 1970: after it, what is still undecided is dropped. `wait_s` is how long the
    answer may wait for the end of the operation that the command starts. `resent`: it was sent before, and may have
    been decided, though no answer came.
    """

    actor: Actor
    items: tuple[Item, ...]
    expires_at: float
    atomic: bool = False
    dry_run: bool = False
    reason: str | None = None
    wait_s: float = 0.0
    batch: str | None = None
    resent: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came of one command. `status` is HTTP's: 200, 201, 202, or the problem's.

    `resource` is as it was at `position`, `version` its version there (0: it is gone). `on` is its stream. With a
    `problem`, position is that of the recorded refusal, 0 where nothing was recorded. `created` says that the command
    makes the resource, whatever its status is yet. `warnings` are those of the first answer, in each repeat.
    """

    command: str
    status: int
    position: int
    on: str | None = None
    resource: dict[str, Any] | None = None
    version: int = 0
    operation: str | None = None
    replayed: bool = False
    problem: dict[str, Any] | None = None
    secret: str | None = None
    created: bool = False
    warnings: tuple[Warned, ...] = ()


class Gateway(Protocol):
    """Where the API hands in commands."""

    async def submit(self, envelope: Envelope) -> list[Answer]:
        """One answer an item, in order, each definite: never before what it was decided upon is committed.

        Raises:
            Unavailable: no answer in time, or the queue is full; carries the first command's id.
        """
        ...
