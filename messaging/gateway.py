"""Commands over NATS: the API's side, which asks, and the engine's side, which answers; and controllers' reports."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from commands.operations import ReportOperation
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Envelope, Gateway, Item
from domain.errors import DomainError, Malformed, TooLarge, Unavailable, Validation
from eventlog.tasks import end_tasks
from messaging import subjects
from messaging.connect import settled

CONCURRENT_MAX = 20_000
ANSWER_GRACE_S = 2.0
NO_ENGINE_PATIENCE_S, NO_ENGINE_RETRY_S = 5.0, 0.1
RESEND_S, RESEND_S_MAX = 0.5, 8.0
TAKE_OVER_S = 3.0  # a standby leads within this time
ANSWERS_MAX = 10_000
REPORT_PATIENCE_S = 30.0
REPORT_BYTES_MAX = 128 * 1024  # it is kept in the audit, whose events have at most 256 KiB
ERRORS_MAX, NAME_CHARACTERS_MAX = 50, 200  # that are told, and of a field's name
KEY = re.compile(r"[A-Za-z0-9._:-]{1,64}")

log = structlog.get_logger()


class _Item(msgspec.Struct, frozen=True):
    id: str
    kind: str
    fields: msgspec.Raw
    request: dict[str, Any]
    key: str
    fingerprint: str
    if_match: int | None
    create_only: bool


class _Envelope(msgspec.Struct, frozen=True):
    """An envelope on the wire: commands as their names and fields. Of the actor nothing travels but the token's name
    and the address: role and tenant are looked up by the engine, and nobody can claim to be more than a token."""

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


class _Reply(msgspec.Struct, frozen=True):
    """Answers, or none of them: `unavailable` with the first command's id."""

    answers: list[Answer]
    unavailable: bool = False
    command: str | None = None


_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode


class Served(Gateway, Protocol):
    """An engine that is served to others. One that does not lead is silent: whoever does answers."""

    is_leading: bool


