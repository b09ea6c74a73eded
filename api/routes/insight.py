"""Views over many things at once, and the proofs: capacity, why a VM runs where it runs, verification, who am I."""

import asyncio
from typing import Any

import msgspec

from api import redaction, upload
from api.auth import AUDITORS, must_be_one_of
from api.awaited import while_awaited
from api.budget import PAST
from api.endpoint import Call, Endpoint, declared
from api.parameters import (
    AS_OF,
    CLASSES,
    COUNT,
    CURSOR,
    EXCEL,
    FULL,
    LIMIT_MAX,
    MIN_POSITION,
    ROWS_LIMIT,
    SEARCH,
    SORT,
    Parameter,
    filter_by,
    one_of,
)
from api.reading import at_least, found, page_reply, position_of, scope_then
from api.reply import Answerable, json_reply
from domain.errors import NotFound, Validation
from domain.values import to_rfc3339
from domain.vm import KIND as VM
from domain.vm import VmScheduled
from eventlog.codec import decode
from projections.as_of import capacity_as_of
from projections.capacity import must_sort
from projections.view import EVERY_ROLE, READERS

DIMENSIONS = ("region", "dc", "rack", "group", "tenant", "host")
BY = Parameter("by", "What to sum by", one_of(*DIMENSIONS), {"enum": list(DIMENSIONS)}, required=True)
CAPACITY_FILTERS = tuple(filter_by(name) for name in ("region", "dc", "group", "tenant"))


async def _capacity(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    sort = query.get("sort", "name")
    try:
        must_sort(sort)
    except ValueError as error:
        raise Validation([{"field": "query:sort", "message": str(error)}]) from None
    paged = {
        "filters": {parameter.name: query.get(parameter.name) for parameter in CAPACITY_FILTERS},
        "sort": sort,
        "cursor": query.get("cursor"),
        "limit": query.get("limit", LIMIT_MAX),
        "q": query.get("q"),
        "count": query.get("count", False),
    }
    model, past = call.context.read_model, call.context.past
    try:
        if (moment := query.get("as_of")) is not None:
            then = await position_of(call, moment)
            scope = await scope_then(call, then)
            asking = capacity_as_of(model, past, query["by"], **paged, scope=scope, as_of=then)
            page = await while_awaited(call.receive, asking)
        else:
            page = await model.capacity(query["by"], **paged, scope=call.actor.tenant)
    except ValueError as error:
        raise Validation([{"field": "query:cursor", "message": str(error)}]) from None
    return await page_reply(call, page, query)


async def _explain(call: Call) -> Answerable:
    query = call.query()
    tenant, name = call.path["tenant"], call.path["vm"]
    shown, position = await found(call, "vm", (tenant, name), query)
    vm = msgspec.json.decode(shown)
    stream = VM.stream(tenant, name)
    rows = await asyncio.to_thread(call.context.log.stream, stream)
    scheduled = next((row for row in reversed(rows) if row.topic == "vm.scheduled" and row.position <= position), None)
    if scheduled is None:
        raise NotFound("vm", f"{tenant}/{name}")
    recorded = decode(scheduled)
    event: VmScheduled = recorded.event
    why: dict[str, Any] = redaction.explanation(event.explanation, await call.tenant_scope())
    document = {
        "vm": f"{tenant}/{name}",
        "state": vm["state"],
        "host": vm["host"],
        "group": vm["group"],
        "scheduled": {
            "position": recorded.position,
            "at": to_rfc3339(recorded.at),
            "command": recorded.command,
            "actor": recorded.actor,
            "group": event.group,
            "host": event.host,
            "resources": event.resources,
        },
        "explanation": why,
        "rules": vm["rules"],
        "broken_rules": vm["broken_rules"],
    }
    return json_reply(document, headers=((b"berth-position", b"%d" % position),))


async def _verify(call: Call) -> Answerable:
    query = call.query()
    await upload.read(call, limit=upload.LARGE_BYTES)
    if call.actor.tenant is not None:
        must_be_one_of(frozenset(), call.actor, permission="verify")
    verifying = call.context.past.verify(full=query.get("full", False))
    return json_reply(await while_awaited(call.receive, verifying))


async def _whoami(call: Call) -> Answerable:
    call.query()
    actor = call.actor
    return json_reply({"name": actor.name, "role": actor.role, "tenant": actor.tenant, "token": actor.name})


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/capacity",
        name="get_capacity",
        summary="Capacity, use and what is available",
        handle=_capacity,
        roles=READERS,
        permission="capacity.read",
        parameters=declared(
            BY, *CAPACITY_FILTERS, SEARCH, ROWS_LIMIT, CURSOR, SORT, COUNT, EXCEL, CLASSES, MIN_POSITION, AS_OF
        ),
        answer="CapacityList",
        refusals=(401, 403, 422, 503),
    ),
    Endpoint(
        method="GET",
        path="/v1/explain/vms/{tenant}/{vm}",
        name="explain_vm",
        summary="Why a VM runs where it runs",
        handle=_explain,
        roles=READERS,
        permission="vm.read",
        parameters=declared(MIN_POSITION, AS_OF),
        answer="Explanation",
        refusals=(401, 403, 404, 422, 503),
    ),
    Endpoint(
        method="POST",
        path="/v1/verify",
        name="verify",
        summary="Replay the log, check the invariants, compare the read model with the replay",
        handle=_verify,
        roles=AUDITORS,
        permission="verify",
        parameters=declared(FULL),
        answer="Verification",
        refusals=(401, 403, 408, 413, 422, 503),
        budget=PAST,
    ),
    Endpoint(
        method="GET",
        path="/v1/whoami",
        name="whoami",
        summary="The token's name, role and scope",
        handle=_whoami,
        roles=EVERY_ROLE,
        answer="Whoami",
        refusals=(401, 422),
    ),
)
