"""The log itself: in pages, live, and a resource's history."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import structlog

from api.auth import ADMIN, VIEWER, must_be_one_of
from api.awaited import disconnected, while_awaited
from api.budget import LISTENERS, SCANS
from api.context import Context
from api.endpoint import Call, Endpoint, declared
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
from api.reply import Answerable, encode
from api.schemas import ALL_TOPICS
from domain.errors import NotFound, Unavailable, Validation
from domain.kinds import BY_NAME
from eventlog.codec import Row
from eventlog.read import is_cut
from eventlog.tasks import end_tasks
from projections.field_types import enum
from projections.words import folded, is_in

# A page ends, with a cursor to go on from, and a count with `count_truncated`, when so many positions were passed, or
# so many events read: those of the topic that was asked for, and all where words or a scope must be looked for in them.
SCANNED_EVENTS_MAX = 100_000
READ_EVENTS_MAX = 20_000
PAGE_BYTES_MAX = 8 * 1024 * 1024
PORTION_EVENTS = 500
WINDOW_EVENTS = 10_000  # positions that one query passes at most
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
TOPIC = Parameter("topic", "Only events of this topic, such as vm.scheduled", one_of(*ALL_TOPICS), enum(*ALL_TOPICS))


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
    # Nobody looks for what nobody awaits any more.
    if query.get("count", False):
        page |= await while_awaited(call.receive, _count(call, view, query, low=low, high=high))
    if (cursor := query.get("cursor")) is not None:
        at = _cursor(cursor)
        must_be_of_this_log(end, at)
        low, high = (low, min(high, at - 1)) if is_falling else (max(low, at), high)
    page |= await while_awaited(call.receive, _page(call, view, query, low=low, high=high, is_falling=is_falling))
    return await page_reply(call, page, query)


async def _page(
    call: Call, view: EventView, query: dict[str, Any], *, low: int, high: int, is_falling: bool
) -> dict[str, Any]:
    """`items` from the beginning on, and `next_cursor`: the last position that was looked at, if there are more."""
    limit: int = query.get("limit", LIMIT_DEFAULT)
    items: list[dict[str, Any]] = []
    last, size = 0, 0
    async for found, reached in _looked_at(call, view, query, low=low, high=high, is_falling=is_falling):
        for row, document in found:
            if len(items) == limit or size > PAGE_BYTES_MAX:
                return {"items": items, "next_cursor": str(last)}
            last = row.position
            if document is not None:
                items.append(document)
                size += len(row.state)
        if reached is not None:
            return {"items": items, "next_cursor": str(reached)}
    return {"items": items, "next_cursor": None}


async def _count(call: Call, view: EventView, query: dict[str, Any], *, low: int, high: int) -> dict[str, Any]:
    """`count`. Positions have no gaps, so all is counted at no cost; what is narrowed down is looked through, as far as
    for a page: `count_truncated` says that there may be more."""
    if view.is_whole and not {"topic", "stream", "q"} & query.keys():
        return {"count": max(0, high - low)}
    count = 0
    async for found, reached in _looked_at(call, view, query, low=low, high=high):
        count += sum(document is not None for _, document in found)
        if reached is not None:
            return {"count": count, "count_truncated": True}
    return {"count": count}


Found = list[tuple[Row, dict[str, Any] | None]]


async def _looked_at(
    call: Call, view: EventView, query: dict[str, Any], *, low: int, high: int, is_falling: bool = False
) -> AsyncIterator[tuple[Found, int | None]]:
    """Rows after `low` up to `high`, each with its event if that is asked for and the actor may see it. With the last
    of them, where the look ended, if that was before its end."""
    words = folded(query.get("q", ""))
    is_narrow = not view.is_whole or "topic" in query or bool(words)
    limit = PORTION_EVENTS if is_narrow else min(PORTION_EVENTS, query.get("limit", LIMIT_DEFAULT) + 1)

    async def look(row: Row) -> tuple[Row, dict[str, Any] | None]:
        document = await view.shown(row)
        if words and document is not None and not is_in(words, document):
            document = None
        return row, document

    read, began = 0, high if is_falling else low
    async for rows, reached in _portions(call.context, query, low=low, high=high, is_falling=is_falling, limit=limit):
        rest = iter(rows)
        while found := await call.context.tail.turns.take(rest, look):
            yield found, None
        read += len(rows)
        is_over = reached <= low + 1 if is_falling else reached >= high
        if not is_over and (read >= READ_EVENTS_MAX or abs(reached - began) >= SCANNED_EVENTS_MAX):
            yield [], reached
            return


async def _portions(
    context: Context, query: dict[str, Any], *, low: int, high: int, is_falling: bool, limit: int
) -> AsyncIterator[tuple[list[Row], int]]:
    """Rows of the stream and topic that are asked for, and the last position that was looked at for each portion."""
    stream, topic = query.get("stream"), query.get("topic")
    while low < high:
        first, last = low, high
        if stream is None:  # positions have no gaps
            first, last = (
                (max(low, high - WINDOW_EVENTS), high) if is_falling else (low, min(high, low + WINDOW_EVENTS))
            )
        read = partial(context.log.portion, first, last, limit=limit, is_falling=is_falling, stream=stream, topic=topic)
        rows = await asyncio.to_thread(read)
        reached = first + 1 if is_falling else last
        if is_cut(rows, limit=limit):
            reached = rows[-1].position
        yield rows, reached
        low, high = (low, reached - 1) if is_falling else (reached, high)


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
    """Server-sent events until the client goes, its token ends, it is too slow, or the process stops.

    One that is dropped has the ids of what it got, and comes back with the last of them.
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
        if self._dropped.is_set() and not self._call.context.tail.is_ending:
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

        async def comment() -> None:
            nonlocal commented_at
            if loop.time() - commented_at >= COMMENT_EVERY_S:
                await write(b": still here\n\n")
                commented_at = loop.time()

        async with contextlib.aclosing(context.tail.read(self._after, dropped=self._dropped)) as portions:
            async for rows in portions:
                if not context.tokens.still_good(self._call.token):
                    return
                rest = iter(rows)
                while found := await context.tail.turns.take(rest, self._frame):
                    # Outside of the turn: a client may take its time.
                    if frames := [frame for frame, _ in found if frame]:
                        await write(b"".join(frames))
                    self._written = found[-1][1]
                    await comment()
                await comment()

    async def _frame(self, row: Row) -> tuple[bytes, int]:
        document = await self._view.shown(row)
        return frame(row, document, is_named=self._is_named) if document is not None else b"", row.position


def frame(row: Row, document: dict[str, Any], *, is_named: bool) -> bytes:
    name = b"event: %s\n" % row.topic.encode() if is_named else b""
    return b"id: %d\n%sdata: %s\n\n" % (row.position, name, encode(document))


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
    view = EventView(call.context, call.actor, await call.sight())
    return EventStream(call, view, position, is_named=query.get("named", True))


async def _history(call: Call) -> Answerable:
    query = call.query()
    await at_least(call, query)
    kind, name = call.path["kind"], call.path["name"]
    if kind not in BY_NAME:
        raise NotFound("kind", kind[:100])
    if kind == "token":
        must_be_one_of(ADMIN, call.actor, permission="token.read")
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
        roles=VIEWER,
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
        name="get_history",
        summary="A resource's changes, each with its before and after",
        handle=_history,
        roles=VIEWER,
        permission="history.read",
        parameters=declared(LIMIT, CURSOR, BY_POSITION, COUNT, EXCEL, MIN_POSITION),
        answer="ChangeList",
        refusals=(401, 403, 404, 409, 422, 503),
        budget=SCANS,
    ),
)
