"""`POST /v1/commands`: several commands at once, each for itself, or all or none."""

import time
from typing import Any

import msgspec

from api import body, parameters, problems, refusals, upload
from api.commanding import (
    DECIDED_WITHIN_S,
    REFUSALS,
    REPLAYED,
    fingerprint_of,
    made_of,
    receipt,
    submitted,
    unavailable,
)
from api.endpoint import Call, Endpoint, declared
from api.parameters import HINTS_MAX
from api.reply import Answerable, Headers, json_reply
from api.tenant_scope import TenantScope
from api.validation import ERRORS_MAX, MOST, Most, unknown_members
from commands.catalogue import ROUTED
from commands.operations import ReportOperation
from commands.tokens import RevokeToken
from commands.writer.deciding import ANY_VERSION
from commands.writer.gateway import Answer, Envelope, Item
from commands.writer.ids import uuid7
from domain.errors import DomainError, Unavailable, Validation

ITEMS_MAX = 1_000
ATOMIC_ITEMS_MAX = 200
# Registering a host is cheap and needs no scheduling: a whole room may come at once.
ATOMIC_ITEMS_MAX_OF = {"host.register": 1_000}
# All items together. Beyond it, each that is wrong is told its first error alone: so the answer is bounded too.
BATCH_ERRORS_MAX = 1_000
FIELDS = ("commands", "atomic")


class BatchRequest(msgspec.Struct, frozen=True):
    """The commands of the body: valid ones in `items`, by their index, the refusals of all others in `refused`."""

    atomic: bool
    items: dict[int, Item]
    refused: dict[int, DomainError]


async def _handle(call: Call) -> Answerable:
    dry_run: bool = call.query().get("dry_run", False)
    raw = await upload.read(call, limit=upload.BATCH_BYTES_MAX, permission="command", kinds=ROUTED)
    body.must_be_json(call.headers)
    given = call.headers.get(b"idempotency-key")
    key = parameters.idempotency_key(given, longest=parameters.BATCH_KEY_CHARACTERS_MAX) if given is not None else None
    reason = parameters.reason(call.headers[b"berth-reason"]) if b"berth-reason" in call.headers else None

    def read(raw: bytes) -> BatchRequest:
        document = body.parse(raw, values_max=body.BATCH_VALUES_MAX)
        return _read(document, key=key, fingerprint=fingerprint_of(call, document) if key is not None else "")

    batch = await upload.understood(call, raw, read)
    del raw  # while the commands wait
    if batch.atomic and batch.refused:
        index = min(batch.refused)
        return problems.reply({**batch.refused[index].problem(), "index": index})

    answers: dict[int, Answer] = {}
    if batch.items:
        items = tuple(batch.items.values())
        expires_at = time.time() + DECIDED_WITHIN_S
        envelope = Envelope(
            call.actor,
            items,
            expires_at,
            atomic=batch.atomic,
            dry_run=dry_run,
            reason=reason,
            batch=key or uuid7(),
        )
        call.command = items[0].id
        try:
            given_back = await submitted(call, envelope)
        except Unavailable as error:
            return unavailable(error, envelope)
        answers = dict(zip(batch.items, given_back, strict=True))
        if not dry_run:
            call.context.own_writes.note(call.actor.name, given_back, shown=call.context.read_model.position)
        for n, answer in answers.items():
            made = batch.items[n].command
            if type(made) is RevokeToken and answer.problem is None and not dry_run:
                call.context.tokens.revoke(made.token)
    scope = await call.tenant_scope()
    if mismatch := next((answer for answer in answers.values() if _is_of_another_request(answer)), None):
        # The key is the whole batch's, so nothing of another batch is done under it.
        return problems.reply(mismatch.problem or {})
    if batch.atomic and (failed := _failed(answers)) is not None:
        index, answer = failed
        problem = refusals.in_scope(answer.problem or {}, scope)
        return problems.recorded(
            {"index": index, **problem},
            command=answer.command,
            position=answer.position,
            headers=REPLAYED if answer.replayed else (),
        )
    results = [
        _result(answers[n], scope) if n in answers else batch.refused[n].problem()
        for n in range(len(batch.items) + len(batch.refused))
    ]
    position = max((answer.position for answer in answers.values()), default=0)
    headers: Headers = ((b"berth-position", b"%d" % position),) if position else ()
    if answers and all(answer.replayed for answer in answers.values()):
        headers += REPLAYED
    return json_reply({"position": position, "results": results}, headers=headers)


