"""Capacity and classes over a fleet of the past: what the statements of `capacity.py` and `classes.py` find, row by row
the same."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.quota import KIND as QUOTA
from domain.quota import Quota
from domain.rack import KIND as RACK
from domain.vm import KIND as VM
from projections import capacity
from projections.amounts import in_order, with_zeros
from projections.kinds import hosts
from projections.listing import CapacityQuery, Order, Portion, ScopeThen, capped, filled
from projections.sessions import RawRow
from projections.sums import BY_DC, BY_RACK, Sums
from projections.words import folded

_json = msgspec.json.Encoder().encode


def portion(fleet: Fleet, sums: Sums, query: CapacityQuery) -> Portion:
    """The next rows; `sums` are the fleet's."""
    if query.by == "host":
        return _of_hosts(fleet, query)
    found = capacity.lines(query.by, _rows(fleet, sums, query))
    if query.q:
        words = folded(query.q)
        found = [line for line in found if words in (line.name or "")]
    shown, following = capacity.page(found, sort=query.sort, after=query.after, limit=query.limit)
    rows = filled((capacity.amount_of(line, query.sort), line.name, _json(line.shown)) for line in shown)
    more = following is not None or len(rows) < len(shown)
    return Portion(rows, more, len(found) if query.count else None)


def classes(fleet: Fleet, scope: ScopeThen | None) -> list[str]:
    """Every resource class, and count, that a list may show. Claims are counted in quotas while they are held; what
    failed holds none, and still shows what it was to have."""
    found: set[str] = set()
    groups: set[str] = set()
    quotas, above = [], set()
    for quota in fleet.each(QUOTA):
        if scope is None or scope.has_tenant(quota.tenant, fleet.at):
            quotas.append(quota)
    for quota in quotas:
        groups.add(quota.group)
        found |= quota.limits.keys() | quota.used.keys()
    if scope is not None:
        above = set(fleet.chain(scope.root)[1:])
        for quota in fleet.each(QUOTA):
            if quota.tenant in above and quota.group in groups:
                found |= quota.limits.keys()
    for group in fleet.each(GROUP):
        if scope is None or group.name in groups:
            found |= group.overcommit.keys()
    if scope is None:
        for host in fleet.each(HOST):
            found |= host.capacity.keys() | host.used.keys()
    for vm in fleet.each(VM):
        if vm.state == "failed" and (scope is None or scope.has_tenant(vm.tenant, fleet.at)):
            found |= vm.resources.keys()
    return sorted(found)


def _of_hosts(fleet: Fleet, query: CapacityQuery) -> Portion:
    is_falling, amount, words = query.sort.startswith("-"), capacity.amount_in(query.sort), folded(query.q or "")
    conditions = [capacity.BY_HOST.filters[name].over(fleet, value, None) for name, value in query.filters.items()]
    found: list[tuple[Any, str]] = []
    for stream, entry in fleet.living[HOST.name].items():
        name = stream.partition("/")[2]
        if words in name and all(passes(name, entry) for passes in conditions):
            found.append((hosts.amount(fleet, entry.state, *amount) if amount is not None else name, name))
    count = capped(len(found)) if query.count else None
    order = Order(is_falling, is_total=amount is None)
    if query.after is not None:
        found = [row for row in found if order.is_behind(row, query.after)]
    ordered = order.sorted(found)[: query.limit]
    rows = filled((value, name, _json(_item_of(fleet, name))) for value, name in ordered)
    return Portion(rows, len(found) > len(rows), count)


def _item_of(fleet: Fleet, name: str) -> dict[str, Any]:
    """A host as a row of capacity. What is free on it is the most that fits there, too."""
    host = fleet.get(HOST, name)
    assert host is not None
    amounts = (host.capacity, with_zeros(host.used, host.capacity), hosts.free_in_fleet(fleet, host))
    whole, used, free = map(in_order, amounts)
    return {"name": name, "hosts": 1, "capacity": whole, "used": used, "available": free, "largest_fit": free}


