"""Commands over NATS: the API's side, which asks, and the engine's side, which answers; and controllers' reports."""

import asyncio
import hashlib
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from commands.operations import ReportOperation
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import DomainError, Malformed, TooLarge, Unavailable, Validation
from eventlog.tasks import end_tasks
from messaging import subjects
from messaging.connect import settled
from messaging.wire import (
    NOT_UNDERSTOOD,
    UNAVAILABLE,
    Answers,
    EngineGateway,
    WireReply,
    decode_envelope,
    decode_reply,
    encode_envelope,
)

CONCURRENT_MAX = 20_000
ANSWER_GRACE_S = 2.0
NO_ENGINE_PATIENCE_S, NO_ENGINE_RETRY_S = 5.0, 0.1
RESEND_S, RESEND_S_MAX = 0.5, 8.0
TAKE_OVER_S = 3.0  # a standby leads within this time
REPORT_PATIENCE_S = 30.0
REPORT_BYTES_MAX = 128 * 1024  # it is kept in the audit, whose events have at most 256 KiB
ERRORS_MAX, NAME_CHARACTERS_MAX = 50, 200  # that are told, and of a field's name
KEY = re.compile(r"[A-Za-z0-9._:-]{1,64}")

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class RemoteGateway:
    """Implements `Gateway` by asking the engines of a cell, of which the one that leads answers."""

    is_leading = True  # which is told, like what room there is, when it is asked

    def __init__(self, client: Client, cell: str) -> None:
        self._client = client
        self._subject = subjects.of_commands(cell)

    def room_for(self, actor: Actor) -> int:
        return sys.maxsize

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

    async def _ask(self, envelope: Envelope, asked: "set[asyncio.Task[Msg]]", *, patience_s: float) -> WireReply:
        """The first answer. Silence may be a lost message, or a leader that is dead: then it is sent again, which is
        safe, since a command's id is in the log once at most.

        What is sent again goes to one engine by its name, which the one that leads tells first. If that is silent too,
        no third is asked: perhaps the command itself is what costs each leader its place.
        """
        began = time.monotonic()
        pause_s, give_up_at = RESEND_S, began + NO_ENGINE_PATIENCE_S
        data, leader = encode_envelope(envelope), ""
        while True:
            asked.add(asyncio.create_task(self._client.request(self._subject, data, timeout=patience_s)))
            done, _ = await asyncio.wait(asked, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            asked -= done
            for task in done:
                try:
                    reply = decode_reply(task.result().data)
                except nats.errors.NoRespondersError:
                    # It reached nobody: an engine that is restarted listens within a second.
                    if time.monotonic() > give_up_at:
                        raise
                    await asyncio.sleep(NO_ENGINE_RETRY_S)
                else:
                    if not reply.leader:
                        return reply
                    leader = leader or reply.leader
            if not done and time.monotonic() - began > TAKE_OVER_S:
                pause_s = min(2 * pause_s, RESEND_S_MAX)
            data = encode_envelope(envelope, resent=True, leader=leader)


async def serve_commands(client: Client, cell: str, engine: EngineGateway) -> None:
    """Answer commands of a cell from now on, whenever the engine leads."""
    answers = Answers(engine)
    name = uuid.uuid4().hex

    async def answer(message: Msg) -> bytes | None:
        if not engine.is_leading:
            return None
        try:
            envelope = decode_envelope(message.data)
        except NOT_UNDERSTOOD as error:
            log.error("command not understood", error=str(error))
            return UNAVAILABLE
        id = envelope.items[0].id
        if envelope.resent and id not in answers and envelope.leader != name:
            if not envelope.leader:
                return _encode(WireReply(leader=name))
            log.warning("command not taken over", command=id, reason="two leaders were silent after they had it")
            return _encode(WireReply(unavailable=True, command=id))
        return await answers.once(envelope)

    await _serve(client, subjects.of_commands(cell), answer)


async def serve_reports(client: Client, engine: EngineGateway) -> None:
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
