"""Commands on tokens. The secret is made here and leaves in the first answer alone; the log gets its hash."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, field_validator

from commands import finding, warning
from commands.model import ADMINS, ENGINE, Command, Described, Done, Name
from domain.errors import AlreadyExists, Conflict, Validation
from domain.tenant import KIND as TENANT
from domain.token import KIND as TOKEN
from domain.token import TokenCreated, TokenReset, TokenRevoked
from domain.transaction import Transaction
from domain.values import from_rfc3339

# Those that the steps of Berth's own operations name, now or soon. An actor's name is for ever, and so is this.
CONTROLLERS = frozenset({"baremetal", "bmc", "cluster", "host", "ipam", "kubernetes", "network", "vm", "volume"})


class CreateToken(Described, creates=TOKEN, roles=ADMINS):
    """Make a token; this answer alone has its secret.

    A token's name is its actor's for ever: it is never used again, not even after revocation.
    """

    name: Name
    role: Literal["viewer", "auditor", "operator", "admin", "controller"] = Field(description="What it may do")
    tenant: Name | None = Field(None, description="The tenant that it is confined to, with all below it")
    expires_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = Field(
        None, description="When it expires, such as 2027-01-01T00:00:00Z"
    )

    @field_validator("expires_at")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is not None:
            from_rfc3339(text)
        return text


class RevokeToken(Command, ends=TOKEN, verb="revoke", roles=ADMINS):
    """Revoke a token."""

    token: Name


class InstallToken(Command, creates=TOKEN, verb="install", roles=ENGINE):
    """The engine's own: the token of whoever owns the installation, whose secret stands in a file of theirs. A secret
    that was not seen before makes the token, or replaces its secret; one that was seen does nothing."""

    name: Name
    hash: str


def install(command: InstallToken, tx: Transaction) -> Done:
    found = tx.fleet.get(TOKEN, command.name)
    if found is None:
        tx.record(command.on(), TokenCreated(tx.new_id(), command.name, "admin", command.hash))
    elif not found.knows(command.hash):
        tx.record(command.on(), TokenReset(command.hash))
    return Done(created=found is None)


def create(command: CreateToken, tx: Transaction) -> Done:
    if command.tenant is not None and command.role in ("admin", "controller"):
        raise Validation([{"field": "/tenant", "message": f"the role {command.role} can't be confined to a tenant"}])
    expires_at = from_rfc3339(command.expires_at) if command.expires_at is not None else None
    if expires_at is not None and expires_at <= tx.at:
        raise Validation([{"field": "/expires_at", "message": "must be in the future"}])
    if command.tenant is not None:
        finding.find(tx, TENANT, command.tenant)
    if command.role != "controller" and (command.name in CONTROLLERS or command.name in tx.controllers):
        raise Conflict(
            f"{command.name!r} is the name of a controller, and only that may report under it; choose another name, or"
            " the role controller.",
            command.name,
        )
    found = tx.fleet.get(TOKEN, command.name)
    if found is not None and found.state == "revoked":
        raise Conflict(
            f"The name {command.name!r} belonged to a revoked token, and the audit keeps names for ever.",
            command.name,
        )
    if found is not None or command.name == "berth":
        raise AlreadyExists("token", command.name)
    secret, about = tx.new_secret(), command.about()
    warnings = warning.of_external_id(tx, command.on(), about)
    tx.record(
        command.on(),
        TokenCreated(
            uid=tx.new_id(),
            name=command.name,
            role=command.role,
            hash=hash_of(secret),
            tenant=command.tenant,
            expires_at=expires_at,
            about=about,
        ),
    )
    return Done(created=True, secret=secret, warnings=warnings)


def revoke(command: RevokeToken, tx: Transaction) -> Done:
    found = finding.find(tx, TOKEN, command.token)
    if found.role == "admin" and not _another_admin(tx, command.token):
        raise Conflict(
            "This is the last admin token that is valid; create another one before you revoke it.", command.token
        )
    tx.record(command.on(), TokenRevoked())
    return Done()


def hash_of(secret: str) -> str:
    """Secrets carry 256 random bits, so that a plain hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _another_admin(tx: Transaction, name: str) -> bool:
    return any(
        token.name != name
        and token.role == "admin"
        and token.state == "active"
        and (token.expires_at is None or token.expires_at > tx.at)
        for token in tx.fleet.each(TOKEN)
    )


HANDLERS = {CreateToken: create, RevokeToken: revoke, InstallToken: install}
