"""Reads over HTTP: lists and single resources of every kind, from the read model or, `as_of`, from the past."""

import asyncio
import difflib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from api import redaction
from api.accept import is_table
from api.awaited import while_awaited
from api.csv_rows import CsvReply, columns, has_amounts, with_columns
from api.endpoint import Call, Endpoint, declared
from api.parameters import (
    AS_OF,
    CLASSES,
    COUNT,
    CURSOR,
    EXCEL,
    LABEL,
    LIMIT,
    LIMIT_DEFAULT,
    MIN_POSITION,
    SEARCH,
    SORT,
    Moment,
    Parameter,
    by_schema,
    names_in,
    one_of,
)
from api.problems import NotThereYet
from api.reply import Answerable, Headers, Reply, encode, json_reply
from api.schemas import SCHEMAS, sorts
from domain.errors import Conflict, NotFound, Unavailable, Validation
from domain.kind import Kind
from domain.kinds import BY_NAME
from domain.values import COUNTS as COUNTED
from projections.as_of import list_as_of
from projections.field_types import enum
from projections.listing import ScopeThen
from projections.lists import must_sort
from projections.queries import decoded
from projections.view import View

NAMES_COMPARED_MAX = 100
WITH_COUNTS = ("QuotaList", "CapacityList")  # whose amounts are limits: of VMs and hosts, too


class _Versioned(msgspec.Struct):
    version: int


_versioned = msgspec.json.Decoder(_Versioned).decode


def listing(view: View[Any], path: str, *, within: str | None = None) -> Endpoint:
    """The list of a kind; `within` is a path parameter that is a filter, and the name of a kind that must exist."""
    kind = view.kind
    filters = {one.name: one for one in filters_of(view) if one.name != within}
    paging = (LIMIT, CURSOR, _sort_of(view), COUNT)
    of_tables = (EXCEL, CLASSES) if has_amounts(SCHEMAS[view.title], SCHEMAS) else (EXCEL,)

    async def handle(call: Call) -> Answerable:
        query = call.query()
        await at_least(call, query)
        sort = query.get("sort", "name")
        _must_sort(kind.name, sort, call)
        asked = {name: value for name, value in query.items() if name in filters}
        if within is not None:
            asked[within] = call.path[within]
            await found(call, within, (call.path[within],), query)
        paged = {
            "filters": asked,
            "q": query.get("q"),
            "labels": [f"{key}={value}" for key, value in query.get("label", ())],
            "sort": sort,
            "cursor": query.get("cursor"),
            "limit": query.get("limit", LIMIT_DEFAULT),
            "count": query.get("count", False),
        }
        model, past = call.context.read_model, call.context.past
        try:
            if (moment := query.get("as_of")) is not None:
                then = await position_of(call, moment)
                scope = await scope_then(call, then)
                asking = list_as_of(model, past, kind.name, **paged, scope=scope, as_of=then)
                page = await while_awaited(call.receive, asking)
            else:
                page = await model.list_(kind.name, **paged, scope=call.actor.tenant)
        except ValueError as error:
            raise Validation([{"field": "query:cursor", "message": str(error)}]) from None
        return await page_reply(call, page, query)

    return Endpoint(
        method="GET",
        path=path,
        name=f"list_{within}_{kind.module}" if within is not None else f"list_{kind.module}",
        summary=f"List {kind.plural}",
        handle=handle,
        roles=view.readers,
        permission=f"{kind.name}.read",
        parameters=declared(*filters.values(), SEARCH, LABEL, *paging, *of_tables, MIN_POSITION, AS_OF),
        answer=f"{view.title}List",
        refusals=(401, 403, 404, 422, 503),
    )


def filters_of(view: View[Any]) -> tuple[Parameter, ...]:
    """The filters of a kind's list, but for free text and labels, which every list has."""
    states = tuple(state for state in view.kind.states if state not in view.kind.ended)
    of_state = Parameter("state", "Only those in this state", one_of(*states), enum(*states), repeatable=True)
    return (of_state, *(by_schema(one.name, one.description, one.schema) for one in view.all_filters()))