def _rows(fleet: Fleet, sums: Sums, query: CapacityQuery) -> Iterator[RawRow]:
    """What `capacity.lines` takes."""
    by, filters = query.by, query.filters
    if by == "tenant":
        yield from _of_tenants(fleet, sums, query)
        return
    level = BY_RACK if by == "rack" else BY_DC
    granted = {quota.group for quota in fleet.each(QUOTA) if quota.tenant == filters.get("tenant")}
    seen = set()
    for cell in sums.rows():
        if cell["level"] != level or not _is_of(fleet, cell, filters, granted=granted):
            continue
        seen.add(cell[by])
        yield None, _bytes(cell[by]), _bytes(cell["document"]), _bytes(cell["usable"]) if by == "group" else None, None
    yield from ((None, _bytes(name), None, None, None) for name in _names(fleet, by, filters) if name not in seen)
    if by == "group":
        for quota in fleet.each(QUOTA):
            if not fleet.quotas(quota.group, fleet.chain(quota.tenant)[1:]):
                yield None, _bytes(quota.group), None, None, _json(quota.limits)


def _is_of(fleet: Fleet, cell: Mapping[str, Any], filters: Mapping[str, str], *, granted: set[str]) -> bool:
    """Whether the filters let the cell pass; `granted` are the groups where the tenant that is asked for has quota."""
    for name, value in filters.items():
        match name:
            case "region":
                group = fleet.get(GROUP, cell["group"])
                passes = (cell["region"] or (group.region if group is not None else None)) == value
            case "tenant":
                passes = cell["group"] in granted
            case _:
                passes = cell[name] == value
        if not passes:
            return False
    return True


def _names(fleet: Fleet, by: str, filters: Mapping[str, str]) -> Iterable[str]:
    """Everything that has such a name, also without a host; nothing, where a filter says nothing of it."""
    if not filters.keys() <= capacity.filters_of_names(by):
        return ()
    if by == "group":
        granted = {quota.group for quota in fleet.each(QUOTA) if quota.tenant == filters.get("tenant")}
        return {
            group.name
            for group in fleet.each(GROUP)
            if filters.get("region", group.region) == group.region
            and filters.get("group", group.name) == group.name
            and ("tenant" not in filters or group.name in granted)
        }
    return {
        rack.name if by == "rack" else getattr(rack, by)
        for rack in fleet.each(RACK)
        if all(getattr(rack, name) == value for name, value in filters.items())
    }


def _of_tenants(fleet: Fleet, sums: Sums, query: CapacityQuery) -> Iterator[RawRow]:
    """Quotas, and behind them the cells of their groups."""
    cells = [cell for cell in sums.rows() if cell["level"] == BY_DC]
    here = {cell["group"] for cell in cells if cell["dc"] == query.filters.get("dc")}
    groups = set()
    for quota in fleet.each(QUOTA):
        if _is_shown(fleet, quota, query, here=here):
            groups.add(quota.group)
            yield None, _bytes(quota.tenant), _bytes(quota.group), _json(quota.limits), _json(quota.used), None
    for cell in cells:
        if cell["group"] in groups:
            yield None, None, _bytes(cell["group"]), None, None, _bytes(cell["document"])


def _is_shown(fleet: Fleet, quota: Quota, query: CapacityQuery, *, here: set[str]) -> bool:
    """`here` are the groups with hosts in the dc that is asked for."""
    if query.scope is not None and not query.scope.has_tenant(quota.tenant, fleet.at):
        return False
    for name, value in query.filters.items():
        match name:
            case "region":
                group = fleet.get(GROUP, quota.group)
                passes = group is not None and group.region == value
            case "dc":
                passes = quota.group in here
            case _:
                passes = getattr(quota, name) == value
        if not passes:
            return False
    return True


def _bytes(text: str | None) -> bytes | None:
    return text.encode() if text is not None else None
