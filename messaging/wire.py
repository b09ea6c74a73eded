"""Commands on their way to an engine elsewhere, and their answers on the way back, as JSON of msgspec.

A command travels as its name and the request that it was made of, which the audit needs anyway: the engine makes it
again of the same, so each side checks it once and nothing is written down twice.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Protocol

import msgspec
import structlog
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from commands.writer.gateway import Actor, Answer, Envelope, Gateway, Item
from domain.errors import Unavailable

# A command may come again as long as somebody waits for its answer, which alone may carry a new token's secret.
ANSWERS_MAX, ANSWERS_BYTES_MAX = 10_000, 64 * 1024 * 1024
NOT_UNDERSTOOD = (msgspec.DecodeError, UnicodeDecodeError, ValidationError, KeyError)

log = structlog.get_logger()


class EngineGateway(Gateway, Protocol):
    """An engine, here or elsewhere. One that does not lead is silent: whoever does answers."""

    @property
    def is_leading(self) -> bool: ...

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor would be taken now."""
        ...


class _WireItem(msgspec.Struct, frozen=True, array_like=True):
    id: str
    kind: str
    request: dict[str, Any]
    key: str
    fingerprint: str
    if_match: int | None
    create_only: bool


class WireEnvelope(msgspec.Struct, frozen=True, array_like=True):
    """An envelope: commands as their names and requests. `leader` is the one engine that it is meant for, if any.

    Of the actor nothing travels but the token's name and the address: role and tenant are looked up by the engine, and
    nobody can claim to be more than a token.
    """

    token: str
    source: str | None
    items: list[_WireItem]
    expires_at: float
    atomic: bool
    dry_run: bool
    reason: str | None
    wait_s: float
    batch: str | None
    resent: bool
    leader: str = ""


class WireReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answers, or none of them: `unavailable` with the first command's id. With `leader` alone, nothing was decided:
    an engine of that name leads, and takes the envelope when it is meant for it."""

    answers: list[Answer] = []
    unavailable: bool = False
    command: str | None = None
    leader: str = ""


_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(WireEnvelope).decode
decode_reply = msgspec.json.Decoder(WireReply).decode


def to_wire(envelope: Envelope, *, resent: bool = False, leader: str = "") -> WireEnvelope:
    """What goes over the wire for an envelope; `resent` when it went before, whoever got it."""
    return WireEnvelope(
        token=envelope.actor.name,
        source=envelope.actor.source,
        items=[
            _WireItem(
                id=item.id,
                kind=item.command.kind,
                request=item.request,
                key=item.key,
                fingerprint=item.fingerprint,
                if_match=item.if_match,
                create_only=item.create_only,
            )
            for item in envelope.items
        ],
        expires_at=envelope.expires_at,
        atomic=envelope.atomic,
        dry_run=envelope.dry_run,
        reason=envelope.reason,
        wait_s=envelope.wait_s,
        batch=envelope.batch,
        resent=envelope.resent or resent,
        leader=leader,
    )


def from_wire(wire: WireEnvelope) -> Envelope:
    """The envelope, each of its commands validated again.

    Raises:
        pydantic.ValidationError, KeyError: it holds a command that we don't know.
    """
    return Envelope(
        actor=Actor(wire.token, "", source=wire.source),
        items=tuple(
            Item(
                id=item.id,
                command=COMMANDS[item.kind].model_validate(item.request),
                request=item.request,
                key=item.key,
                fingerprint=item.fingerprint,
                if_match=item.if_match,
                create_only=item.create_only,
            )
            for item in wire.items
        ),
        expires_at=wire.expires_at,
        atomic=wire.atomic,
        dry_run=wire.dry_run,
        reason=wire.reason,
        wait_s=wire.wait_s,
        batch=wire.batch,
        resent=wire.resent,
    )


def encode_envelope(envelope: Envelope, *, resent: bool = False, leader: str = "") -> bytes:
    return _encode(to_wire(envelope, resent=resent, leader=leader))


def decode_envelope(data: bytes) -> WireEnvelope:
    """Raises msgspec.DecodeError, UnicodeDecodeError: this is no envelope."""
    return _decode_envelope(data)


UNAVAILABLE = _encode(WireReply(unavailable=True))


class Answers:
    """What was answered lately, so that an envelope that comes again gets the same bytes, and is decided once."""

    def __init__(self, engine: EngineGateway) -> None:
        self._engine = engine
        self._under_way: dict[str, asyncio.Task[bytes | None]] = {}
        self._answered: OrderedDict[str, bytes] = OrderedDict()
        self._answered_bytes = 0

    def __contains__(self, id: str) -> bool:
        return id in self._under_way or id in self._answered

    def once(self, envelope: WireEnvelope) -> "asyncio.Future[bytes | None]":
        """The reply's bytes; None if the engine was deposed meanwhile, so that another must be asked."""
        id = envelope.items[0].id
        if (reply := self._answered.get(id)) is not None:
            again: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            again.set_result(reply)
            return again
        if (task := self._under_way.get(id)) is None:
            task = self._under_way[id] = asyncio.create_task(_ask(self._engine, envelope))
            task.add_done_callback(lambda task: self._keep(id, task))
        return task

    def _keep(self, id: str, task: "asyncio.Task[bytes | None]") -> None:
        del self._under_way[id]
        if task.cancelled() or task.exception() is not None or (reply := task.result()) is None:
            return
        self._answered[id] = reply
        self._answered_bytes += len(reply)
        while len(self._answered) > ANSWERS_MAX or self._answered_bytes > ANSWERS_BYTES_MAX:
            self._answered_bytes -= len(self._answered.popitem(last=False)[1])


async def _ask(engine: EngineGateway, wire: WireEnvelope) -> bytes | None:
    try:
        envelope = from_wire(wire)
    except NOT_UNDERSTOOD as error:
        # Checked by whoever sent it: its version of Berth is another one, or its code is wrong.
        log.error("command not understood", command=wire.items[0].id, error=str(error))
        return UNAVAILABLE
    try:
        return _encode(WireReply(await engine.submit(envelope)))
    except Unavailable as refusal:
        # Deposed meanwhile: undecided, or the log knows. The new leader is asked when this is sent again.
        return _encode(WireReply(unavailable=True, command=refusal.command)) if engine.is_leading else None
