"""Pages of a resource's history: its stream is folded from the beginning, in portions, and only the page is kept."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

import msgspec

from api import redaction
from api.endpoint import Call
from api.event_view import EventView
from api.reply import encode
from api.tenant_scope import TenantScope
from domain.values import from_rfc3339, kind_of, name_of
from eventlog.codec import Row, time_of
from eventlog.read import is_cut
from projections.history import StreamHistory

PORTION_EVENTS = 500
PAGE_BYTES_MAX = 8 * 1024 * 1024


class _Item(NamedTuple):
    position: int
    json: msgspec.Raw


async def page_of_changes(
    call: Call, stream: str, *, end: int, after: int | None, limit: int, is_falling: bool, is_counted: bool
) -> dict[str, Any] | None:
    """A list's page, of the changes after a position, or falling before it; None if the actor sees none at all."""
    scope = await call.tenant_scope(at_least=end)
    changes, kind = StreamHistory(), kind_of(stream)
    items: deque[_Item] = deque()
    size, count, has_more = 0, 0, False

    async def look(row: Row) -> _Item | None:
        change = changes.of(row)
        if after is not None and (row.position >= after if is_falling else row.position <= after):
            return None
        return _Item(row.position, msgspec.Raw(encode(change if scope is None else _redacted(kind, change, scope))))

    async for rows in _seen(call, stream, end=end, scope=scope):
        count += len(rows)
        rest = iter(rows)
        while made := await call.context.tail.turns.take(rest, look):
            for item in filter(None, made):
                is_full = len(items) == limit or size > PAGE_BYTES_MAX
                has_more = has_more or is_full
                if is_full and not is_falling:
                    continue
                items.append(item)
                size += len(item.json)
                while is_falling and (len(items) > limit or (size > PAGE_BYTES_MAX and len(items) > 1)):
                    size -= len(items.popleft().json)
                    has_more = True
        if has_more and not (is_falling or is_counted):
            break
    if count == 0:
        return None
    if is_falling:
        items.reverse()
    following = str(items[-1].position) if has_more and items else None
    page: dict[str, Any] = {"items": [item.json for item in items], "next_cursor": following, "position": end}
    return {**page, "count": count} if is_counted else page


async def _seen(call: Call, stream: str, *, end: int, scope: TenantScope | None) -> AsyncIterator[list[Row]]:
    """A stream's events since who bears its name today has borne it, in portions."""
    log = call.context.log
    low, view = 0, EventView(call.context, call.actor, scope)
    is_of_group = False
    if scope is not None and kind_of(stream) == "group" and (life := scope.groups.get(name_of(stream))) is not None:
        begins = await asyncio.to_thread(
            partial(log.portion, 0, end, limit=PORTION_EVENTS, stream=stream, topic=CREATED)
        )
        starts = [row.position for row in begins if time_of(row) == life.began_at]
        if not starts:
            return
        is_of_group, low = True, starts[-1] - 1
    while low < end:
        rows = await asyncio.to_thread(partial(log.portion, low, end, limit=PORTION_EVENTS, stream=stream))
        low = rows[-1].position if is_cut(rows, limit=PORTION_EVENTS) else end
        yield rows if scope is None or is_of_group else [row for row in rows if await view.sees(row)]


CREATED = "group.created"


def _redacted(kind: str, change: dict[str, Any], scope: TenantScope) -> dict[str, Any]:
    at = from_rfc3339(change["at"])
    sides = {
        side: change[side] and redaction.resource(kind, change[side], scope, at=at) for side in ("before", "after")
    }
    return {**change, **sides}
