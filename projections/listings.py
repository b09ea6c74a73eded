"""How each kind is listed: its joins, filters, sorts and facts, as SQL. Values are parameters, by name.

A list is bounded by what is asked and by the asker's scope: the tenants of today's subtree.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Numeric,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    union_all,
)

from projections.facts import COLUMNS
from projections.field_types import compared_as
from projections.sums import BY_DC
from projections.tables import (
    LIVING,
    broken_rules,
    groups,
    hosts,
    operations,
    quotas,
    racks,
    sums,
    tenants,
    tokens,
    vms,
)
from projections.view import View
from projections.views import VIEWS

Condition = ColumnElement[bool]
Expression = ColumnElement[Any]

BIGINT_MAX = 2**63 - 1

SCOPE = bindparam("scope", type_=Text)
CLASS = bindparam("class", type_=Text)  # of the amount that is sorted by


class Listing(NamedTuple):
    """How one kind is listed. `facts` come beside key and document; `words` is what free text looks in."""

    table: Table
    source: FromClause
    facts: tuple[Expression, ...]
    filters: dict[str, Callable[[Any], Condition]]
    sorts: dict[str, Expression]
    in_scope: Condition
    owner: Expression | None
    words: Expression
    sum_sort: Callable[[str], Expression] | None = None
    always: Condition | None = None


def below(tenant: Expression, *, name: str) -> CTE:
    """The tenant and all its descendants; none if there is no such tenant. `name` tells two in one statement apart."""
    columns = (tenants.c.key, tenants.c.uid, tenants.c.created_at)
    found = select(*columns).where(tenants.c.key == tenant).cte(name, recursive=True)
    return found.union_all(select(*columns).where(tenants.c.parent == found.c.key))


def subtree(tenant: Expression, *, name: str) -> Select[Any]:
    return select(below(tenant, name=name).c.key)


def tenants_in_scope() -> CTE:
    """Those to whom the asker is confined, as they live today."""
    return below(SCOPE, name="scope")


def in_scope() -> Select[Any]:
    return select(tenants_in_scope().c.key)


def operation_of(owners: CTE) -> Condition:
    """An operation outlives what it worked on, and even its tenant: who bears that name later does not see it.

    A tenant with work under way is not deleted, so no operation is as old as the tenant that follows upon its own.
    """
    owner = select(owners.c.key).where(owners.c.key == operations.c.owner)
    return owner.where(owners.c.created_at <= operations.c.created_at).correlate(operations).exists()


def in_sight() -> CompoundSelect[Any]:
    """What whoever is confined to `scope` sees today, and since when it is: tenants, and groups where they have quota.

    Columns: kind, key, uid (of tenants), created_at.
    """
    seen = tenants_in_scope()
    granted = select(quotas.c.group).where(quotas.c.tenant.in_(select(seen.c.key)))
    return union_all(
        select(literal("tenant").label("kind"), seen.c.key, seen.c.uid, seen.c.created_at),
        select(literal("group"), groups.c.key, cast(None, Text), groups.c.created_at).where(groups.c.key.in_(granted)),
    )


def parent(*, is_scoped: bool) -> Expression:
    """Whoever is confined to a tenant is shown none above it."""
    return case((tenants.c.key != SCOPE, tenants.c.parent)) if is_scoped else tenants.c.parent


def _equals(column: Expression) -> Callable[[Any], Condition]:
    return lambda value: column == value


def _nothing(_: Any) -> Condition:
    return false()


def _place_filters(group: Callable[[Any], Condition]) -> dict[str, Callable[[Any], Condition]]:
    return {
        "group": group,
        "rack": _equals(hosts.c.rack),
        "region": _equals(racks.c.region),
        "dc": _equals(racks.c.dc),
        "room": _equals(racks.c.room),
    }


def _amount(mapping: Expression) -> Expression:
    return cast(mapping.op("->>")(CLASS), BigInteger)


def _host_sum(what: str) -> Expression:
    capacity, used = func.coalesce(_amount(hosts.c.capacity), 0), func.coalesce(_amount(hosts.c.used), 0)
    if what != "available":
        return capacity if what == "capacity" else used
    room = func.div(cast(capacity, Numeric) * func.coalesce(_amount(groups.c.overcommit), 1000), 1000)
    return _as_bigint(case((hosts.c.state == "available", func.greatest(0, room - used)), else_=0))


def _as_bigint(amount: Expression) -> Expression:
    """To sort by: what lies beyond is as large as it gets."""
    return cast(func.least(amount, BIGINT_MAX), BigInteger)


def _group_sum(what: str) -> Expression:
    return _as_bigint(_summed(cast(sums.c.document[what].op("->>")(CLASS), Numeric), _OF_GROUP, groups))


def _quota_sum(what: str) -> Expression:
    """Null where the class is unlimited."""
    limit, used = _amount(quotas.c.limits), func.coalesce(_amount(quotas.c.used), 0)
    match what:
        case "capacity":
            return limit
        case "used":
            return cast(used, BigInteger)
        case _:
            return cast(case((limit.is_not(None), func.greatest(0, limit - used))), BigInteger)


_OF_GROUP = and_(sums.c.level == BY_DC, sums.c.group == groups.c.key)


def _summed(part: Expression, where: Condition, of: FromClause) -> Expression:
    return select(func.coalesce(func.sum(part), 0)).where(where).correlate(of).scalar_subquery()


def _hosts_of(where: Condition, of: FromClause) -> Expression:
    return cast(_summed(cast(sums.c.document["hosts"].as_string(), BigInteger), where, of), BigInteger)


_IS_BROKEN = vms.c.key.in_(select(broken_rules.c.key))

_over_rack = hosts.outerjoin(racks, racks.c.key == hosts.c.rack)

_is_over = and_(operations.c.state != "running", operations.c.state != "stuck")


def _fixed(sql: str) -> Callable[[Any], Condition]:
    condition: Any = text(sql)
    return lambda value: condition


def _of_view(view: View[Any]) -> Listing:
    table = LIVING[view.kind.name]
    return Listing(
        table=table,
        source=table,
        facts=COLUMNS[view.kind.name],
        filters={one.name: _fixed(one.sql) for one in view.all_filters()},
        sorts={
            field.name: literal_column(view.sql(field), field.column or compared_as(field.schema))
            for field in view.fields
            if field.sorts
        },
        in_scope=_fixed(view.in_scope)(None),
        owner=literal_column(view.sql(view.field("owner"))),
        words=table.c.words,
    )


LISTINGS: dict[str, Listing] = {
    **{kind: _of_view(view) for kind, view in VIEWS.items()},
    "tenant": Listing(
        table=tenants,
        source=tenants,
        facts=COLUMNS["tenant"],
        filters={"parent": _equals(tenants.c.parent)},
        sorts={"parent": tenants.c.parent},
        in_scope=tenants.c.key.in_(in_scope()),
        owner=tenants.c.parent,
        words=tenants.c.words,
    ),
    "group": Listing(
        table=groups,
        source=groups,
        facts=COLUMNS["group"],
        filters={"region": _equals(groups.c.region)},
        sorts={
            "region": groups.c.region,
            "strategy": groups.c.document["strategy"].as_string(),
            "hosts": _hosts_of(_OF_GROUP, groups),
        },
        in_scope=groups.c.key.in_(select(quotas.c.group).where(quotas.c.tenant.in_(in_scope()))),
        owner=None,
        words=groups.c.words,
        sum_sort=_group_sum,
    ),
    "quota": Listing(
        table=quotas,
        source=quotas,
        facts=COLUMNS["quota"],
        filters={
            "tenant": _equals(quotas.c.tenant),
            "subtree": lambda tenant: quotas.c.tenant.in_(subtree(tenant, name="subtree")),
            "group": _equals(quotas.c.group),
            "over": _equals(quotas.c.over),
        },
        sorts={name: quotas.c[name] for name in ("tenant", "group", "over")},
        in_scope=quotas.c.tenant.in_(in_scope()),
        owner=quotas.c.tenant,
        words=quotas.c.words,
        sum_sort=_quota_sum,
    ),
    "host": Listing(
        table=hosts,
        source=_over_rack.join(groups, groups.c.key == hosts.c.group),
        facts=COLUMNS["host"],
        filters=_place_filters(_equals(hosts.c.group)),
        sorts={
            "group": hosts.c.group,
            "rack": hosts.c.rack,
            "region": racks.c.region,
            "dc": racks.c.dc,
            "room": racks.c.room,
            "unit": cast(hosts.c.document["unit"].as_string(), BigInteger),
        },
        in_scope=false(),
        owner=None,
        words=hosts.c.words,
        sum_sort=_host_sum,
    ),
    "vm": Listing(
        table=vms,
        source=vms.outerjoin(hosts, hosts.c.key == vms.c.host).outerjoin(racks, racks.c.key == hosts.c.rack),
        facts=COLUMNS["vm"],
        filters={
            "tenant": _equals(vms.c.tenant),
            "subtree": lambda tenant: vms.c.tenant.in_(subtree(tenant, name="subtree")),
            "host": _equals(vms.c.host),
            "set": lambda name: name == any_(vms.c.sets),
            "cluster": _nothing,
            "pool": _nothing,
            "rules_broken": _equals(_IS_BROKEN),
            # While it has a host, a VM's group is the host's.
            **_place_filters(
                lambda group: or_(hosts.c.group == group, and_(vms.c.host.is_(None), vms.c.group == group))
            ),
        },
        sorts={
            "tenant": vms.c.tenant,
            "host": vms.c.host,
            "cluster": cast(None, Text),
            "pool": cast(None, Text),
            "group": func.coalesce(hosts.c.group, vms.c.group),
            "rack": hosts.c.rack,
            "region": racks.c.region,
            "dc": racks.c.dc,
            "room": racks.c.room,
            "rules_broken": _IS_BROKEN,
            **{name: vms.c.document[name].as_string() for name in ("image", "operation", "reason")},
        },
        in_scope=vms.c.tenant.in_(in_scope()),
        owner=vms.c.tenant,
        words=vms.c.words,
    ),
    "operation": Listing(
        table=operations,
        source=operations,
        facts=COLUMNS["operation"],
        filters={"target": _equals(operations.c.target), "kind": _equals(operations.c.kind)},
        sorts={
            "id": operations.c.key,
            "kind": operations.c.kind,
            "target": operations.c.target,
            "started_at": operations.c.created_at,
            "ended_at": case((_is_over, operations.c.updated_at)),
            "message": operations.c.document["message"].as_string(),
        },
        in_scope=operation_of(tenants_in_scope()),
        owner=operations.c.owner,
        words=operations.c.words,
    ),
    "token": Listing(
        table=tokens,
        source=tokens,
        facts=COLUMNS["token"],
        filters={"role": _equals(tokens.c.role), "tenant": _equals(tokens.c.tenant)},
        sorts={"role": tokens.c.role, "tenant": tokens.c.tenant, "expires_at": tokens.c.expires_at},
        in_scope=false(),
        owner=tokens.c.tenant,
        words=tokens.c.words,
        always=tokens.c.state == "active",
    ),
    # A host as a row of capacity.
    "capacity": Listing(
        table=hosts,
        source=_over_rack.join(groups, groups.c.key == hosts.c.group),
        facts=COLUMNS["capacity"],
        filters={
            "region": lambda region: func.coalesce(racks.c.region, groups.c.region) == region,
            "dc": _equals(racks.c.dc),
            "group": _equals(hosts.c.group),
            "tenant": lambda tenant: hosts.c.group.in_(select(quotas.c.group).where(quotas.c.tenant == tenant)),
        },
        sorts={},
        in_scope=false(),
        owner=None,
        words=hosts.c.key,
        sum_sort=_host_sum,
    ),
}
