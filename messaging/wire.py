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


class Served(Gateway, Protocol):
    """An engine, here or elsewhere. One that does not lead is silent: whoever does answers."""

    @property
    def is_leading(self) -> bool: ...

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor would be taken now."""
        ...


class _Item(msgspec.Struct, frozen=True, array_like=True):
    id: str
    kind: str
    request: dict[str, Any]
    key: str
    fingerprint: str
    if_match: int | None
    create_only: bool


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """An envelope: commands as their names and requests. `leader` is the one engine that it is meant for, if any.

    Of the actor nothing travels but the token's name and the address: role and tenant are looked up by the engine, and
    nobody can claim to be more than a token.
    """

    token: str
    source: str | None
    items: list[_Item]
    expires_at: float
    atomic: bool
    dry_run: bool
    reason: str | None
    wait_s: float
    batch: str | None
    resent: bool
    leader: str = ""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answers, or none of them: `unavailable` with the first command's id. With `leader` alone, nothing was decided:
    an engine of that name leads, and takes the envelope when it is meant for it."""

    answers: list[Answer] = []
    unavailable: bool = False
    command: str | None = None
    leader: str = ""


_encode = msgspec.json.Encoder().encode
_decode_sent = msgspec.json.Decoder(Sent).decode
decode_reply = msgspec.json.Decoder(Reply).decode


def sent(envelope: Envelope, *, resent: bool = False, leader: str = "") -> Sent:
    """What goes over the wire for an envelope; `resent` when it went before, whoever got it."""
    return Sent(
        envelope.actor.name,
        envelope.actor.source,
        [
            _Item(
                item.id,
                item.command.kind,
                item.request,
                item.key,
                item.fingerprint,
                item.if_match,
                item.create_only,
            )
            for item in envelope.items
        ],
        envelope.expires_at,
        envelope.atomic,
        envelope.dry_run,
        envelope.reason,
        envelope.wait_s,
        envelope.batch,
        envelope.resent or resent,
        leader,
    )


def received(told: Sent) -> Envelope:
    """The envelope again, each command checked again.

    Raises:
        pydantic.ValidationError, KeyError: it holds a command that we don't know.
    """
    return Envelope(
        Actor(told.token, "", source=told.source),
        tuple(
            Item(
                item.id,
                COMMANDS[item.kind].model_validate(item.request),
                item.request,
                item.key,
                item.fingerprint,
                item.if_match,
                item.create_only,
            )
            for item in told.items
        ),
        told.expires_at,
        told.atomic,
        told.dry_run,
        told.reason,
        told.wait_s,
        told.batch,
        told.resent,
    )


def on_the_wire(envelope: Envelope, *, resent: bool = False, leader: str = "") -> bytes:
    return _encode(sent(envelope, resent=resent, leader=leader))


def from_the_wire(data: bytes) -> Sent:
    """Raises msgspec.DecodeError, UnicodeDecodeError: this is no envelope."""
    return _decode_sent(data)


UNAVAILABLE = _encode(Reply(unavailable=True))


class Answers:
    """What was answered lately, so that an envelope that comes again gets the same bytes, and is decided once."""

    def __init__(self, engine: Served) -> None:
        self._engine = engine
        self._under_way: dict[str, asyncio.Task[bytes | None]] = {}
        self._told: OrderedDict[str, bytes] = OrderedDict()
        self._told_bytes = 0

    def __contains__(self, id: str) -> bool:
        return id in self._under_way or id in self._told

    def once(self, envelope: Sent) -> "asyncio.Future[bytes | None]":
        """The reply's bytes; None if the engine was deposed meanwhile, so that another must be asked."""
        id = envelope.items[0].id
        if (told := self._told.get(id)) is not None:
            again: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            again.set_result(told)
            return again
        if (task := self._under_way.get(id)) is None:
            task = self._under_way[id] = asyncio.create_task(_answered(self._engine, envelope))
            task.add_done_callback(lambda task: self._keep(id, task))
        return task

    def _keep(self, id: str, task: "asyncio.Task[bytes | None]") -> None:
        del self._under_way[id]
        if task.cancelled() or task.exception() is not None or (reply := task.result()) is None:
            return
        self._told[id] = reply
        self._told_bytes += len(reply)
        while len(self._told) > ANSWERS_MAX or self._told_bytes > ANSWERS_BYTES_MAX:
            self._told_bytes -= len(self._told.popitem(last=False)[1])


async def _answered(engine: Served, told: Sent) -> bytes | None:
    try:
        envelope = received(told)
    except NOT_UNDERSTOOD as error:
        # Checked by whoever sent it: its version of Berth is another one, or its code is wrong.
        log.error("command not understood", command=told.items[0].id, error=str(error))
        return UNAVAILABLE
    try:
        return _encode(Reply(await engine.submit(envelope)))
    except Unavailable as refusal:
        # Deposed meanwhile: undecided, or the log knows. The new leader is asked when this is sent again.
        return _encode(Reply(unavailable=True, command=refusal.command)) if engine.is_leading else None
