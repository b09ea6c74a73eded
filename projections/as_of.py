"""Pages of the past: rows that a process of the past makes over its folded fleet, and what had ended by then and is
still listed; put together as `queries.py` does it for the present.

    as_of ──┬── past ──► rows of the fleet ─────────┬──► in order, cut to a page, with its cursor
            └── read model ──► rows that have ended ┘

A page has the position that it was asked for. Cursors are those of the present's lists, and good for these.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from domain.values import from_rfc3339
from projections import capacity, cursors, lists
from projections.cursors import Cursor
from projections.listing import COUNT_MAX, CapacityQuery, ListQuery, Order, Portion, ScopeThen
from projections.queries import LIST_MAX, PAGE_BYTES_MAX, ReadModel, given_of, must_be_limit

Row = tuple[Any, Any, msgspec.Raw]  # sort value, key, document
Ask = Callable[[tuple[Any, Any] | None, int], Awaitable[Portion]]  # after what, how many at most


class Past(Protocol):
    async def list_(self, query: ListQuery, *, as_of: int) -> Portion: ...

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion: ...


async def list_as_of(
    model: ReadModel,
    past: Past,
    kind: str,
    *,
    as_of: int,
    filters: Mapping[str, Any] | None = None,
    sort: str = "name",
    cursor: str | None = None,
    limit: int = 100,
    q: str | None = None,
    labels: Sequence[str] = (),
    count: bool = False,
    scope: ScopeThen | None = None,
) -> dict[str, Any]:
    """What `ReadModel.list_` answered at `as_of`, a command's end.

    Raises:
        ValueError: an unknown filter or sort, a value that can't be, a cursor of another list; says which.
        Unavailable: the past can't be asked, or did not answer in time.
    """
    given = given_of(filters)
    must_be_limit(limit)
    root = scope.root if scope is not None else None
    of = cursors.asked(kind, given, sort, q, list(labels), root)
    after = cursors.decode(cursor, of=of) if cursor is not None else None
    more: dict[str, Any] = {"filters": given, "sort": sort, "after": after, "limit": limit, "q": q}
    question = lists.several(kind, **more, labels=labels, scope=root, count=count, ended_by=as_of)
    if isinstance(since := given.get("updated_since"), str):
        given["updated_since"] = from_rfc3339(since)
    query = ListQuery(kind=kind, filters=given, sort=sort, q=q, labels=list(labels), count=count, scope=scope)

    async def ask(after: tuple[Any, Any] | None, limit: int) -> Portion:
        return await past.list_(replace(query, after=after, limit=limit), as_of=as_of)

    found = await _gathered(ask, after=(after.value, after.key) if after is not None else None, limit=limit)
    if lists.has_ended(kind):
        ended = await model.ended(question, kind, limit=limit, scope=root)
        found = _merged(found, ended, order=lists.order_of(kind, sort), limit=limit)
    return _page(found, of=of, position=as_of)


async def capacity_as_of(
    model: ReadModel,
    past: Past,
    by: str,
    *,
    as_of: int,
    filters: Mapping[str, Any] | None = None,
    sort: str = "name",
    cursor: str | None = None,
    limit: int = LIST_MAX,
    q: str | None = None,
    count: bool = False,
    scope: ScopeThen | None = None,
) -> dict[str, Any]:
    """What `ReadModel.capacity` answered at `as_of`, a command's end.

    Raises:
        ValueError, Forbidden: as there.
        Unavailable: the past can't be asked, or did not answer in time.
    """
    given = given_of(filters)
    must_be_limit(limit)
    root = scope.root if scope is not None else None
    capacity.must_be_answered(by, given, sort=sort, scope=root)
    of = cursors.asked("capacity", by, given, sort, q, root)
    after = capacity.after(by, sort, cursors.decode(cursor, of=of)) if cursor is not None else None
    query = CapacityQuery(by=by, filters=given, sort=sort, q=q, count=count, scope=scope)

    async def ask(after: tuple[Any, Any] | None, limit: int) -> Portion:
        return await past.capacity(replace(query, after=after, limit=limit), as_of=as_of)

    return _page(await _gathered(ask, after=after, limit=limit), of=of, position=as_of)


async def _gathered(ask: Ask, *, after: tuple[Any, Any] | None, limit: int) -> Portion:
    """A page's rows, of as many portions as it takes: at one position they fit together."""
    found = await ask(after, limit)
    rows, count, more = found.rows, found.count, found.more
    while more and len(rows) < limit and _bytes(rows) < PAGE_BYTES_MAX:
        found = await ask(rows[-1][:2], limit - len(rows))
        rows, more = rows + found.rows, found.more
    return Portion(rows, more, count)


def _merged(living: Portion, ended: Portion, *, order: Order, limit: int) -> Portion:
    """Both in one order, up to the last row of whichever has more to come; at most `limit`."""
    rows: list[Row] = order.sorted([*living.rows, *ended.rows])
    known = min(
        (rows.index(part.rows[-1]) + 1 for part in (living, ended) if part.more and part.rows), default=len(rows)
    )
    shown = rows[: min(known, limit)]
    count = living.count + ended.count if living.count is not None and ended.count is not None else None
    return Portion(shown, living.more or ended.more or len(shown) < len(rows), count)


def _page(found: Portion, *, of: str, position: int) -> dict[str, Any]:
    following = cursors.encode(Cursor(of, *found.rows[-1][:2])) if found.more and found.rows else None
    answer: dict[str, Any] = {
        "items": [document for _, _, document in found.rows],
        "next_cursor": following,
        "position": position,
    }
    if found.count is None:
        return answer
    is_cut = found.count > COUNT_MAX
    return answer | ({"count": COUNT_MAX, "count_truncated": True} if is_cut else {"count": found.count})


def _bytes(rows: Sequence[Row]) -> int:
    return sum(len(document) for _, _, document in rows)
