"""Commands over HTTP: a request becomes an envelope, its answer a response. The only place where `validation` arises.

body, path, headers ─► Command (pydantic) ─► Envelope ─► gateway.submit ─► Answer ─► 200, 201, 202 or a problem
"""

import asyncio
import hashlib
import math
import time
from functools import partial
from typing import Any

import msgspec
import structlog
from pydantic import ValidationError

from api import body, parameters, problems, refusals, upload
from api.endpoint import Call, Endpoint, declared
from api.reply import Answerable, Headers, Reply, json_reply
from api.validation import ERRORS_MAX, MOST, Most, errors_of, unknown_members
from commands.model import Command, Route
from commands.operations import ReportOperation
from commands.tokens import RevokeToken
from commands.writer.deciding import ANY_VERSION
from commands.writer.gateway import Answer, Envelope, Item
from commands.writer.ids import uuid7
from domain.errors import Unauthenticated, Unavailable, Validation
from domain.kinds import path_of
from projections.fields import title_of

DECIDED_WITHIN_S = 30.0
ASKED_AGAIN_S = 0.5
SETTLED_S = 5  # after an envelope expired, an append that is under way needs some time to be known

HEADERS = ("Idempotency-Key", "If-Match", "Prefer", "Berth-Reason")
REFUSALS = (400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 424, 500, 503)

log = structlog.get_logger()

_sorted = msgspec.json.Encoder(order="sorted").encode


def command(model: type[Command], route: Route) -> Endpoint:
    """The endpoint of one command. Path parameters fill the model's fields of the same name."""
    fields = model.model_fields.keys()
    in_path = frozenset(name for name in fields if f"{{{name}}}" in route.path)
    accepted = (body.JSON_TYPE, body.PATCH_TYPE) if route.method == "PATCH" else (body.JSON_TYPE,)
    return Endpoint(
        method=route.method,
        path=route.path,
        summary=model.summary(),
        handle=partial(_handle, model=model, in_path=in_path, accepted=accepted, has_body=bool(fields - in_path)),
        parameters=declared(parameters.DRY_RUN),
        headers=HEADERS + (("If-None-Match",) if route.method == "PUT" else ()),
        model=model,
        answer=title_of(model.about_kind),
        statuses=_statuses(model, route),
        refusals=REFUSALS,
    )


def _statuses(model: type[Command], route: Route) -> tuple[int, ...]:
    """How it is answered if all is well. Of a repeat, whoever may not see the resource any more is told
    no more than 200."""
    made = (201,) if model.creates_it or route.method == "PUT" else ()
    return (200, *made, *((202,) if model.starts_operation else ()))


async def _handle(
    call: Call, *, model: type[Command], in_path: frozenset[str], accepted: tuple[str, ...], has_body: bool
) -> Answerable:
    headers = call.headers
    dry_run: bool = call.query().get("dry_run", False) if call.scope["query_string"] else False
    raw = await upload.read(call, limit=upload.COMMAND_BYTES_MAX, permission=model.kind, kinds=(model.kind,))
    is_repeatable = b"idempotency-key" in headers

    def read(raw: bytes) -> tuple[Any, dict[str, Any], str]:
        document = body.parse(raw) if raw or has_body else {}
        made = made_of(model, document, path={name: call.path[name] for name in in_path})
        return made, document, fingerprint_of(call, document) if is_repeatable else ""

    if raw or has_body:
        body.must_be_json(headers, accepted=accepted)
    made, document, fingerprint = await upload.understood(call, raw, read)
    del raw  # while the command waits
    id = uuid7()
    call.command = id
    key = id
    if is_repeatable:
        key = parameters.idempotency_key(headers[b"idempotency-key"])
    elif model is ReportOperation:
        key = made.key
    if_match = None
    if (given := headers.get(b"if-match")) is not None:
        if_match = parameters.entity_version(given, header="If-Match", any_version=ANY_VERSION)
    create_only = False
    if call.scope["method"] == "PUT" and (given := headers.get(b"if-none-match")) is not None:
        create_only = parameters.create_only(given)
    wait_s = parameters.wait_s(headers[b"prefer"]) if b"prefer" in headers else 0.0
    reason = parameters.reason(headers[b"berth-reason"]) if b"berth-reason" in headers else None
    request = {**call.path, **document} if in_path else document
    item = Item(
        id=id,
        command=made,
        request=request,
        key=key,
        fingerprint=fingerprint,
        if_match=if_match,
        create_only=create_only,
    )
    envelope = Envelope(
        call.actor, (item,), time.time() + DECIDED_WITHIN_S, dry_run=dry_run, reason=reason, wait_s=wait_s
    )
    try:
        (answer,) = await submitted(call, envelope)
    except Unavailable as error:
        return unavailable(error, envelope)
    call.command = answer.command
    if not dry_run:
        call.context.own_writes.note(call.actor.name, (answer,), shown=call.context.read_model.position)
    if answer.problem is not None:
        problem = refusals.in_scope(answer.problem, await call.tenant_scope())
        if problem["code"] == "unavailable":
            return unavailable(Unavailable(answer.command), envelope)
        return problems.recorded(
            problem, command=answer.command, position=answer.position, headers=REPLAYED if answer.replayed else ()
        )
    if model is RevokeToken and not dry_run:
        call.context.tokens.revoke(made.token)
    headers_out = _headers(answer) if not dry_run else ((b"berth-position", b"%d" % answer.position),)
    return json_reply(receipt(answer), answer.status, headers_out)


