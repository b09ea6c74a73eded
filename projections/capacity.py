"""How much there is, is used and is free: by place, group, host, or tenant."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import text

from domain.errors import Forbidden
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import Host
from domain.rack import KIND as RACK
from domain.values import COUNTS, Resources, ordered
from projections import sessions
from projections.amounts import Totals, added, in_order
from projections.cursors import NO_CURSOR, Cursor
from projections.field_types import Name
from projections.fields import Filter, OfEntry, Scope
from projections.kinds import hosts
from projections.listings import Listing, SortedBy
from projections.places import place_of
from projections.sessions import RawRow, Statement
from projections.sums import BY_DC, BY_RACK

T = TypeVar("T")
Shown = dict[str, Any]

FILTERS = ("region", "dc", "group", "tenant")
BY = ("region", "dc", "rack", "group", "tenant", "host")

_SUM = re.compile(r"^([a-z][a-z0-9_]{0,62})_(capacity|used|available|largest_fit)$")

# As in `pages.at_a_position`.
_AT_A_POSITION = (
    "SELECT standing.position, found.* FROM (SELECT position FROM progress WHERE is_complete LIMIT 1) AS standing"
    " LEFT JOIN ({found}) AS found ON true"
)

_CELLS = """
SELECT sums.{by}, sums.document, {usable}, NULL::json FROM sums JOIN groups ON groups.key = sums.group
WHERE level = '{level}' AND {where}
"""
_WHERE = {
    "region": "coalesce(sums.region, groups.region) = :region",
    "dc": "sums.dc = :dc",
    "group": "sums.group = :group",
    "tenant": "sums.group IN (SELECT quotas.group FROM quotas WHERE tenant = :tenant)",
}

# Everything that has the name, also without a host: an empty rack is worth seeing too. (Of racks, just those.)
_NAMES = {
    "region": "SELECT region, NULL::json, NULL::json, NULL::json FROM racks WHERE {where} GROUP BY region",
    "dc": "SELECT dc, NULL::json, NULL::json, NULL::json FROM racks WHERE {where} GROUP BY dc",
    "rack": "SELECT key, NULL, NULL, NULL FROM racks WHERE {where}"
    " AND NOT EXISTS (SELECT FROM sums WHERE sums.rack = racks.key AND level = 'rack')",
    "group": "SELECT key, NULL, NULL, NULL FROM groups WHERE {where}",
}
_NAMES_WHERE: dict[str, dict[str, str]] = {
    "region": {"region": "region = :region", "dc": "dc = :dc"},
    "dc": {"region": "region = :region", "dc": "dc = :dc"},
    "rack": {"region": "region = :region", "dc": "dc = :dc"},
    "group": {
        "region": "region = :region",
        "group": "key = :group",
        "tenant": "key IN (SELECT quotas.group FROM quotas WHERE tenant = :tenant)",
    },
}

# Limits of tenants with a quota there and none above them there.
_PROMISED = """
(
    WITH RECURSIVE up AS (
        SELECT quotas.key AS quota, tenants.parent AS tenant FROM quotas JOIN tenants ON tenants.key = quotas.tenant
        UNION ALL
        SELECT up.quota, tenants.parent FROM up JOIN tenants ON tenants.key = up.tenant
    )
    SELECT top.group, NULL::json, NULL::json, top.limits::json FROM quotas top WHERE NOT EXISTS (
        SELECT FROM up JOIN quotas above ON above.tenant = up.tenant AND above.group = top.group
        WHERE up.quota = top.key
    )
)
"""

# Quotas, and behind them the cells of their groups.
_QUOTAS = """
WITH RECURSIVE below AS (
    SELECT key FROM tenants WHERE key = :scope
    UNION ALL
    SELECT tenants.key FROM tenants JOIN below ON tenants.parent = below.key
), shown AS (
    SELECT quotas.tenant, quotas.group, quotas.limits, quotas.used FROM quotas JOIN groups ON groups.key = quotas.group
    WHERE {where}
)
SELECT tenant, shown.group, limits, used, NULL::json FROM shown
UNION ALL
SELECT NULL, sums.group, NULL, NULL, document FROM sums
WHERE level = '{level}' AND sums.group IN (SELECT shown.group FROM shown)
"""
_QUOTAS_WHERE = {
    "region": "groups.region = :region",
    "dc": "groups.key IN (SELECT sums.group FROM sums WHERE dc = :dc)",
    "group": "groups.key = :group",
    "tenant": "quotas.tenant = :tenant",
}


def _region(fleet: Fleet, host: Host) -> str | None:
    """An empty place has that of its group."""
    rack, group = fleet.get(RACK, host.rack or ""), fleet.get(GROUP, host.group)
    return rack.region if rack is not None else group.region if group is not None else None


def _filter(name: str, sql: str, of: Callable[[Fleet, Host], Any]) -> Filter:
    def over(fleet: Fleet, value: Any, scope: Scope | None) -> OfEntry:
        return lambda key, entry: of(fleet, entry.state) == value

    return Filter(name=name, description="", sql=f"{sql} = :{name}", over=over)


def _of_tenant(fleet: Fleet, tenant: str, scope: Scope | None) -> OfEntry:
    groups = fleet.granted(tenant)
    return lambda key, entry: entry.state.group in groups


class HostFacts(NamedTuple, Generic[T]):
    overcommit: T


_FACTS: HostFacts[str] = HostFacts(overcommit="groups.overcommit")
_FILTERS = (
    _filter("region", "coalesce(racks.region, groups.region)", _region),
    _filter("dc", "racks.dc", lambda fleet, host: place_of(fleet, host).dc),
    _filter("group", "hosts.group", lambda fleet, host: host.group),
    Filter(
        name="tenant",
        description="",
        sql="hosts.group IN (SELECT quotas.group FROM quotas WHERE quotas.tenant = :tenant)",
        over=_of_tenant,
    ),
)

# A host as a row of capacity.
BY_HOST = Listing(
    name="hosts",
    table="hosts",
    source=hosts.SOURCE,
    facts=_FACTS._asdict(),
    filters={one.name: one for one in _FILTERS},
    sorts={"name": SortedBy("hosts.key", Name, is_total=True)},
    amount_sorts=hosts.AMOUNT_SQL,
    words="hosts.key",
)


def from_row(document: bytes, facts: Sequence[bytes | None], scope: str | None) -> bytes:
    """A row of capacity, as `resources.from_row` gives a resource."""
    host = hosts.host_part(document)
    free = in_order(hosts.free_in_row(host, HostFacts(*facts).overcommit))
    capacity, used = in_order(host.capacity), in_order(host.used)
    row = {"name": host.name, "hosts": 1, "capacity": capacity, "used": used, "available": free, "largest_fit": free}
    return msgspec.json.encode(row)


_sums = msgspec.json.Decoder(Totals).decode
_resources = msgspec.json.Decoder(Resources).decode
_document = msgspec.json.Decoder(Shown).decode


def must_be_answered(by: str, filters: Iterable[str], *, sort: str, scope: str | None) -> None:
    """
    Raises:
        ValueError: an unknown `by`, filter or sort.
        Forbidden: the asker is confined to a tenant, and this is not by tenant.
    """
    for name in filters:
        if name not in FILTERS:
            raise ValueError(f"capacity has no filter {name}")
    if by not in BY:
        raise ValueError(f"capacity is by {', '.join(sorted(BY))}, not by {by!r}")
    if by != "tenant" and scope is not None:
        raise Forbidden(f"capacity:{by}")
    must_sort(sort)


def must_sort(sort: str) -> None:
    """Raises ValueError: capacity has nothing of that name to sort by."""
    field = sort.removeprefix("-")
    if field != "name" and not _SUM.match(field):
        raise ValueError(f"capacity can't be sorted by {field!r}")


def amount_in(sort: str) -> tuple[str, str] | None:
    """Of `-cpu_used`: the amount and its class. None: by name."""
    found = _SUM.match(sort.removeprefix("-"))
    return (found[2], found[1]) if found is not None else None


def is_by_amount(sort: str) -> bool:
    return sort.removeprefix("-") != "name"


@lru_cache
def statement(by: str, filters: tuple[str, ...], *, is_scoped: bool) -> Statement:
    """By anything but host, of which there is a list (`lists.py`, kind "capacity"). Its rows are for `lines`."""
    if by == "tenant":
        where = _all(_QUOTAS_WHERE[name] for name in filters)
        if is_scoped:
            where += " AND quotas.tenant IN (SELECT key FROM below)"
        return sessions.statement(text(_AT_A_POSITION.format(found=_QUOTAS.format(where=where, level=BY_DC))))
    level = BY_RACK if by == "rack" else BY_DC
    usable, where = "sums.usable" if by == "group" else "NULL::json", _all(_WHERE[name] for name in filters)
    parts = [_CELLS.format(by=by, level=level, usable=usable, where=where)]
    if set(filters) <= _NAMES_WHERE[by].keys():
        parts.append(_NAMES[by].format(where=_all(_NAMES_WHERE[by][name] for name in filters)))
    if by == "group":
        parts.append(_PROMISED)
    return sessions.statement(text(_AT_A_POSITION.format(found=" UNION ALL ".join(parts))))


def filters_of_names(by: str) -> frozenset[str]:
    """Those by which everything that has such a name can be chosen, also without a host."""
    return frozenset(_NAMES_WHERE[by])


class CapacityItem:
    """A row to be. Its only cell goes to the client as it stands, and is decoded where it is looked into."""

    def __init__(self, name: str | None, *, cells: Sequence[bytes] = (), row: Shown | None = None) -> None:
        self.name = name
        self._cells = cells
        self._row = row

    @property
    def row(self) -> Shown:
        if self._row is None:
            if len(self._cells) == 1:
                sums = _document(self._cells[0])
            else:
                sums = msgspec.structs.asdict(added(list(map(_sums, self._cells))))
            self._row = {"name": self.name, **sums}
        return self._row

    @property
    def shown(self) -> Shown | msgspec.Raw:
        if self._row is None and len(self._cells) == 1:
            return msgspec.Raw(b'{"name":%s,%s' % (msgspec.json.encode(self.name), self._cells[0][1:]))
        return self.row


def lines(by: str, found: Iterable[RawRow]) -> list[CapacityItem]:
    """`largest_fit` is, per class, the most that is free on one schedulable host.

    A line whose name is null sums up hosts that stand in no rack.
    """
    if by == "tenant":
        return _by_tenant(found)
    cells: defaultdict[str | None, list[bytes]] = defaultdict(list)
    usable: defaultdict[str | None, Resources] = defaultdict(dict)
    promised: defaultdict[str | None, Resources] = defaultdict(dict)
    for _, key, document, room, limits in found:
        name = key.decode() if key is not None else None
        if limits is not None:
            _add(promised[name], _resources(limits))
        elif document is not None:
            cells[name].append(document)
            if room is not None:
                _add(usable[name], _resources(room))
        elif name is not None:
            cells.setdefault(name, [])
    made = [CapacityItem(name, cells=documents) for name, documents in cells.items()]
    if by == "group":
        for line in made:
            _add_promises(line.row, usable=usable[line.name], promised=promised[line.name])
    return made


def after(by: str, sort: str, cursor: Cursor) -> tuple[Any, str | None]:
    """The sort value and the name that a page ended with.

    Raises:
        ValueError: they can't be those of a row.
    """
    is_name = by == "host" and not is_by_amount(sort)
    if type(cursor.value) is not (str if is_name else int) or not isinstance(cursor.key, str | None):
        raise ValueError(NO_CURSOR)
    if by == "host" and cursor.key is None:
        raise ValueError(NO_CURSOR)
    return cursor.value, cursor.key


def page(
    found: Sequence[CapacityItem], *, sort: str, after: tuple[int, str | None] | None, limit: int
) -> tuple[list[CapacityItem], tuple[int, str | None] | None]:
    """The next `limit` lines by `name`, or by a class's amount such as `-cpu_available`, and (amount, name) of the last
    if more follow. A line without a name comes after its equals."""
    is_falling, amount = sort.startswith("-"), _SUM.match(sort.removeprefix("-"))
    left: CapacityItem | None = None
    if after is not None:  # what the page before ended with takes its place as it was then, and no more
        left = CapacityItem(after[1], row={amount[2]: {amount[1]: after[0]}} if amount is not None else {})
    ordered = [*found, *([left] if left is not None else [])]
    ordered.sort(key=lambda line: line.name or "", reverse=is_falling and amount is None)
    ordered.sort(key=lambda line: line.name is None)
    if amount is not None:
        ordered.sort(key=lambda line: amount_of(line, sort), reverse=is_falling)
    begin = ordered.index(left) + 1 if left is not None else 0
    shown = ordered[begin : begin + limit]
    return shown, (amount_of(shown[-1], sort), shown[-1].name) if len(ordered) > begin + limit else None


def amount_of(line: CapacityItem, sort: str) -> int:
    """What the line is sorted by; 0 where that is its name."""
    amount = _SUM.match(sort.removeprefix("-"))
    what: int = line.row[amount[2]].get(amount[1], 0) if amount is not None else 0
    return what


def _add_promises(row: Shown, *, usable: Resources, promised: Resources) -> None:
    """`unpromised` is capacity × over-commit less what was promised: below 0 where more was promised than there is."""
    row["promised"] = in_order(promised)
    classes = usable.keys() | {name for name in promised if name not in COUNTS}
    row["unpromised"] = {name: usable.get(name, 0) - promised.get(name, 0) for name in ordered(classes)}


def _by_tenant(found: Iterable[RawRow]) -> list[CapacityItem]:
    """A tenant's capacity is Σ of its limits; what fits is bounded by its quotas and by the hosts of their groups.

    What one of its quotas does not limit is unlimited in all, so that nothing is told to be available of it. Of a class
    that no host of that group has, there is nothing to limit.
    """
    quotas: list[tuple[bytes, bytes | None, Resources, Resources]] = []
    cells: defaultdict[bytes | None, list[Totals]] = defaultdict(list)
    for _, tenant, group, limited, taken, document in found:
        if document is not None:
            cells[group].append(_sums(document))
        elif tenant is not None:
            quotas.append((tenant, group, _resources(limited or b""), _resources(taken or b"")))
    rooms = {group: added(parts) for group, parts in cells.items()}
    unlimited: defaultdict[bytes, set[str]] = defaultdict(set)
    totals: dict[bytes, tuple[Resources, Resources, Resources, Resources]] = {}
    for tenant, group, limits, used in quotas:
        capacities, uses, frees, largest = totals.setdefault(tenant, ({}, {}, {}, {}))
        free = {name: max(0, limit - used.get(name, 0)) for name, limit in limits.items()}
        _add(capacities, limits)
        _add(uses, {**dict.fromkeys(limits, 0), **used})
        _add(frees, free)
        room = rooms.get(group)
        unlimited[tenant] |= {*COUNTS, *(room.capacity if room is not None else ())} - limits.keys()
        for name, amount in (room.largest_fit if room is not None else {}).items():
            largest[name] = max(largest.get(name, 0), min(amount, free.get(name, amount)))
    for tenant, (_, _, frees, _) in totals.items():
        for name in unlimited[tenant]:
            frees.pop(name, None)
    columns = ("capacity", "used", "available", "largest_fit")
    return [
        CapacityItem(name, row={"name": name, **dict(zip(columns, map(in_order, parts), strict=True))})
        for name, parts in ((tenant.decode(), parts) for tenant, parts in totals.items())
    ]


def _add(total: Resources, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def _all(found: Iterable[str]) -> str:
    return " AND ".join(found) or "true"
