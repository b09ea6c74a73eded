"""How much there is, is used and is free: by place, group, host, or tenant."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import text

from domain.errors import Forbidden
from domain.values import COUNTS, Resources, ordered
from projections import documents, sessions
from projections.documents import Sums
from projections.sessions import Row, Statement
from projections.sums import BY_DC, BY_RACK

Shown = dict[str, Any]

FILTERS = ("region", "dc", "group", "tenant")
BY = ("region", "dc", "rack", "group", "tenant", "host")

_SUM = re.compile(r"^([a-z][a-z0-9_]{0,62})_(capacity|used|available|largest_fit)$")

# As in `pages.at_a_position`.
_AT_A_POSITION = (
    "SELECT progress.position, found.* FROM progress LEFT JOIN ({found}) AS found ON true WHERE progress.is_complete"
)

_CELLS = """
SELECT sums.{by}, sums.document, NULL::json FROM sums JOIN groups ON groups.key = sums.group
WHERE level = '{level}' AND {where}
"""
_WHERE = {
    "region": "coalesce(sums.region, groups.region) = :region",
    "dc": "sums.dc = :dc",
    "group": "sums.group = :group",
    "tenant": "sums.group IN (SELECT quotas.group FROM quotas WHERE tenant = :tenant)",
}

# Everything that has the name, also without a host: an empty rack is worth seeing too.
_NAMES = {
    "region": "SELECT region, NULL::json, NULL::json FROM racks WHERE {where} GROUP BY region",
    "dc": "SELECT dc, NULL::json, NULL::json FROM racks WHERE {where} GROUP BY dc",
    "rack": "SELECT key, NULL, NULL FROM racks WHERE {where}",
    "group": "SELECT key, NULL, NULL FROM groups WHERE {where}",
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
    SELECT top.group, NULL::json, top.limits::json FROM quotas top WHERE NOT EXISTS (
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

_sums = msgspec.json.Decoder(Sums).decode
_resources = msgspec.json.Decoder(Resources).decode


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


@lru_cache
def statement(by: str, filters: tuple[str, ...], *, is_scoped: bool) -> Statement:
    """By anything but host, of which there is a list (`lists.py`, kind "capacity"). Its rows are for `rows`."""
    if by == "tenant":
        where = _all(_QUOTAS_WHERE[name] for name in filters)
        if is_scoped:
            where += " AND quotas.tenant IN (SELECT key FROM below)"
        return sessions.statement(text(_AT_A_POSITION.format(found=_QUOTAS.format(where=where, level=BY_DC))))
    level = BY_RACK if by == "rack" else BY_DC
    parts = [_CELLS.format(by=by, level=level, where=_all(_WHERE[name] for name in filters))]
    if set(filters) <= _NAMES_WHERE[by].keys():
        parts.append(_NAMES[by].format(where=_all(_NAMES_WHERE[by][name] for name in filters)))
    if by == "group":
        parts.append(_PROMISED)
    return sessions.statement(text(_AT_A_POSITION.format(found=" UNION ALL ".join(parts))))


def rows(by: str, found: Sequence[Row]) -> list[Shown]:
    """By name; `largest_fit` is, per class, the most that is free on one schedulable host.

    A row whose name is null sums up hosts that stand in no rack.
    """
    if by == "tenant":
        return _by_tenant(found)
    cells: defaultdict[str | None, list[Sums]] = defaultdict(list)
    promised: defaultdict[str | None, Resources] = defaultdict(dict)
    for _, key, document, limits in found:
        name = key.decode() if key is not None else None
        if limits is not None:
            _add(promised[name], _resources(limits))
        elif document is not None:
            cells[name].append(_sums(document))
        elif name is not None:
            cells.setdefault(name, [])
    sums = {name: documents.total(parts) for name, parts in cells.items()}
    shown = [_row(name, sums[name]) for name in sorted(sums, key=lambda name: (name is None, name or ""))]
    if by == "group":
        for row in shown:
            _add_promises(row, usable=sums[row["name"]].usable, promised=promised[row["name"]])
    return shown


def page(
    found: Sequence[Shown], *, sort: str, after: tuple[int, str | None] | None, limit: int
) -> tuple[list[Shown], tuple[int, str | None] | None]:
    """The next `limit` rows by `name`, or by a class's amount such as `-cpu_available`, and (amount, name) of the last
    if more follow. A row without a name comes after its equals."""
    is_falling, amount = sort.startswith("-"), _SUM.match(sort.removeprefix("-"))

    def value(row: Shown) -> int:
        what: int = row[amount[2]].get(amount[1], 0) if amount is not None else 0
        return what

    left: Shown | None = None
    if after is not None:  # what the page before ended with takes its place as it was then, and no more
        left = {"name": after[1], **({amount[2]: {amount[1]: after[0]}} if amount is not None else {})}
    rows = [*found, *([left] if left is not None else [])]
    rows.sort(key=lambda row: row["name"] or "", reverse=is_falling and amount is None)
    rows.sort(key=lambda row: row["name"] is None)
    rows.sort(key=value, reverse=is_falling)
    begin = next(n for n, row in enumerate(rows) if row is left) + 1 if left is not None else 0
    shown = rows[begin : begin + limit]
    return shown, (value(shown[-1]), shown[-1]["name"]) if len(rows) > begin + limit else None


def _row(name: str | None, sums: Sums) -> Shown:
    return {
        "name": name,
        "hosts": sums.hosts,
        "capacity": sums.capacity,
        "used": sums.used,
        "available": sums.available,
        "largest_fit": sums.largest,
    }


def _add_promises(row: Shown, *, usable: Resources, promised: Resources) -> None:
    """`unpromised` is capacity × over-commit less what was promised: below 0 where more was promised than there is."""
    row["promised"] = documents.in_order(promised)
    classes = usable.keys() | {name for name in promised if name not in COUNTS}
    row["unpromised"] = {name: usable.get(name, 0) - promised.get(name, 0) for name in ordered(classes)}


def _by_tenant(found: Sequence[Row]) -> list[Shown]:
    """A tenant's capacity is Σ of its limits; what fits is bounded by its quotas and by the hosts of their groups."""
    cells: defaultdict[bytes | None, list[Sums]] = defaultdict(list)
    for _, _, group, _, _, document in found:
        if document is not None:
            cells[group].append(_sums(document))
    fits = {group: documents.total(parts).largest for group, parts in cells.items()}
    totals: dict[bytes, tuple[Resources, Resources, Resources, Resources]] = {}
    for _, tenant, group, limits_, used_, _ in found:
        if tenant is None or limits_ is None or used_ is None:
            continue
        limits, used = _resources(limits_), _resources(used_)
        capacities, uses, frees, largest = totals.setdefault(tenant, ({}, {}, {}, {}))
        free = {name: max(0, limit - used.get(name, 0)) for name, limit in limits.items()}
        _add(capacities, limits)
        _add(uses, {**dict.fromkeys(limits, 0), **used})
        _add(frees, free)
        for name, amount in fits.get(group, {}).items():
            largest[name] = max(largest.get(name, 0), min(amount, free.get(name, amount)))
    columns = ("capacity", "used", "available", "largest_fit")
    return [
        {"name": tenant.decode(), **dict(zip(columns, map(documents.in_order, parts), strict=True))}
        for tenant, parts in sorted(totals.items())
    ]


def _add(total: Resources, amounts: Mapping[str, int]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def _all(found: Iterable[str]) -> str:
    return " AND ".join(found) or "true"