def _read(document: dict[str, Any], *, key: str | None, fingerprint: str) -> BatchRequest:
    """Raises Validation if the batch itself is not one; what is wrong with an item stands in `refused`."""
    errors = unknown_members(document, FIELDS)
    commands, atomic = document.get("commands"), document.get("atomic", False)
    if not isinstance(atomic, bool):
        errors.append({"field": "/atomic", "message": "must be true or false"})
    if not isinstance(commands, list) or not commands:
        errors.append({"field": "/commands", "message": "must be a list of at least one command"})
    elif len(commands) > (limit := _most(commands) if atomic is True else ITEMS_MAX):
        errors.append({"field": "/commands", "message": f"at most {limit} commands"})
    if errors:
        raise Validation(errors)
    assert isinstance(commands, list)
    batch = BatchRequest(bool(atomic), {}, {})
    errors_left, hints_left, most = BATCH_ERRORS_MAX, HINTS_MAX, MOST
    for n, entry in enumerate(commands):
        try:
            batch.items[n] = _item(entry, n, key=key, fingerprint=fingerprint, most=most)
        except Validation as error:
            batch.refused[n] = error
            errors_left -= len(error.errors)
            hints_left -= min(len(error.errors), hints_left)
            most = Most(max(1, min(errors_left, ERRORS_MAX)), hints_left)
    return batch


def _most(commands: list[Any]) -> int:
    kinds = {entry.get("command") if isinstance(entry, dict) else None for entry in commands}
    kind = kinds.pop() if len(kinds) == 1 else None
    return ATOMIC_ITEMS_MAX_OF.get(kind, ATOMIC_ITEMS_MAX) if isinstance(kind, str) else ATOMIC_ITEMS_MAX


def _item(entry: Any, n: int, *, key: str | None, fingerprint: str, most: Most) -> Item:
    if not isinstance(entry, dict):
        raise Validation([{"field": "", "message": "must be an object"}])
    fields = dict(entry)
    kind = fields.pop("command", None)
    if not isinstance(kind, str) or kind not in ROUTED:
        known = sorted(ROUTED)
        message = parameters.unknown("command", kind, known, hints=most.hints > 0) if isinstance(kind, str) else ""
        raise Validation([{"field": "/command", "message": message or "is needed"}])
    if_match = _version(fields.pop("if_match", None))
    made = made_of(ROUTED[kind], fields, path={}, most=most)
    is_report = type(made) is ReportOperation  # pydantic's own isinstance takes six times as long
    if is_report and made.outcome == "progress":
        message = "progress is no command and goes alone, with POST /v1/operations/{id}/report"
        raise Validation([{"field": "/outcome", "message": message}])
    id = uuid7()
    if key is not None:
        return Item(id=id, command=made, request=fields, key=f"{key}.{n}", fingerprint=fingerprint, if_match=if_match)
    return Item(
        id=id,
        command=made,
        request=fields,
        key=made.key if is_report else id,
        fingerprint="",
        if_match=if_match,
    )


def _version(given: Any) -> int | None:
    """A version as a number, or as it stands in ETag."""
    if given is None:
        return None
    text = given.strip('"') if isinstance(given, str) else str(given)
    if text == "*":
        return ANY_VERSION
    if isinstance(given, bool) or not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Validation([{"field": "/if_match", "message": "must be a version"}])
    return int(text)


def _is_of_another_request(answer: Answer) -> bool:
    return answer.problem is not None and answer.problem["code"] == "idempotency_mismatch"


def _failed(answers: dict[int, Answer]) -> tuple[int, Answer] | None:
    """The item for which an atomic batch was not done."""
    refused = [(n, answer) for n, answer in answers.items() if answer.problem is not None]
    blamed = [(n, answer) for n, answer in refused if answer.problem and answer.problem["code"] != "aborted"]
    return next(iter(blamed or refused), None)


def _result(answer: Answer, scope: TenantScope | None) -> dict[str, Any]:
    if answer.problem is None:
        return {"status": answer.status, **receipt(answer)}
    problem = refusals.in_scope(answer.problem, scope)
    return problems.of_command(problem, command=answer.command, position=answer.position)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/v1/commands",
        name="send_commands",
        summary="Several commands at once",
        handle=_handle,
        parameters=declared(parameters.DRY_RUN),
        headers=("Idempotency-Key", "Berth-Reason"),
        body="Batch",
        answer="BatchAnswer",
        refusals=REFUSALS,
    ),
)
