"""Looking through the log for the events that are asked for, as far as one answer may go."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from api.context import Context
from api.event_view import EventView
from api.parameters import LIMIT_DEFAULT
from eventlog.codec import Row
from eventlog.read import is_cut
from projections.words import folded, is_in

# A page ends with a cursor, and a count with `count_truncated`, after so many positions, or after so many events that
# had to be read: those of the topic that is asked for, or all where words or a scope are looked up in each.
SCANNED_EVENTS_MAX = 100_000
READ_EVENTS_MAX = 20_000
PAGE_BYTES_MAX = 8 * 1024 * 1024
PORTION_EVENTS = 500
WINDOW_EVENTS = 10_000  # positions that one query passes at most


async def page_of_events(
    context: Context, view: EventView, query: dict[str, Any], *, low: int, high: int, is_falling: bool
) -> dict[str, Any]:
    """`items`, and `next_cursor`: the last position that was searched, if there are more."""
    limit: int = query.get("limit", LIMIT_DEFAULT)
    items: list[dict[str, Any]] = []
    last, size = 0, 0
    async for found, reached in _matching(context, view, query, low=low, high=high, is_falling=is_falling):
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


async def count_of_events(
    context: Context, view: EventView, query: dict[str, Any], *, low: int, high: int
) -> dict[str, Any]:
    """`count`. Without a filter it costs nothing, as positions have no gaps; with one, the log is searched as far as
    for a page, and `count_truncated` says that there may be more."""
    if view.is_whole and not {"topic", "stream", "q"} & query.keys():
        return {"count": max(0, high - low)}
    count = 0
    async for found, reached in _matching(context, view, query, low=low, high=high):
        count += sum(document is not None for _, document in found)
        if reached is not None:
            return {"count": count, "count_truncated": True}
    return {"count": count}


Found = list[tuple[Row, dict[str, Any] | None]]


async def _matching(
    context: Context, view: EventView, query: dict[str, Any], *, low: int, high: int, is_falling: bool = False
) -> AsyncIterator[tuple[Found, int | None]]:
    """Rows after `low` up to `high`, each with its event, or None where that does not match or may not be read. The
    last item has the position at which the search stopped, if that was before the end."""
    words = folded(query.get("q", ""))
    is_narrow = not view.is_whole or "topic" in query or bool(words)
    limit = PORTION_EVENTS if is_narrow else min(PORTION_EVENTS, query.get("limit", LIMIT_DEFAULT) + 1)

    async def matched(row: Row) -> tuple[Row, dict[str, Any] | None]:
        document = await view.shown(row)
        if words and document is not None and not is_in(words, document):
            document = None
        return row, document

    read, began = 0, high if is_falling else low
    async for rows, reached in _portions(context, query, low=low, high=high, is_falling=is_falling, limit=limit):
        rest = iter(rows)
        while found := await context.tail.turns.take(rest, matched):
            yield found, None
        read += len(rows)
        is_over = reached <= low + 1 if is_falling else reached >= high
        if not is_over and (read >= READ_EVENTS_MAX or abs(reached - began) >= SCANNED_EVENTS_MAX):
            yield [], reached
            return


async def _portions(
    context: Context, query: dict[str, Any], *, low: int, high: int, is_falling: bool, limit: int
) -> AsyncIterator[tuple[list[Row], int]]:
    """Rows of the stream and topic that are asked for; with each portion the last position that it covers."""
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
