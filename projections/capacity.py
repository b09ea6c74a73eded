"""How much there is, is used and is free: by place, group, host, or tenant."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Forbidden
from domain.values import COUNTS, Resources, ordered
from projections import documents
from projections.documents import Document, Sums
from projections.facts import sums_by
from projections.lists import Condition, Sort, sort_of
from projections.sums import BY_DC, BY_RACK
from projections.tables import groups, hosts, quotas, racks

Row = dict[str, Any]

FILTERS = ("region", "dc", "group", "tenant")
BY = ("region", "dc", "rack", "group", "tenant", "host")

_SUM = re.compile(r"^([a-z][a-z0-9_]{0,62})_(capacity|used|available|largest_fit)$")

_WHERE = {
    "region": "coalesce(sums.region, groups.region) = :region",
    "dc": "sums.dc = :dc",
    "group": "sums.group = :group",
    "tenant": "sums.group IN (SELECT quotas.group FROM quotas WHERE tenant = :tenant)",
}

# Everything that has the name, also without a host: an empty rack is worth seeing too.
_NAMES = {
    "region": "SELECT DISTINCT region FROM racks WHERE {where}",
    "dc": "SELECT DISTINCT dc FROM racks WHERE {where}",
    "rack": "SELECT key FROM racks WHERE {where}",
    "group": "SELECT key FROM groups WHERE {where}",
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

# Tenants with a quota there and none above them there.
_PROMISED = text("""
WITH RECURSIVE up AS (
    SELECT quotas.key AS quota, tenants.parent AS tenant FROM quotas JOIN tenants ON tenants.key = quotas.tenant
    UNION ALL
    SELECT up.quota, tenants.parent FROM up JOIN tenants ON tenants.key = up.tenant
)
SELECT top.group, top.limits FROM quotas top WHERE NOT EXISTS (
    SELECT FROM up JOIN quotas above ON above.tenant = up.tenant AND above.group = top.group WHERE up.quota = top.key
)
""")

_QUOTAS = """
WITH RECURSIVE below AS (
    SELECT key FROM tenants WHERE key = :scope
    UNION ALL
    SELECT tenants.key FROM tenants JOIN below ON tenants.parent = below.key
)
SELECT quotas.tenant, quotas.group, quotas.limits, quotas.used FROM quotas JOIN groups ON groups.key = quotas.group
WHERE {where} ORDER BY quotas.key
"""
_QUOTAS_WHERE = {
    "region": "groups.region = :region",
    "dc": "groups.key IN (SELECT sums.group FROM sums WHERE dc = :dc)",
    "group": "groups.key = :group",
    "tenant": "quotas.tenant = :tenant",
}


async def capacity(
    connection: AsyncConnection, *, by: str, filters: Mapping[str, Any], scope: str | None
) -> list[dict[str, Any]]:
    """Rows by name, of anything but hosts; `largest_fit` is, per class, the most that is free on one schedulable host.

    A row whose name is null sums up hosts that stand in no rack.
    """
    given = {name: value for name, value in filters.items() if value is not None}
    if by == "tenant":
        return await _by_tenant(connection, given, scope)
    where, level = _all(_WHERE[name] for name in given), BY_RACK if by == "rack" else BY_DC
    sums = await sums_by(connection, f"sums.{by}", level=level, where=where, values=given)
    if by in _NAMES and given.keys() <= _NAMES_WHERE[by].keys():
        query = text(_NAMES[by].format(where=_all(_NAMES_WHERE[by][name] for name in given)))
        for (name,) in await connection.execute(query, given):
            sums.setdefault(name, documents.NOTHING)
    found = [_row(name, sums[name]) for name in sorted(sums, key=lambda name: (name is None, name or ""))]
    if by == "group":
        await _add_promises(connection, found, sums)
    return found


def must_be_answered(by: str, filters: Mapping[str, Any], *, scope: str | None) -> None:
    """Raises:
    ValueError: an unknown `by` or filter.
    Forbidden: the asker is confined to a tenant, and this is not by tenant.
    """
    for name, value in filters.items():
        if value is not None and name not in FILTERS:
            raise ValueError(f"capacity has no filter {name}")
    if by not in BY:
        raise ValueError(f"capacity is by {', '.join(sorted(BY))}, not by {by!r}")
    if by != "tenant" and scope is not None:
        raise Forbidden(f"capacity:{by}")


# By host there is no sum, but a list of hosts: it is filtered, sorted and cut by the database.

HOST_FILTERS: dict[str, Callable[[str], Condition]] = {
    "region": lambda name: func.coalesce(racks.c.region, groups.c.region) == name,
    "dc": lambda name: racks.c.dc == name,
    "group": lambda name: hosts.c.group == name,
    "tenant": lambda name: hosts.c.group.in_(select(quotas.c.group).where(quotas.c.tenant == name)),
}


def host_sort(sort: str) -> Sort:
    """What is free on a host is the most that fits there, too."""
    return sort_of("host", re.sub("_largest_fit$", "_available", sort))


def host_row(document: Document) -> dict[str, Any]:
    """Of a host as it is shown."""
    capacity, used, available = (_in_order(document[part]) for part in ("capacity", "used", "available"))
    return _row(document["name"], Sums(1, capacity, used, available, largest=available))


def must_sort(sort: str) -> None:
    """Raises ValueError: capacity has nothing of that name to sort by."""
    field = sort.removeprefix("-")
    if field != "name" and not _SUM.match(field):
        raise ValueError(f"capacity can't be sorted by {field!r}")


def page(
    found: Sequence[Row], *, sort: str, after: tuple[int, str | None] | None, limit: int
) -> tuple[list[Row], tuple[int, str | None] | None]:
    """The next `limit` rows by `name`, or by a class's amount such as `-cpu_available`, and (amount, name) of the last
    if more follow. A row without a name comes after its equals."""
    is_falling, amount = sort.startswith("-"), _SUM.match(sort.removeprefix("-"))

    def value(row: Row) -> int:
        what: int = row[amount[2]].get(amount[1], 0) if amount is not None else 0
        return what

    left: Row | None = None
    if after is not None:  # what the page before ended with takes its place as it was then, and no more
        left = {"name": after[1], **({amount[2]: {amount[1]: after[0]}} if amount is not None else {})}
    rows = [*found, *([left] if left is not None else [])]
    rows.sort(key=lambda row: row["name"] or "", reverse=is_falling and amount is None)
    rows.sort(key=lambda row: row["name"] is None)
    rows.sort(key=value, reverse=is_falling)
    begin = next(n for n, row in enumerate(rows) if row is left) + 1 if left is not None else 0
    shown = rows[begin : begin + limit]
    return shown, (value(shown[-1]), shown[-1]["name"]) if len(rows) > begin + limit else None


def _row(name: str | None, sums: Sums) -> dict[str, Any]:
    return {
        "name": name,
        "hosts": sums.hosts,
        "capacity": sums.capacity,
        "used": sums.used,
        "available": sums.available,
        "largest_fit": sums.largest,
    }


async def _add_promises(
    connection: AsyncConnection, found: list[dict[str, Any]], sums: Mapping[str | None, Sums]
) -> None:
    """`unpromised` is capacity × over-commit less what was promised: below 0 where more was promised than there is."""
    promised: defaultdict[str, Resources] = defaultdict(dict)
    for group, limits in await connection.execute(_PROMISED):
        _add(promised[group], limits)
    for row in found:
        usable, given = sums[row["name"]].usable, promised[row["name"]]
        row["promised"] = {name: given[name] for name in ordered(given)}
        classes = usable.keys() | {name for name in given if name not in COUNTS}
        row["unpromised"] = {name: usable.get(name, 0) - given.get(name, 0) for name in ordered(classes)}


async def _by_tenant(connection: AsyncConnection, given: Mapping[str, Any], scope: str | None) -> list[dict[str, Any]]:
    """A tenant's capacity is Σ of its limits; what fits is bounded by its quotas and by the hosts of their groups."""
    where = _all(_QUOTAS_WHERE[name] for name in given)
    if scope is not None:
        where += " AND quotas.tenant IN (SELECT key FROM below)"
    quotas = (await connection.execute(text(_QUOTAS.format(where=where)), {**given, "scope": scope})).all()
    groups = sorted({row[1] for row in quotas})
    sums = await sums_by(connection, "sums.group", where="sums.group = ANY(:groups)", values={"groups": groups})
    totals: dict[str, tuple[Resources, Resources, Resources, Resources]] = {}
    for tenant, group, limits, used in quotas:
        capacities, uses, frees, largest = totals.setdefault(tenant, ({}, {}, {}, {}))
        free = {name: max(0, limit - used.get(name, 0)) for name, limit in limits.items()}
        _add(capacities, limits)
        _add(uses, {**dict.fromkeys(limits, 0), **used})
        _add(frees, free)
        for name, amount in sums.get(group, documents.NOTHING).largest.items():
            largest[name] = max(largest.get(name, 0), min(amount, free.get(name, amount)))
    columns = ("capacity", "used", "available", "largest_fit")
    return [
        {"name": tenant, **dict(zip(columns, map(_in_order, parts), strict=True))}
        for tenant, parts in sorted(totals.items())
    ]


def _add(total: Resources, amounts: Resources) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def _in_order(amounts: Resources) -> Resources:
    return {name: amounts[name] for name in ordered(amounts)}


def _all(found: Any) -> str:
    return " AND ".join(found) or "true"
