"""Authentication: bearer tokens from a table in memory, kept current by the log's live tail; and what each role may
read.

Authorization ─► SHA-256 ─► table ── hit ──────────────────────────────► Actor      (no I/O)
                             └ miss ─► api/token_lookups.py: all misses together ─► kept, or 401
live tail: token.created adds, token.revoked removes: at once where it was answered, elsewhere within a moment;
           a replaced log empties the table
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256

import msgspec

from commands.writer.gateway import Actor
from domain.errors import Forbidden, Unauthenticated, Unavailable
from domain.recorded import Recorded
from domain.token import TokenCreated, TokenReset, TokenRevoked
from domain.values import name_of
from projections.queries import TokenRow
from projections.views import VIEWS

UNKNOWN_KEPT_S = 1.0
UNKNOWN_MAX = 10_000

AUDITORS = frozenset({"auditor", "admin"})
# Of these kinds of streams viewers are told nothing: commands, and what they may not read.
FOR_AUDITORS = frozenset({"command", *(kind for kind, view in VIEWS.items() if "viewer" not in view.readers)})


class ValidToken(msgspec.Struct, frozen=True):
    """A token that is valid until `expires_at` (microseconds since 1970)."""

    name: str
    role: str
    tenant: str | None
    expires_at: int | None


# Finds a token by the hash of its secret; the flag asks to wait until the read model shows the log's present end. The
# answer's flag: the read model shows all from before the live tail began, so the token may be kept in the table.
LookUp = Callable[[str, bool], Awaitable[tuple[TokenRow | None, bool]]]


class Tokens:
    """The table. `look_up` asks the read model."""

    def __init__(self, look_up: LookUp) -> None:
        self._look_up = look_up
        self._known: dict[str, ValidToken] = {}
        self._hashes: dict[str, str] = {}
        self._revoked: set[str] = set()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._generation = 0  # of the log that all this is from

    async def authenticate(self, authorization: bytes | None) -> tuple[ValidToken, str]:
        """The token, and the hash by which to ask `still_good`.

        Raises:
            Unauthenticated: no token, or one that is unknown, revoked or expired.
        """
        hash = _hash_in(authorization)
        known = self._known.get(hash) or await self._find(hash)
        if known is None or not _is_current(known):
            raise Unauthenticated
        return known, hash

    def cached(self, authorization: bytes | None) -> ValidToken | None:
        """The token, if it is in memory."""
        try:
            known = self._known.get(_hash_in(authorization))
        except Unauthenticated:
            return None
        return known if known is not None and _is_current(known) else None

    def still_good(self, hash: str) -> bool:
        """Is it still valid? For what lasts longer than a request."""
        known = self._known.get(hash)
        return known is not None and _is_current(known)

    def note(self, recorded: Recorded) -> None:
        """Take over an event that the live tail saw."""
        match recorded.event:
            case TokenCreated() as event:
                self._unknown.pop(event.hash, None)
                self._keep(event.hash, ValidToken(event.name, event.role, event.tenant, event.expires_at))
            case TokenRevoked():
                self.revoke(name_of(recorded.stream))
            case TokenReset() as event:
                name = name_of(recorded.stream)
                self.revoke(name)  # the secret that it had
                self._revoked.discard(name)
                self._unknown.pop(event.hash, None)
                self._keep(event.hash, ValidToken(name, "admin", None, None))

    def revoke(self, name: str) -> None:
        """Refuse this token from now on. Called before a revocation is answered: the tail may see the event later."""
        self._revoked.add(name)
        self.forget(name)

    def forget(self, name: str) -> None:
        """Look the token up again at its next use, as the engine refused it."""
        if hash := self._hashes.pop(name, None):
            self._known.pop(hash, None)

    def forget_all(self) -> None:
        """The log was replaced: drop every token, and the results of look-ups that are under way."""
        self._known.clear()
        self._hashes.clear()
        self._revoked.clear()
        self._unknown.clear()
        self._generation += 1

    async def _find(self, hash: str) -> ValidToken | None:
        now = time.monotonic()
        if now - self._unknown.get(hash, -UNKNOWN_KEPT_S) < UNKNOWN_KEPT_S:
            return None
        generation = self._generation
        found, is_current = await self._look_up(hash, False)
        if found is None:
            found, is_current = await self._look_up(hash, True)
        if generation != self._generation:
            raise Unavailable()
        if found is None or found.state != "active" or found.name in self._revoked:
            self._unknown[hash] = now
            while len(self._unknown) > UNKNOWN_MAX:
                self._unknown.popitem(last=False)
            return None
        known = ValidToken(found.name, found.role, found.tenant, found.expires_at)
        if is_current:
            self._keep(hash, known)
        return known

    def _keep(self, hash: str, known: ValidToken) -> None:
        # The read model may lag behind a revocation that the tail saw. Names are never reused, so revoked is final.
        if known.name not in self._revoked:
            self._known[hash] = known
            self._hashes[known.name] = hash


def may_read(role: str, kind: str) -> bool:
    return role in VIEWS[kind].readers


def must_be_one_of(roles: frozenset[str], actor: Actor, *, permission: str) -> None:
    if actor.role not in roles:
        raise Forbidden(permission)


def _hash_in(authorization: bytes | None) -> str:
    if authorization is None:
        raise Unauthenticated
    scheme, _, secret = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not secret.strip():
        raise Unauthenticated
    return sha256(secret.strip()).hexdigest()


def _is_current(known: ValidToken) -> bool:
    return known.expires_at is None or known.expires_at > time.time_ns() // 1000
