"""A token: who may call, as what, within which tenant. The log holds a hash of the secret, never the secret."""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.kind import Kind
from domain.values import About

ROLES = ("viewer", "auditor", "operator", "admin", "controller")


class TokenCreated(msgspec.Struct, frozen=True, omit_defaults=True):
    """`hash` is the SHA-256 of the secret, hexadecimal; `expires_at` microseconds since 1970."""

    uid: str
    name: str
    role: str
    hash: str
    tenant: str | None = None
    expires_at: int | None = None
    about: About = About()


class TokenRevoked(msgspec.Struct, frozen=True):
    pass


class TokenReset(msgspec.Struct, frozen=True):
    """It has another secret, and is an administrator's without an end, whatever it was: the word of whoever owns the
    installation. Earlier secrets never come back."""

    hash: str


TokenEvent = TokenCreated | TokenRevoked | TokenReset


class Token(msgspec.Struct, frozen=True):
    uid: str
    name: str
    role: str
    hash: str
    tenant: str | None
    expires_at: int | None
    state: str  # active, revoked
    about: About
    former: tuple[str, ...] = ()  # hashes of the secrets before the present one

    def knows(self, hash: str) -> bool:
        """Is it, or was it, that of its secret?"""
        return hash in (self.hash, *self.former)


def evolve(token: Token, event: TokenEvent) -> Token:
    match event:
        case TokenCreated():
            return Token(
                uid=event.uid,
                name=event.name,
                role=event.role,
                hash=event.hash,
                tenant=event.tenant,
                expires_at=event.expires_at,
                state="active",
                about=event.about,
            )
        case TokenRevoked():
            return replace(token, state="revoked")
        case TokenReset():
            return replace(
                token,
                state="active",
                role="admin",
                tenant=None,
                expires_at=None,
                hash=event.hash,
                former=(*token.former, token.hash),
            )
        case _:
            assert_never(event)


KIND = Kind(
    name="token",
    plural="tokens",
    named_by=("token",),
    state=Token,
    states=("active", "revoked"),
    ended=frozenset({"revoked"}),
    events={
        "token.created": TokenCreated,
        "token.revoked": TokenRevoked,
        "token.reset": TokenReset,
    },
    evolve=evolve,
    # An actor's name is never used again, so a revoked token stays known: nothing ends it.
    owner=lambda token: token.tenant,
    refs={"tenant": "tenant"},
    rebinds=frozenset({TokenReset}),
)
