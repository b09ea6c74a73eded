"""Commands over NATS: the API's side, which asks, and the engine's side, which answers; and controllers' reports."""

import asyncio
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
from domain.errors import Unavailable, Validation
from messaging import subjects

CONCURRENT_MAX = 20_000
ANSWER_GRACE_S = 2.0
REPORT_PATIENCE_S = 30.0

log = structlog.get_logger()


class _Item(msgspec.Struct, frozen=True):
    id: str
    kind: str
    fields: dict[str, Any]
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


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode


class RemoteGateway:
    """Implements `Gateway` by asking the engine of a cell."""

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_commands(cell)

    async def submit(self, envelope: Envelope) -> list[Answer]:
        first = envelope.items[0].id
        patience_s = envelope.expires_at - time.time() + envelope.wait_s + ANSWER_GRACE_S
        try:
            message = await self._client.request(self._subject, _on_the_wire(envelope), timeout=patience_s)
        except nats.errors.Error as error:
            # Nobody listens, or nobody answered: either way only the log knows.
            log.warning("engine not reached", command=first, error=str(error))
            raise Unavailable(first) from None
        reply = _decode_reply(message.data)
        if reply.unavailable:
            raise Unavailable(reply.command)
        return reply.answers


async def serve_commands(client: Client, cell: str, gateway: Gateway) -> None:
    """Answer commands of a cell from now on."""

    async def answer(message: Msg) -> bytes:
        envelope = _from_the_wire(_decode_envelope(message.data))
        try:
            return msgspec.json.encode(_Reply(await gateway.submit(envelope)))
        except Unavailable as refusal:
            return msgspec.json.encode(_Reply([], True, refusal.command))

    await _serve(client, subjects.of_commands(cell), answer, queue=f"engine-{cell}")


async def serve_reports(client: Client, gateway: Gateway) -> None:
    """Answer controllers' reports: who reports is told by the subject, to which only that controller may publish."""

    async def answer(message: Msg) -> bytes:
        controller = message.subject.rpartition(".")[2]
        try:
            request = msgspec.json.decode(message.data, type=dict[str, Any])
            key = request.pop("key", None)
            command = ReportOperation.model_validate(request)
        except msgspec.DecodeError as error:
            return msgspec.json.encode(_problem("", str(error)))
        except ValidationError as error:
            first = error.errors()[0]
            return msgspec.json.encode(_problem("/" + "/".join(map(str, first["loc"])), first["msg"]))
        item = Item(ids.uuid7(), command, request, key or command.key)
        envelope = Envelope(Actor(controller, "controller"), (item,), time.time() + REPORT_PATIENCE_S)
        try:
            (told,) = await gateway.submit(envelope)
        except Unavailable as refusal:
            return msgspec.json.encode(refusal.problem())
        return msgspec.json.encode(told.problem or as_body(told))

    await _serve(client, subjects.of_reports("*"), answer, queue="reports")


def as_body(answer: Answer) -> dict[str, Any]:
    """The answer to a command as the contract's body."""
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


def _on_the_wire(envelope: Envelope) -> bytes:
    items = [
        _Item(
            item.id,
            item.command.kind,
            item.command.model_dump(exclude_unset=True),
            item.request,
            item.key,
            item.fingerprint,
            item.if_match,
            item.create_only,
        )
        for item in envelope.items
    ]
    return msgspec.json.encode(
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


def _from_the_wire(wire: _Envelope) -> Envelope:
    items = tuple(
        Item(
            item.id,
            COMMANDS[item.kind].model_validate(item.fields),
            item.request,
            item.key,
            item.fingerprint,
            item.if_match,
            item.create_only,
        )
        for item in wire.items
    )
    return Envelope(wire.actor, items, wire.expires_at, wire.atomic, wire.dry_run, wire.reason, wire.wait_s, wire.batch)


def _problem(field: str, message: str) -> dict[str, Any]:
    return Validation([{"field": field, "message": message}]).problem()
