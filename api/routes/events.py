"""Routes of the log: in pages, live, and a resource's history."""

import asyncio
from typing import Any

from api.auth import may_read
from api.awaited import while_awaited
from api.budget import LISTENERS, SCANS
from api.endpoint import Call, Endpoint, declared
from api.event_search import count_of_events, page_of_events
from api.event_stream import EventStream
from api.event_view import EventView
from api.history import page_of_changes
from api.parameters import (
    BY_POSITION,
    COUNT,
    CURSOR,
    EXCEL,
    LIMIT,
    LIMIT_DEFAULT,
    MIN_POSITION,
    MOMENT,
    POSITION_MAX,
    SEARCH,
    STRING,
    Moment,
    Parameter,
    moment,
    one_of,
    text,
    whole,
)
from api.reading import at_least, missing, must_be_of_this_log, page_reply
from api.reply import Answerable
from api.schemas import ALL_TOPICS
from domain.errors import Forbidden, NotFound, Unavailable, Validation
from domain.kinds import BY_NAME
from projections.field_types import enum
from projections.view import READERS

AFTER = Parameter("after", "Only events after this position or time", moment, MOMENT)
UNTIL = Parameter("until", "Only events up to this position or time", moment, MOMENT)
STREAM = Parameter("stream", "Only events of this stream, such as vm/acme/web-1", text, STRING)
NAMED = Parameter(
    "named",
    "0: events without a name, which EventSource gives to `onmessage`; the topic is in their data",
    lambda value: one_of("0", "1")(value) == "1",
    {"enum": ["0", "1"], "default": "1"},
)
TOPIC = Parameter("topic", "Only events of this topic, such as vm.scheduled", one_of(*ALL_TOPICS), enum(*ALL_TOPICS))


async def _list(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    log = call.context.log
    end = await asyncio.to_thread(log.end)
    low, high = await _position(call, query.get("after"), 0), await _position(call, query.get("until"), end)
    must_be_of_this_log(end, low, high)
    is_falling = _is_falling(query)
    view = EventView(call.context, call.actor, await call.tenant_scope(at_least=high))
    page: dict[str, Any] = {"items": [], "next_cursor": None, "position": end}
    # A search ends when its client goes away.
    if query.get("count", False):
        page |= await while_awaited(call.receive, count_of_events(call.context, view, query, low=low, high=high))
    if (cursor := query.get("cursor")) is not None:
        at = _cursor(cursor)
        must_be_of_this_log(end, at)
        low, high = (low, min(high, at - 1)) if is_falling else (max(low, at), high)
    found = page_of_events(call.context, view, query, low=low, high=high, is_falling=is_falling)
    page |= await while_awaited(call.receive, found)
    return await page_reply(call, page, query)


async def _position(call: Call, given: Moment | None, otherwise: int) -> int:
    if given is None:
        return otherwise
    if given.position is not None:
        return given.position
    assert given.at is not None
    return await asyncio.to_thread(call.context.log.position_at, given.at)


def _is_falling(query: dict[str, Any]) -> bool:
    sort: str = query.get("sort", "position")
    if sort not in ("position", "-position"):
        raise Validation([{"field": "query:sort", "message": "must be position or -position"}])
    return sort.startswith("-")


def _cursor(given: str) -> int:
    try:
        return int(whole(0, POSITION_MAX)(given))
    except ValueError:
        raise Validation([{"field": "query:cursor", "message": "is not a cursor of this list"}]) from None


async def _stream(call: Call) -> Answerable:
    if call.context.tail.is_full:
        raise Unavailable()
    query = call.query()
    after = query.get("after")
    if raw := call.headers.get(b"last-event-id", b"").strip():  # empty means absent, as in HTML's standard
        try:
            after = moment(raw.decode("latin-1"))
        except ValueError as error:
            raise Validation([{"field": "header:Last-Event-ID", "message": str(error)}]) from None
    position = await _position(call, after, call.context.tail.position)
    if position > call.context.tail.position:  # which may be behind the log, for a moment
        must_be_of_this_log(await asyncio.to_thread(call.context.log.end), position)
    view = EventView(call.context, call.actor, await call.tenant_scope())
    return EventStream(call, view, position, is_named=query.get("named", True))


async def _history(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    kind, name = call.path["kind"], call.path["name"]
    if kind not in BY_NAME:
        raise NotFound("kind", kind[:100])
    if not may_read(call.actor.role, kind):
        raise Forbidden(f"{kind}.read")
    stream = f"{kind}/{name}"
    if "\0" in stream:
        raise NotFound(kind, name[:253].replace("\0", ""))
    end = await asyncio.to_thread(call.context.log.end)
    after = _cursor(query["cursor"]) if "cursor" in query else None
    must_be_of_this_log(end, after or 0)
    page = await while_awaited(
        call.receive,
        page_of_changes(
            call,
            stream,
            end=end,
            after=after,
            limit=query.get("limit", LIMIT_DEFAULT),
            is_falling=_is_falling(query),
            is_counted=query.get("count", False),
        ),
    )
    if page is None:
        raise await missing(call, kind, name)
    return await page_reply(call, page, query)


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/events",
        name="list_events",
        summary="The log itself",
        handle=_list,
        roles=READERS,
        permission="event.read",
        parameters=declared(
            AFTER, UNTIL, STREAM, TOPIC, SEARCH, LIMIT, CURSOR, BY_POSITION, COUNT, EXCEL, MIN_POSITION
        ),
        answer="EventList",
        refusals=(401, 403, 409, 422, 503),
        budget=SCANS,
    ),
    Endpoint(
        method="GET",
        path="/v1/events/stream",
        name="stream_events",
        summary="The log, live (server-sent events)",
        handle=_stream,
        roles=READERS,
        permission="event.read",
        parameters=declared(AFTER, NAMED),
        headers=("Last-Event-ID",),
        answer_type="text/event-stream",
        refusals=(401, 403, 409, 422, 503),
        budget=LISTENERS,
    ),
    Endpoint(
        method="GET",
        path="/v1/history/{kind}/{name:path}",
        name="get_history",
        summary="A resource's changes, each with its before and after",
        handle=_history,
        roles=READERS,
        permission="history.read",
        parameters=declared(LIMIT, CURSOR, BY_POSITION, COUNT, EXCEL, MIN_POSITION),
        answer="ChangeList",
        refusals=(401, 403, 404, 409, 422, 503),
        budget=SCANS,
    ),
)
