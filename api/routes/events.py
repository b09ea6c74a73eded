"""The log itself: in pages, live, and a resource's history."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import structlog

from api import scope
from api.auth import ADMIN, VIEWER, must_be_one_of
from api.awaited import disconnected
from api.budget import LISTENERS, SCANS
from api.context import Context
from api.endpoint import Call, Endpoint, declared
from api.event_view import EventView
from api.parameters import (
    COUNT,
    CURSOR,
    EXCEL,
    LIMIT,
    LIMIT_DEFAULT,
    MIN_POSITION,
    MOMENT,
    POSITION_MAX,
    SEARCH,
    SORT,
    STRING,
    Moment,
    Parameter,
    moment,
    one_of,
    text,
    whole,
)
from api.reading import SCHEMA_OF, at_least, missing, must_be_of_this_log, page_reply
from api.reply import Answerable, encode
from api.sight import Sight
from domain.errors import NotFound, Unavailable, Validation
from domain.values import from_rfc3339, kind_of, name_of
from eventlog.codec import Row, time_of
from eventlog.tasks import end_tasks
from projections.history import history
from projections.words import folded, is_in

PAGE_EVENTS = 4_000
SCANNED_EVENTS_MAX = 100_000  # a page of a rare topic ends here, with a cursor to go on from
COMMENT_EVERY_S = 14.0  # looked at each second, so that no 15 s pass without one
END_S_MAX = 1.0

log = structlog.get_logger()

AFTER = Parameter("after", "Only events after this position or time", moment, MOMENT)
UNTIL = Parameter("until", "Only events up to this position or time", moment, MOMENT)
STREAM = Parameter("stream", "Only events of this stream, such as vm/acme/web-1", text, STRING)
NAMED = Parameter(
    "named",
    "0: events without a name, which EventSource gives to `onmessage`; the topic is in their data",
    lambda value: one_of("0", "1")(value) == "1",
    {"enum": ["0", "1"], "default": "1"},
)
TOPIC = Parameter("topic", "Only events of this topic, such as vm.scheduled", text, STRING)


async def _list(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    log = call.context.log
    end = await asyncio.to_thread(log.end)
    low, high = await _position(call, query.get("after"), 0), await _position(call, query.get("until"), end)
    must_be_of_this_log(end, low, high)
    is_falling = _is_falling(query)
    view = EventView(call.context, call.actor, await call.sight(at_least=high))
    page: dict[str, Any] = {"items": [], "next_cursor": None, "position": end}
    if query.get("count", False):
        page["count"] = await _count(call, view, query, low=low, high=high)
    if (cursor := query.get("cursor")) is not None:
        at = _cursor(cursor)
        must_be_of_this_log(end, at)
        low, high = (low, min(high, at - 1)) if is_falling else (max(low, at), high)
    limit: int = query.get("limit", LIMIT_DEFAULT)
    last, scanned = 0, 0
    async for row, document in _looked_at(call, view, query, low=low, high=high, is_falling=is_falling):
        if len(page["items"]) == limit or scanned == SCANNED_EVENTS_MAX:
            page["next_cursor"] = str(last)
            break
        last, scanned = row.position, scanned + 1
        if document is not None:
            page["items"].append(document)
    return await page_reply(call, page, query)


async def _count(call: Call, view: EventView, query: dict[str, Any], *, low: int, high: int) -> int:
    """Positions have no gaps, so all is counted at no cost; what is narrowed down is looked through, as often as asked
    for."""
    if view.is_whole and not {"topic", "stream", "q"} & query.keys():
        return max(0, high - low)
    looked_at = _looked_at(call, view, query, low=low, high=high)
    return len([None async for _, document in looked_at if document is not None])


async def _looked_at(
    call: Call, view: EventView, query: dict[str, Any], *, low: int, high: int, is_falling: bool = False
) -> AsyncIterator[tuple[Row, dict[str, Any] | None]]:
    """Each row after `low` up to `high`, with its event if that is asked for and the actor may see it."""
    topic, words = query.get("topic"), folded(query.get("q", ""))
    is_narrow = not view.is_whole or topic is not None or bool(words)
    portion = PAGE_EVENTS if is_narrow else query.get("limit", LIMIT_DEFAULT) + 1
    stream = query.get("stream")
    async for row in _rows(call.context, stream, low=low, high=high, is_falling=is_falling, portion=portion):
        document = await view.shown(row) if topic is None or row.topic == topic else None
        if words and document is not None and not is_in(words, document):
            document = None
        yield row, document


async def _rows(
    context: Context, stream: str | None, *, low: int, high: int, is_falling: bool, portion: int
) -> AsyncIterator[Row]:
    """Rows after `low` up to `high`, in portions. Positions have no gaps, so that a page can be read backwards too."""
    log = context.log
    if stream is not None:
        # Only a command's stream has versions that are not positions, and it has one event.
        first = 0 if is_falling or stream.startswith("command/") else low
        while found := await asyncio.to_thread(
            partial(log.stream, stream, after=first, limit=None if is_falling else PAGE_EVENTS)
        ):
            for row in reversed(found) if is_falling else found:
                if low < row.position <= high:
                    yield row
            if is_falling or len(found) < PAGE_EVENTS:
                return
            first = found[-1].version
        return
    while low < high:
        first = max(low, high - portion) if is_falling else low
        page = await asyncio.to_thread(log.page, first, min(portion, high - first))
        if not page:
            return
        for row in reversed(page) if is_falling else page:
            yield row
        if is_falling:
            high = first
        else:
            low = page[-1].position


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
        raise Validation([{"field": "query:cursor", "message": "is not one that was given out"}]) from None


class EventStream:
    """Server-sent events until the client goes, its token ends, or it is too slow.

    One that is too slow has the ids of what it got, and comes back with the last of them.
    """

    status = 200

    def __init__(self, call: Call, view: EventView, after: int, *, is_named: bool) -> None:
        self._call = call
        self._is_named = is_named
        self._view = view
        self._after = after
        self._written = after
        self._dropped = asyncio.Event()

    async def send(self, receive: Any, send: Any) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._call.scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.create_task(disconnected(receive))
        writing = asyncio.create_task(self._write(send))
        dropped = asyncio.create_task(self._dropped.wait())
        try:
            await asyncio.wait((gone, writing, dropped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(gone, writing, dropped)
        if not writing.cancelled() and (failed := writing.exception()) is not None and not isinstance(failed, OSError):
            raise failed
        if self._dropped.is_set():
            log.warning("slow listener dropped", actor=self._call.actor.name, position=self._written)
        with contextlib.suppress(TimeoutError):
            # One that is slow sees an end; one that takes nothing would be waited for in vain, and is cut off.
            async with asyncio.timeout(END_S_MAX):
                await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Any) -> None:
        loop = asyncio.get_running_loop()

        async def write(text: bytes) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": True})

        await write(b"retry: 1000\n: from %d\n\n" % self._after)
        commented_at = loop.time()
        context = self._call.context
        async with contextlib.aclosing(context.tail.read(self._after, dropped=self._dropped)) as events:
            async for event in events:
                if not context.tokens.still_good(self._call.token):
                    return
                if event is not None and (document := await self._view.shown(event[0])) is not None:
                    await write(frame(event[0], document, is_named=self._is_named))
                    self._written = event[0].position
                if loop.time() - commented_at >= COMMENT_EVERY_S:
                    await write(b": still here\n\n")
                    commented_at = loop.time()


def frame(row: Row, document: dict[str, Any], *, is_named: bool) -> bytes:
    name = b"event: %s\n" % row.topic.encode() if is_named else b""
    return b"id: %d\n%sdata: %s\n\n" % (row.position, name, encode(document))


async def _stream(call: Call) -> Answerable:
    if call.context.tail.is_full:
        raise Unavailable()
    query = call.query()
    after = query.get("after")
    if (raw := call.headers.get(b"last-event-id")) is not None:
        try:
            after = moment(raw.decode("latin-1").strip())
        except ValueError as error:
            raise Validation([{"field": "header:Last-Event-ID", "message": str(error)}]) from None
    position = await _position(call, after, call.context.tail.position)
    if position > call.context.tail.position:  # which may be behind the log, for a moment
        must_be_of_this_log(await asyncio.to_thread(call.context.log.end), position)
    view = EventView(call.context, call.actor, await call.sight())
    return EventStream(call, view, position, is_named=query.get("named", True))


async def _history(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    kind, name = call.path["kind"], call.path["name"]
    if kind not in SCHEMA_OF:
        raise NotFound("kind", kind[:100])
    if kind == "token":
        must_be_one_of(ADMIN, call.actor, permission="token.read")
    stream = f"{kind}/{name}"
    if "\0" in stream:
        raise NotFound(kind, name[:253].replace("\0", ""))
    end = await asyncio.to_thread(call.context.log.end)
    rows = await asyncio.to_thread(call.context.log.stream, stream)
    sight = await call.sight(at_least=end)
    if sight is not None:
        rows = await _seen(call, rows, sight)
    if not rows:
        raise await missing(call, kind, name)
    changes = await asyncio.to_thread(history, rows)
    is_falling = _is_falling(query)
    after = _cursor(query["cursor"]) if "cursor" in query else None
    must_be_of_this_log(end, after or 0)
    rest = [
        change
        for change in (reversed(changes) if is_falling else changes)
        if after is None or (change["position"] < after if is_falling else change["position"] > after)
    ]
    limit: int = query.get("limit", LIMIT_DEFAULT)
    items = rest[:limit]
    if sight is not None:
        items = [_change(kind, change, sight) for change in items]
    following = str(items[-1]["position"]) if len(rest) > limit else None
    page: dict[str, Any] = {"items": items, "next_cursor": following, "position": end}
    return await page_reply(call, {**page, "count": len(changes)} if query.get("count", False) else page, query)


async def _seen(call: Call, rows: list[Row], sight: Sight) -> list[Row]:
    """A stream's events since who bears its name today has borne it."""
    if rows and (life := sight.groups.get(name_of(rows[0].stream))) is not None and kind_of(rows[0].stream) == "group":
        starts = [n for n, row in enumerate(rows) if row.topic == "group.created" and time_of(row) == life.began_at]
        return rows[starts[-1] :] if starts else []
    view = EventView(call.context, call.actor, sight)
    return [row for row in rows if await view.sees(row)]


def _change(kind: str, change: dict[str, Any], sight: Sight) -> dict[str, Any]:
    at = from_rfc3339(change["at"])
    sides = {side: change[side] and scope.resource(kind, change[side], sight, at=at) for side in ("before", "after")}
    return {**change, **sides}


ENDPOINTS = (
    Endpoint(
        method="GET",
        path="/v1/events",
        summary="The log itself",
        handle=_list,
        roles=VIEWER,
        permission="event.read",
        parameters=declared(AFTER, UNTIL, STREAM, TOPIC, SEARCH, LIMIT, CURSOR, SORT, COUNT, EXCEL, MIN_POSITION),
        answer="EventList",
        refusals=(401, 403, 409, 422, 503),
        budget=SCANS,
    ),
    Endpoint(
        method="GET",
        path="/v1/events/stream",
        summary="The log, live (server-sent events)",
        handle=_stream,
        roles=VIEWER,
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
        summary="A resource's changes, each with its before and after",
        handle=_history,
        roles=VIEWER,
        permission="history.read",
        parameters=declared(LIMIT, CURSOR, SORT, COUNT, EXCEL, MIN_POSITION),
        answer="ChangeList",
        refusals=(401, 403, 404, 409, 422, 503),
        budget=SCANS,
    ),
)