async def submitted(call: Call, envelope: Envelope) -> list[Answer]:
    """The engine's answers.

    Raises:
        Unavailable: no answer in time, or none before this process stops: the log alone knows.
        Unauthenticated: the token is no longer good.
    """
    try:
        answers = await call.context.gateway.submit(envelope)
    except asyncio.CancelledError:
        answers = await _submitted_at_the_end(call, envelope)
    not_good = Unauthenticated.status
    if answers[0].status == not_good and all(answer.status == not_good for answer in answers):
        call.context.tokens.forget(call.actor.name)
        raise Unauthenticated
    return answers


async def _submitted_at_the_end(call: Call, envelope: Envelope) -> list[Answer]:
    """The process stops. Who waits for an operation's end is told what was decided, as if that had lasted too long: the
    same key again has the first answer, and to the client it is the first."""
    own = {item.id for item in envelope.items}
    if envelope.wait_s:
        try:
            async with asyncio.timeout(ASKED_AGAIN_S):
                items = tuple(msgspec.structs.replace(item, id=uuid7()) for item in envelope.items)
                asked = msgspec.structs.replace(envelope, items=items, wait_s=0)
                again = await call.context.gateway.submit(asked)
            return [msgspec.structs.replace(one, replayed=one.replayed and one.command not in own) for one in again]
        except (TimeoutError, Unavailable, asyncio.CancelledError):
            pass
    log.warning("command in doubt, the process stops", command=envelope.items[0].id)
    raise Unavailable(envelope.items[0].id) from None


REPLAYED: Headers = ((b"berth-replayed", b"true"),)


def made_of(model: type[Command], document: dict[str, Any], *, path: dict[str, str], most: Most = MOST) -> Any:
    """The command that a body and path fields say.

    Raises:
        Validation: they don't; with the first errors, by their fields.
    """
    # pydantic takes longer to find the fields than to check a small document: most are not even that long.
    if len(document) > ERRORS_MAX and len(document) > len(model.model_fields) + ERRORS_MAX:
        known = _fields(model, path)
        raise Validation(unknown_members(document, known, most=most))
    if path:
        if repeated := path.keys() & document.keys():
            known = _fields(model, path)
            raise Validation(
                [
                    {"field": f"/{name}", "message": parameters.unknown("field", name, known)}
                    for name in sorted(repeated)
                ]
            )
        document = {**document, **path}
    try:
        return model.model_validate(document)
    except ValidationError as error:
        known = _fields(model, path)
        raise Validation(errors_of(error, document, known=known, most=most)) from None


def _fields(model: type[Command], path: dict[str, str]) -> list[str]:
    """The fields of the body, as clients write them."""
    return [field.alias or name for name, field in model.model_fields.items() if name not in path]


def fingerprint_of(call: Call, document: dict[str, Any]) -> str:
    """Tells whether a repeated key carries the same request: method, path and the body's JSON value."""
    head = f"{call.scope['method']}\0{call.scope['path']}\0".encode()
    return hashlib.blake2b(head + _sorted(document), digest_size=16).hexdigest()


def receipt(answer: Answer) -> dict[str, Any]:
    """The body of an accepted command's answer.

    Nothing is left out: who is confined to a tenant commands its VMs alone, which have nothing to hide from it.
    """
    made = {
        "command": answer.command,
        "position": answer.position,
        "resource": answer.resource,
        "operation": answer.operation,
        "replayed": answer.replayed,
    }
    if answer.warnings:
        made["warnings"] = answer.warnings
    if answer.secret is not None:
        made["secret"] = answer.secret
    return made


def unavailable(error: Unavailable, envelope: Envelope) -> Reply:
    """503. What may still be decided is settled after Retry-After: then its id has an answer, or never will."""
    handed_in = error.command is not None
    id = error.command or envelope.items[0].id
    seconds = problems.RETRY_S
    if handed_in:
        seconds = max(0, math.ceil(envelope.expires_at - time.time())) + SETTLED_S
    return problems.reply(Unavailable(id).problem(), ((b"retry-after", b"%d" % seconds),))


def _headers(answer: Answer) -> Headers:
    found = [(b"berth-position", b"%d" % answer.position)]
    if answer.version:
        found.append((b"etag", b'"%d"' % answer.version))
    if answer.status == 202:
        found.append((b"location", f"/v1/operations/{answer.operation}".encode()))
    elif answer.status == 201 and answer.on is not None:
        found.append((b"location", path_of(answer.on).encode()))
    if answer.replayed:
        found.append((b"berth-replayed", b"true"))
    return tuple(found)