def _sort_of(view: View[Any]) -> Parameter:
    schema = sorts(*view.sorts())
    if view.amount_sorts is not None:
        amounts = {"type": "string", "pattern": "^-?[a-z][a-z0-9_]{0,62}_(available|used|capacity)$"}
        schema = {"anyOf": [schema, amounts]}
    return msgspec.structs.replace(SORT, schema=schema)


def single(view: View[Any]) -> Endpoint:
    """One resource, named by the path's parameters in their order."""
    kind = view.kind.name

    async def handle(call: Call) -> Answerable:
        query = call.query()
        names = tuple(call.path.values())
        document, position = await found(call, kind, names, query)
        tag = b'"%d"' % _versioned(document).version
        # The tag is for If-Match alone: sums and places of others change without it, so it can't spare a reading.
        return Reply(200, document, headers=((b"etag", tag), (b"berth-position", b"%d" % position)))

    return Endpoint(
        method="GET",
        path=view.kind.path,
        name=f"get_{kind}",
        summary=f"Read {'an' if kind[0] in 'aeiou' else 'a'} {kind}",
        handle=handle,
        roles=view.readers,
        permission=f"{kind}.read",
        parameters=declared(MIN_POSITION, AS_OF),
        answer=view.title,
        refusals=(401, 403, 404, 422, 503),
    )


async def found(call: Call, kind: str, names: tuple[str, ...], query: Mapping[str, Any]) -> tuple[bytes, int]:
    """The resource as the query's `min_position` and `as_of` ask for it, in JSON, and the position at which it is so.

    Raises:
        NotFound: it is not there, or not for this actor.
    """
    await at_least(call, query)
    model = call.context.read_model
    shown: bytes | None
    if (moment := query.get("as_of")) is not None:
        position = await position_of(call, moment)
        stream = f"{kind}/{'/'.join(names)}"
        document = None
        if position:
            asking = call.context.past.resource(stream, as_of=position)
            document = await while_awaited(call.receive, asking)
        if document is not None and call.actor.tenant is not None:
            at = await asyncio.to_thread(call.context.log.time_at, position)
            document = redaction.resource(kind, document, await call.tenant_scope(at_least=position), at=at)
        shown = encode(document) if document is not None else None
    else:
        shown, position = await model.one_at(kind, *names, scope=call.actor.tenant)
    if shown is None:
        call.position = position
        raise await missing(call, kind, "/".join(names))
    return shown, position


async def at_least(call: Call, query: Mapping[str, Any]) -> None:
    """Wait for what the read must show: what its token wrote, for a moment, and `min_position`.

    Raises:
        NotThereYet: `min_position` is not reached in 5 s.
    """
    if "as_of" not in query:
        await call.context.own_writes.wait_until_shown(call.actor.name, call.context.read_model)
    if wanted := query.get("min_position"):
        await _shown(call, wanted)


async def _shown(call: Call, position: int) -> None:
    model = call.context.read_model
    try:
        await model.wait_for(position)
    except Unavailable:
        end = await asyncio.to_thread(call.context.log.end)
        raise NotThereYet(wanted=position, shown=model.position, end=end) from None


def must_be_of_this_log(end: int, *positions: int) -> None:
    """A client's positions are from this log, which only grows: so none is beyond its end.

    Raises:
        Conflict: one is; it was another log's, or this one lost what it held (a backup was restored). Whoever went on
            from there would miss events without a word.
    """
    beyond = max(positions, default=0)
    if beyond > end:
        why = (
            f"The log ends at position {end}, before {beyond}: that position is of another log, or this one was"
            " restored from a backup. Read anew what there is, and go on from a position that this log has."
        )
        raise Conflict(why, f"position {beyond}")


async def position_of(call: Call, moment: Moment) -> int:
    """The end of the command that a position belongs to, or of the last one at or before a time.

    Raises:
        NotThereYet: the log did not get that far in time.
    """
    log = call.context.log
    if moment.at is not None:
        return await asyncio.to_thread(log.position_at, moment.at)
    assert moment.position is not None
    if moment.position > call.context.read_model.position:
        await _shown(call, moment.position)
    return await asyncio.to_thread(log.command_end, moment.position)


