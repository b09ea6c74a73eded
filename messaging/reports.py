"""Controllers' reports over NATS: each becomes a command of the controller to whose subject it was published."""

import hashlib
import re
import time
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from commands.operations import ReportOperation
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import DomainError, Malformed, TooLarge, Unavailable, Validation
from messaging import subjects
from messaging.request_reply import serve
from messaging.wire import EngineGateway

REPORT_PATIENCE_S = 30.0
REPORT_BYTES_MAX = 128 * 1024  # it is kept in the audit, whose events have at most 256 KiB
ERRORS_MAX, NAME_CHARACTERS_MAX = 50, 200  # errors of one report that are answered; characters of a field's name
KEY = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


async def serve_reports(client: Client, engine: EngineGateway) -> None:
    """Answer reports from now on. The subject names the controller, as no other may publish to it."""

    async def reply(message: Msg) -> bytes | None:
        if not engine.is_leading:
            return None
        controller = message.subject.rpartition(".")[2]
        try:
            item = command_of(message.data)
        except DomainError as refusal:
            return _encode(refusal.problem())
        actor = Actor(controller, "controller", origin="controller")
        envelope = Envelope(actor, (item,), time.time() + REPORT_PATIENCE_S)
        try:
            (answer,) = await engine.submit(envelope)
        except Unavailable:
            return _encode(Unavailable(item.id).problem()) if engine.is_leading else None
        return _encode(_body_of(answer))

    await serve(client, subjects.of_reports("*"), reply)


def command_of(data: bytes) -> Item:
    """The command that a report asks for.

    Raises:
        TooLarge, Malformed, Validation: it is not a valid report.
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
