"""Who did what, when, from where, why, and what came of it; and the receipt of one command."""

import asyncio
from typing import Any

from api import redaction
from api.auth import AUDITORS, FOR_AUDITORS, may_read
from api.budget import SCANS
from api.endpoint import Call, Endpoint, declared
from api.parameters import (
    BY_POSITION,
    COUNT,
    CURSOR,
    EXCEL,
    LIMIT,
    LIMIT_DEFAULT,
    MIN_POSITION,
    MOMENT,
    SEARCH,
    Moment,
    Parameter,
    filter_by,
    moment,
    one_of,
)
from api.reading import at_least, must_be_of_this_log, page_reply
from api.reply import Answerable, json_reply
from domain.errors import NotFound, Unavailable, Validation
from domain.values import from_rfc3339, to_rfc3339
from projections.queries import decoded
from projections.view import EVERY_ROLE

OUTCOME = Parameter("outcome", "Only these", one_of("accepted", "rejected"), {"enum": ["accepted", "rejected"]})
FILTERS = (
    filter_by("actor", "Only commands of this token"),
    filter_by("resource", "Only commands on this stream"),
    filter_by("command", "Only this command, such as vm.provision"),
    OUTCOME,
    Parameter("since", "At or after this position or time", moment, MOMENT),
    Parameter("until", "At or before this position or time", moment, MOMENT),
)


async def _list(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    sort = query.get("sort", "position")
    if sort not in ("position", "-position"):
        raise Validation([{"field": "query:sort", "message": "must be position or -position"}])
    given = [moment.position for name in ("since", "until") if (moment := query.get(name)) is not None]
    if any(given):
        must_be_of_this_log(await asyncio.to_thread(call.context.log.end), *(position or 0 for position in given))
    asked = {parameter.name: _told(query.get(parameter.name)) for parameter in FILTERS}
    try:
        page = await call.context.read_model.audit(
            filters=asked,
            sort=sort,
            cursor=query.get("cursor"),
            limit=query.get("limit", LIMIT_DEFAULT),
            q=query.get("q"),
            count=query.get("count", False),
            scope=call.actor.tenant,
        )
    except ValueError as error:
        raise Validation([{"field": "query:cursor", "message": str(error)}]) from None
    scope = await call.tenant_scope()
    if scope is not None:
        page["items"] = [redaction.command(entry, scope) for entry in decoded(page)["items"]]
    return await page_reply(call, page, query)


def _told(value: Any) -> Any:
    """As the read model takes a moment: digits, or a time."""
    if not isinstance(value, Moment):
        return value
    return str(value.position) if value.position is not None else to_rfc3339(value.at or 0)


async def _one(call: Call) -> Answerable:
    """A receipt. Whoever gave the command may read it; a controller reads no other's."""
    await at_least(call, call.query())
    id, model, actor = call.path["command"], call.context.read_model, call.actor
    if "\0" in id or len(id) > 64:
        raise NotFound("command", id[:64].replace("\0", ""))
    entry = await model.command(id)
    if entry is None:
        # What was not shown yet may be in the log: a 404 must mean that it never was.
        await model.wait_for(await asyncio.to_thread(call.context.log.end))
        entry = await model.command(id)
    if entry is not None and entry["actor"] != actor.name:
        is_for_auditors = entry["command"].partition(".")[0] in FOR_AUDITORS
        if actor.role == "controller" or (is_for_auditors and actor.role not in AUDITORS):
            entry = None
        elif actor.tenant is not None:
            entry = await model.command(id, scope=actor.tenant)
    if entry is None:
        raise NotFound("command", id, in_scope=actor.tenant is not None)
    scope = await call.tenant_scope()
    if scope is not None:
        entry = redaction.command(entry, scope)
    problem = _instance(entry)
    return json_reply(
        {
            "kind": entry["command"],
            "outcome": entry["outcome"],
            "position": entry["position"],
            "at": entry["at"],
            "actor": entry["actor"],
            "resource": await _resource(call, entry["resource"], at=entry["at"]),
            "operation": entry.get("operation"),
            "problem": problem,
            "replayed": False,
            **({"warnings": entry["warnings"]} if "warnings" in entry else {}),
            **(problem or {}),  # `instance` leads here: who follows it finds the problem itself
            "command": entry["id"],
        },
        headers=((b"berth-position", b"%d" % entry["position"]),),
    )


async def _resource(call: Call, stream: str | None, *, at: str) -> dict[str, Any] | None:
    """The command's resource as it is now; None if it is gone, whoever bears its name since, or not for this actor."""
    kind, *name = (stream or "").split("/")
    if not name or not may_read(call.actor.role, kind):
        return None
    try:
        found = await call.context.read_model.one(kind, *name, scope=call.actor.tenant)
    except Unavailable:
        return None
    if found is not None and from_rfc3339(found.get("created_at") or at) > from_rfc3339(at):
        return None
    return found


def _instance(entry: dict[str, Any]) -> dict[str, Any] | None:
    problem: dict[str, Any] | None = entry["problem"]
    if problem is None:
        return None
    return {**problem, "command": entry["id"], "instance": f"/v1/commands/{entry['id']}"}


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/audit",
        name="list_audit",
        summary="The audit: one entry a command",
        handle=_list,
        roles=AUDITORS,
        permission="audit.read",
        parameters=declared(*FILTERS, SEARCH, LIMIT, CURSOR, BY_POSITION, COUNT, EXCEL, MIN_POSITION),
        answer="AuditList",
        refusals=(401, 403, 409, 422, 503),
        budget=SCANS,
    ),
    Endpoint(
        method="GET",
        path="/v1/commands/{command}",
        name="get_command",
        summary="The receipt of a command, or its problem",
        handle=_one,
        roles=EVERY_ROLE,
        answer="Receipt",
        refusals=(401, 404, 422, 503),
    ),
)
