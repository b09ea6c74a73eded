"""Commands over NATS: the API's side, which asks, and the engine's side, which answers; and controllers' reports."""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

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
from messaging import subjects
from messaging.connect import settled

CONCURRENT_MAX = 20_000
ANSWER_GRACE_S = 2.0
NO_ENGINE_PATIENCE_S, NO_ENGINE_RETRY_S = 5.0, 0.1
REPORT_PATIENCE_S = 30.0
REPORT_BYTES_MAX = 128 * 1024  # it is kept in the audit, whose events have at most 256 KiB
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
    """An envelope on the wire: commands as their names and fields."""

    actor: Actor
    items: list[_Item]
    expires_at: float
    atomic: bool
    dry_run: bool
    reason: str | None
    wait_s: float
    batch: str | None


class _Reply(msgspec.Struct, frozen=True):
    """Answers, or none of them: `unavailable` with the first command's id."""

    answers: list[Answer]
    unavailable: bool = False
    command: str | None = None


_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode


class RemoteGateway:
    """Implements `Gateway` by asking the engine of a cell."""

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_commands(cell)

    async def submit(self, envelope: Envelope) -> list[Answer]:
        first = envelope.items[0].id
        give_up_at = time.monotonic() + NO_ENGINE_PATIENCE_S
        patience_s = max(0.0, envelope.expires_at - time.time()) + envelope.wait_s + ANSWER_GRACE_S
        data = on_the_wire(envelope)
        while True:
            try:
                message = await self._client.request(self._subject, data, timeout=patience_s)
                break
            except nats.errors.NoRespondersError:
                # It reached nobody, so it may be sent again: an engine that is restarted listens within a second.
                if time.time() < envelope.expires_at and time.monotonic() < give_up_at:
                    await asyncio.sleep(NO_ENGINE_RETRY_S)
                    continue
                log.warning("no engine listens", command=first)
                raise Unavailable(first) from None
            except nats.errors.Error as error:
                # Nobody answered: only the log knows.
                log.warning("engine not reached", command=first, error=str(error))
                raise Unavailable(first) from None
        reply = _decode_reply(message.data)
        if reply.unavailable:
            raise Unavailable(reply.command)
        return reply.answers


async def serve_commands(client: Client, cell: str, gateway: Gateway) -> None:
    """Answer commands of a cell from now on."""

    async def answer(message: Msg) -> bytes:
        try:
            envelope = from_the_wire(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, ValidationError, KeyError) as error:
            # Checked by whoever sent it: its version of Berth is another one, or its code is wrong.
            log.error("command not understood", error=str(error))
            return _encode(_Reply([], True))
        try:
            return _encode(_Reply(await gateway.submit(envelope)))
        except Unavailable as refusal:
            return _encode(_Reply([], True, refusal.command))

    await _serve(client, subjects.of_commands(cell), answer, queue=f"engine-{cell}")


async def serve_reports(client: Client, gateway: Gateway) -> None:
    """Answer controllers' reports: who reports is told by the subject, to which only that controller may publish."""

    async def answer(message: Msg) -> bytes:
        controller = message.subject.rpartition(".")[2]
        try:
            item = _reported(message.data)
        except DomainError as refusal:
            return _encode(refusal.problem())
        envelope = Envelope(Actor(controller, "controller"), (item,), time.time() + REPORT_PATIENCE_S)
        try:
            (told,) = await gateway.submit(envelope)
        except Unavailable:
            return _encode(Unavailable(item.id).problem())
        return _encode(_body_of(told))

    await _serve(client, subjects.of_reports("*"), answer, queue="reports")


def _reported(data: bytes) -> Item:
    """The command that a report is.

    Raises:
        TooLarge, Malformed, Validation: it is none.
    """
    if len(data) > REPORT_BYTES_MAX:
        raise TooLarge(REPORT_BYTES_MAX)
    try:
        request = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed([{"field": "", "message": str(error)}]) from None
    key = request.pop("key", None)
    if key is not None and not (isinstance(key, str) and KEY.fullmatch(key)):
        raise Validation([{"field": "/key", "message": "must be 1–64 of A-Z, a-z, 0-9, '.', '_', ':' and '-'"}])
    try:
        command = ReportOperation.model_validate(request)
    except ValidationError as error:
        raise Validation(
            [
                {"field": "".join(f"/{part}" for part in found["loc"]), "message": found["msg"]}
                for found in error.errors(include_url=False, include_context=False, include_input=False)
            ]
        ) from None
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


async def _serve(client: Client, subject: str, answer: Callable[[Msg], Awaitable[bytes]], *, queue: str) -> None:
    """Many at once, but not without bound: what is beyond it waits in NATS' own buffers."""
    slots = asyncio.Semaphore(CONCURRENT_MAX)
    tasks: set[asyncio.Task[None]] = set()

    async def one(message: Msg) -> None:
        try:
            await message.respond(await answer(message))
        except nats.errors.Error as error:
            log.warning("reply not sent", subject=message.subject, error=str(error))
        finally:
            slots.release()

    async def receive(message: Msg) -> None:
        await slots.acquire()
        task = asyncio.create_task(one(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.subscribe(subject, queue=queue, cb=receive)
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
            envelope.actor,
            items,
            envelope.expires_at,
            envelope.atomic,
            envelope.dry_run,
            envelope.reason,
            envelope.wait_s,
            envelope.batch,
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
    return Envelope(wire.actor, items, wire.expires_at, wire.atomic, wire.dry_run, wire.reason, wire.wait_s, wire.batch)