class RemoteGateway:
    """Implements `Gateway` by asking the engines of a cell, of which the one that leads answers."""

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_commands(cell)

    async def submit(self, envelope: Envelope) -> list[Answer]:
        patience_s = max(0.0, envelope.expires_at - time.time()) + envelope.wait_s + ANSWER_GRACE_S
        asked: set[asyncio.Task[Msg]] = set()
        try:
            async with asyncio.timeout(patience_s):
                reply = await self._ask(envelope, asked, patience_s=patience_s)
        except (TimeoutError, nats.errors.Error) as error:
            # Nobody listens, or nobody answered: either way only the log knows.
            log.warning("engine not reached", command=envelope.items[0].id, error=str(error) or "no answer in time")
            raise Unavailable(envelope.items[0].id) from None
        finally:
            await end_tasks(*asked)
        if reply.unavailable:
            raise Unavailable(reply.command)
        return reply.answers

    async def _ask(self, envelope: Envelope, asked: "set[asyncio.Task[Msg]]", *, patience_s: float) -> _Reply:
        """The first answer. Silence may be a lost message, or a leader that is dead: then it is sent again, which is
        safe, since a command's id is in the log once at most."""
        began = time.monotonic()
        pause_s, give_up_at = RESEND_S, began + NO_ENGINE_PATIENCE_S
        data = on_the_wire(envelope)
        while True:
            asked.add(asyncio.create_task(self._client.request(self._subject, data, timeout=patience_s)))
            done, _ = await asyncio.wait(asked, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            asked -= done
            for task in done:
                try:
                    return _decode_reply(task.result().data)
                except nats.errors.NoRespondersError:
                    # It reached nobody: an engine that is restarted listens within a second.
                    if time.monotonic() > give_up_at:
                        raise
                    await asyncio.sleep(NO_ENGINE_RETRY_S)
            if not done and time.monotonic() - began > TAKE_OVER_S:
                pause_s = min(2 * pause_s, RESEND_S_MAX)
            data = on_the_wire(msgspec.structs.replace(envelope, resent=True))


async def serve_commands(client: Client, cell: str, engine: Served) -> None:
    """Answer commands of a cell from now on, whenever the engine leads."""
    answers = _Answers()

    async def answer(message: Msg) -> bytes | None:
        if not engine.is_leading:
            return None
        try:
            envelope = from_the_wire(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, ValidationError, KeyError) as error:
            # Checked by whoever sent it: its version of Berth is another one, or its code is wrong.
            log.error("command not understood", error=str(error))
            return _encode(_Reply([], True))
        return await answers.once(envelope.items[0].id, lambda: _answered(engine, envelope))

    await _serve(client, subjects.of_commands(cell), answer)


async def _answered(engine: Served, envelope: Envelope) -> bytes | None:
    try:
        return _encode(_Reply(await engine.submit(envelope)))
    except Unavailable as refusal:
        # Deposed meanwhile: undecided, or the log knows. The new leader is asked when this is sent again.
        return _encode(_Reply([], True, refusal.command)) if engine.is_leading else None


class _Answers:
    """What was answered lately, so that an envelope that comes again gets the same bytes, and is decided once."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, asyncio.Task[bytes | None]] = OrderedDict()

    async def once(self, id: str, answer: Callable[[], Coroutine[Any, Any, bytes | None]]) -> bytes | None:
        task = self._by_id.get(id)
        if task is None or (task.done() and task.result() is None):
            task = self._by_id[id] = asyncio.create_task(answer())
            while len(self._by_id) > ANSWERS_MAX:
                self._by_id.popitem(last=False)
        return await task


async def serve_reports(client: Client, engine: Served) -> None:
    """Answer controllers' reports: who reports is told by the subject, to which only that controller may publish."""

    async def answer(message: Msg) -> bytes | None:
        if not engine.is_leading:
            return None
        controller = message.subject.rpartition(".")[2]
        try:
            item = _reported(message.data)
        except DomainError as refusal:
            return _encode(refusal.problem())
        actor = Actor(controller, "controller", origin="controller")
        envelope = Envelope(actor, (item,), time.time() + REPORT_PATIENCE_S)
        try:
            (told,) = await engine.submit(envelope)
        except Unavailable:
            return _encode(Unavailable(item.id).problem()) if engine.is_leading else None
        return _encode(_body_of(told))

    await _serve(client, subjects.of_reports("*"), answer)


def _reported(data: bytes) -> Item:
    """The command that a report is.

    Raises:
        TooLarge, Malformed, Validation: it is none.
    """
    if len(data) > REPORT_BYTES_MAX:
        raise TooLarge(REPORT_BYTES_MAX)
    try:
        request = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed([{"field": "", "message": str(error)}]) from None
    key = request.pop("key", None)
    if key is not None and not (isinstance(key, str) and KEY.fullmatch(key)):
        raise Validation([{"field": "/key", "message": "must be 1–64 of A-Z, a-z, 0-9, '.', '_', ':' and '-'"}])
    try:
        command = ReportOperation.model_validate(request)
    except ValidationError as error:
        raise Validation(
            [
                {
                    "field": "".join(f"/{str(part)[:NAME_CHARACTERS_MAX]}" for part in found["loc"]),
                    "message": found["msg"],
                }
                for found in error.errors(include_url=False, include_context=False, include_input=False)[:ERRORS_MAX]
            ]
        ) from None
    except RecursionError as error:
        raise Malformed([{"field": "/outputs", "message": str(error)}]) from None
    id = ids.uuid7()
    if key is None:
        return Item(id, command, request, command.key)
    return Item(id, command, request, key, hashlib.blake2b(_encode_sorted(request), digest_size=16).hexdigest())


def _body_of(answer: Answer) -> dict[str, Any]:
    """The answer, or its problem, as HTTP's body would be."""
    if answer.problem is not None:
        recorded = {"instance": f"/v1/commands/{answer.command}"} if answer.position else {}
        return {**answer.problem, "command": answer.command, **recorded}
    return {
        "command": answer.command,
        "position": answer.position,
        "resource": answer.resource,
        "operation": answer.operation,
        "replayed": answer.replayed,
    }


async def _serve(client: Client, subject: str, answer: Callable[[Msg], Awaitable[bytes | None]]) -> None:
    """Many at once, but not without bound: what is beyond it waits in NATS' own buffers."""
    slots = asyncio.Semaphore(CONCURRENT_MAX)
    tasks: set[asyncio.Task[None]] = set()

    async def one(message: Msg) -> None:
        try:
            if (reply := await answer(message)) is not None:
                await message.respond(reply)
        except nats.errors.Error as error:
            log.warning("reply not sent", subject=message.subject, error=str(error))
        finally:
            slots.release()

    async def receive(message: Msg) -> None:
        await slots.acquire()
        task = asyncio.create_task(one(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.subscribe(subject, cb=receive)
    await settled(client)


def on_the_wire(envelope: Envelope) -> bytes:
    items = [
        _Item(
            item.id,
            item.command.kind,
            # Unset fields stay unset: in a merge patch they mean something else than null.
            msgspec.Raw(item.command.model_dump_json(exclude_unset=True)),
            item.request,
            item.key,
            item.fingerprint,
            item.if_match,
            item.create_only,
        )
        for item in envelope.items
    ]
    return _encode(
        _Envelope(
            envelope.actor.name,
            envelope.actor.source,
            items,
            envelope.expires_at,
            envelope.atomic,
            envelope.dry_run,
            envelope.reason,
            envelope.wait_s,
            envelope.batch,
            envelope.resent,
        )
    )


def from_the_wire(data: bytes) -> Envelope:
    """The envelope again, each command checked again.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, pydantic.ValidationError, KeyError: this is none that we know.
    """
    wire = _decode_envelope(data)
    items = tuple(
        Item(
            item.id,
            COMMANDS[item.kind].model_validate_json(bytes(item.fields)),
            item.request,
            item.key,
            item.fingerprint,
            item.if_match,
            item.create_only,
        )
        for item in wire.items
    )
    return Envelope(
        Actor(wire.token, "", source=wire.source),
        items,
        wire.expires_at,
        wire.atomic,
        wire.dry_run,
        wire.reason,
        wire.wait_s,
        wire.batch,
        wire.resent,
    )