async def scope_then(call: Call, position: int) -> ScopeThen | None:
    """What of `position` the actor may read, by what it may read today; None: everything. Waits until the read model
    shows that position, too: what had ended by then is read from it."""
    await _shown(call, position)
    scope = await call.tenant_scope(at_least=position)
    if scope is None:
        return None
    tenants, groups = ({name: life.began_at for name, life in lives.items()} for lives in (scope.tenants, scope.groups))
    return ScopeThen(scope.root, tenants, groups)


async def page_reply(call: Call, page: Mapping[str, Any], query: Mapping[str, Any]) -> Answerable:
    """A list in the form that was asked for. CSV has no room for the cursor: the next page is in `Link`, with the
    classes that have columns, so that all pages have one header whatever is registered meanwhile."""
    headers: Headers = ((b"berth-position", b"%d" % page["position"]),)
    if not is_table(call.scope["headers"]):
        return json_reply(page, headers=headers)
    assert call.endpoint.answer is not None
    item = SCHEMAS[call.endpoint.answer]["properties"]["items"]["items"]
    classes = await _classes(call, query, position=page["position"]) if has_amounts(item, SCHEMAS) else None
    if page["next_cursor"] is not None:
        following = {"cursor": page["next_cursor"], **({"classes": ",".join(classes)} if classes is not None else {})}
        raw = call.scope["query_string"].decode("ascii")
        given_anew = {name.encode() for name in following}
        kept = [part for part in raw.split("&") if part and given_anew.isdisjoint(names_in(part.encode()))]
        link = f'<{quote(call.scope["path"])}?{"&".join([*kept, urlencode(following, safe=",")])}>; rel="next"'
        headers += ((b"link", link.encode()),)
    return CsvReply(
        page["items"],
        columns(item, SCHEMAS, classes=classes or ()),
        headers=headers,
        for_excel=query.get("excel", False),
        is_head=call.scope["method"] == "HEAD",
    )


async def _classes(call: Call, query: Mapping[str, Any], *, position: int) -> list[str]:
    """Those that have columns: the first page's, or all that are known at the position. Asked after the rows were
    read, so that none of theirs is missing."""
    given: list[str] | None = query.get("classes")
    if given is not None:
        return with_columns(given)
    if "as_of" in query:
        scope = await scope_then(call, position)
        found = await while_awaited(call.receive, call.context.past.classes(scope, as_of=position))
    else:
        found = await call.context.read_model.classes(scope=call.actor.tenant)
    return with_columns(name for name in found if call.endpoint.answer in WITH_COUNTS or name not in COUNTED)


async def missing(call: Call, kind: str, name: str) -> NotFound:
    """The refusal, with the nearest name that the actor may see.

    A name that is only nearly right has one of its halves right: so the candidates are found, not all names compared.
    """
    of = BY_NAME[kind]
    if of.has_id_for_name:
        return NotFound(kind, name, in_scope=call.actor.tenant is not None)
    *above, last = name.split("/")
    filters = dict(zip(of.named_by, above, strict=False))
    half = (len(last) + 1) // 2
    names: set[str] = set()
    for part in (last[:half], last[half:]):
        page = await call.context.read_model.list_(
            kind, filters=filters, q=part, limit=NAMES_COMPARED_MAX, scope=call.actor.tenant
        )
        items = decoded(page)["items"]
        names |= {_full_name(of, item) for item in items}
    # In the past, a name may be right and the time not.
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.7) if name not in names else []
    return NotFound(kind, name, near[0] if near else None, in_scope=call.actor.tenant is not None)


def _full_name(kind: Kind[Any], item: Mapping[str, Any]) -> str:
    *above, own = kind.named_by
    return "/".join([*(item[part] for part in above), item.get(own) or item["name"]])


def _must_sort(kind: str, sort: str, call: Call) -> None:
    try:
        must_sort(kind, sort, is_scoped=call.actor.tenant is not None)
    except ValueError as error:
        raise Validation([{"field": "query:sort", "message": str(error)}]) from None
