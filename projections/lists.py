"""Which rows a list shows and in which order: for each kind its joins, filters and sorts, as SQL; pages by key set.

A list is bounded by what is asked and by the asker's scope: the tenants of today's subtree.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Numeric,
    Select,
    String,
    Text,
    and_,
    any_,
    case,
    cast,
    collate,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB

from domain.values import from_rfc3339
from projections import cursors
from projections.cursors import Cursor
from projections.sums import BY_DC, BY_RACK
from projections.tables import LIVING, audit, groups, hosts, operations, quotas, racks, sums, tenants, tokens, vms

Condition = ColumnElement[bool]
Expression = ColumnElement[Any]

BIGINT_MAX = 2**63 - 1
_SUM = re.compile(r"^([a-z][a-z0-9_]{0,62})_(available|used|capacity)$")


class Sort(NamedTuple):
    """`expression` may be null, which comes last either way, unless it `is_total`."""

    expression: Expression
    is_falling: bool
    is_total: bool = False


class Listing(NamedTuple):
    """How one kind is listed. `columns` are facts beside the document that the joins give at no cost."""

    source: FromClause
    columns: tuple[Expression, ...]
    filters: dict[str, Callable[[Any], Condition]]
    sorts: dict[str, Expression]
    in_scope: Callable[[str], Condition]
    owner: Expression | None
    sum_sort: Callable[[str, str], Expression] | None = None
    always: Condition | None = None


def subtree(tenant: str, *, name: str) -> Select[Any]:
    """The tenant and all its descendants; none if there is no such tenant. `name` tells two in one statement apart."""
    below = select(tenants.c.key).where(tenants.c.key == tenant).cte(name, recursive=True)
    below = below.union_all(select(tenants.c.key).where(tenants.c.parent == below.c.key))
    return select(below.c.key)


def _scope(tenant: str) -> Select[Any]:
    return subtree(tenant, name="scope")


def _parent(scope: str | None) -> Expression:
    """Whoever is confined to a tenant is shown none above it."""
    return tenants.c.parent if scope is None else case((tenants.c.key != scope, tenants.c.parent))


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


def _amount(mapping: Expression, resource_class: str) -> Expression:
    return cast(mapping[resource_class].as_string(), BigInteger)


def _host_sum(resource_class: str, what: str) -> Expression:
    capacity = func.coalesce(_amount(hosts.c.capacity, resource_class), 0)
    used = func.coalesce(_amount(hosts.c.used, resource_class), 0)
    if what != "available":
        return capacity if what == "capacity" else used
    ratio = func.coalesce(_amount(groups.c.overcommit, resource_class), 1000)
    room = func.div(cast(capacity, Numeric) * ratio, 1000)
    return _as_bigint(case((hosts.c.state == "available", func.greatest(0, room - used)), else_=0))


def _as_bigint(amount: Expression) -> Expression:
    """To sort by: what lies beyond is as large as it gets."""
    return cast(func.least(amount, BIGINT_MAX), BigInteger)


def _group_sum(resource_class: str, what: str) -> Expression:
    return _as_bigint(_summed(cast(sums.c.document[what][resource_class].as_string(), Numeric), _OF_GROUP, groups))


def _quota_sum(resource_class: str, what: str) -> Expression:
    """Null where the class is unlimited."""
    limit = _amount(quotas.c.limits, resource_class)
    used = func.coalesce(_amount(quotas.c.used, resource_class), 0)
    match what:
        case "capacity":
            return limit
        case "used":
            return cast(used, BigInteger)
        case _:
            return cast(case((limit.is_not(None), func.greatest(0, limit - used))), BigInteger)


_OF_GROUP = and_(sums.c.level == BY_DC, sums.c.group == groups.c.key)
_OF_RACK = and_(sums.c.level == BY_RACK, sums.c.rack == racks.c.key)


def _summed(part: Expression, where: Condition, of: FromClause) -> Expression:
    return select(func.coalesce(func.sum(part), 0)).where(where).correlate(of).scalar_subquery()


def _hosts_of(where: Condition, of: FromClause) -> Expression:
    return cast(_summed(cast(sums.c.document["hosts"].as_string(), BigInteger), where, of), BigInteger)


_over_rack = hosts.outerjoin(racks, racks.c.key == hosts.c.rack)

LISTINGS: dict[str, Listing] = {
    "tenant": Listing(
        source=tenants,
        columns=(),
        filters={"parent": _equals(tenants.c.parent)},
        sorts={"parent": tenants.c.parent},
        in_scope=lambda scope: tenants.c.key.in_(_scope(scope)),
        owner=tenants.c.parent,
    ),
    "rack": Listing(
        source=racks,
        columns=(),
        filters={name: _equals(racks.c[name]) for name in ("region", "dc", "room")},
        sorts={
            **{name: racks.c[name] for name in ("region", "dc", "room")},
            "units": cast(racks.c.document["units"].as_string(), BigInteger),
            "hosts": _hosts_of(_OF_RACK, racks),
        },
        in_scope=_nothing,
        owner=None,
    ),
    "group": Listing(
        source=groups,
        columns=(),
        filters={"region": _equals(groups.c.region)},
        sorts={
            "region": groups.c.region,
            "strategy": groups.c.document["strategy"].as_string(),
            "hosts": _hosts_of(_OF_GROUP, groups),
        },
        in_scope=lambda scope: groups.c.key.in_(select(quotas.c.group).where(quotas.c.tenant.in_(_scope(scope)))),
        owner=None,
        sum_sort=_group_sum,
    ),
    "quota": Listing(
        source=quotas,
        columns=(),
        filters={
            "tenant": _equals(quotas.c.tenant),
            "subtree": lambda tenant: quotas.c.tenant.in_(subtree(tenant, name="subtree")),
            "group": _equals(quotas.c.group),
            "over": _equals(quotas.c.over),
        },
        sorts={name: quotas.c[name] for name in ("tenant", "group", "over")},
        in_scope=lambda scope: quotas.c.tenant.in_(_scope(scope)),
        owner=quotas.c.tenant,
        sum_sort=_quota_sum,
    ),
    "host": Listing(
        source=_over_rack.join(groups, groups.c.key == hosts.c.group),
        columns=(racks.c.region, racks.c.dc, racks.c.room, groups.c.overcommit),
        filters=_place_filters(_equals(hosts.c.group)),
        sorts={
            "group": hosts.c.group,
            "rack": hosts.c.rack,
            "region": racks.c.region,
            "dc": racks.c.dc,
            "room": racks.c.room,
            "unit": cast(hosts.c.document["unit"].as_string(), BigInteger),
        },
        in_scope=_nothing,
        owner=None,
        sum_sort=_host_sum,
    ),
    "vm": Listing(
        source=vms.outerjoin(hosts, hosts.c.key == vms.c.host).outerjoin(racks, racks.c.key == hosts.c.rack),
        columns=(hosts.c.group, hosts.c.rack, racks.c.region, racks.c.dc, racks.c.room),
        filters={
            "tenant": _equals(vms.c.tenant),
            "subtree": lambda tenant: vms.c.tenant.in_(subtree(tenant, name="subtree")),
            "host": _equals(vms.c.host),
            "set": lambda name: literal(name) == any_(vms.c.sets),
            "cluster": _nothing,
            "pool": _nothing,
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
            **{name: vms.c.document[name].as_string() for name in ("image", "operation", "reason", "protected")},
        },
        in_scope=lambda scope: vms.c.tenant.in_(_scope(scope)),
        owner=vms.c.tenant,
    ),
    "operation": Listing(
        source=operations,
        columns=(),
        filters={"target": _equals(operations.c.target), "kind": _equals(operations.c.kind)},
        sorts={
            "id": operations.c.key,
            "kind": operations.c.kind,
            "target": operations.c.target,
            "started_at": operations.c.created_at,
            "ended_at": case((operations.c.state.not_in(("running", "stuck")), operations.c.updated_at)),
            "message": operations.c.document["message"].as_string(),
        },
        in_scope=lambda scope: operations.c.owner.in_(_scope(scope)),
        owner=operations.c.owner,
    ),
    "token": Listing(
        source=tokens,
        columns=(),
        filters={"role": _equals(tokens.c.role), "tenant": _equals(tokens.c.tenant)},
        sorts={"role": tokens.c.role, "tenant": tokens.c.tenant, "expires_at": tokens.c.expires_at},
        in_scope=_nothing,
        owner=tokens.c.tenant,
        always=tokens.c.state == "active",
    ),
}

COMMON_FILTERS = ("state", "owner", "external_id", "updated_since")


def conditions(
    kind: str, *, filters: Mapping[str, Any], q: str | None, labels: Sequence[str], scope: str | None
) -> list[Condition]:
    """What all shown rows fulfil.

    Raises:
        ValueError: a filter that the kind does not have, or a value that it can't have.
    """
    table, listing = LIVING[kind], LISTINGS[kind]
    found: list[Condition] = [] if listing.always is None else [listing.always]
    if scope is not None:
        found.append(listing.in_scope(scope))
    for name, value in filters.items():
        if value is None:
            continue
        match name:
            case "state":
                found.append(table.c.state.in_([value] if isinstance(value, str) else list(value)))
            case "owner" | "parent" if kind == "tenant":
                found.append(_parent(scope) == value)
            case "owner":
                found.append(listing.owner == value if listing.owner is not None else false())
            case "external_id":
                found.append(table.c.external_id == value)
            case "updated_since":
                found.append(table.c.updated_at >= _microseconds(value))
            case _ if name in listing.filters:
                found.append(listing.filters[name](value))
            case _:
                raise ValueError(f"a list of {kind}s has no filter {name}")
    if q:
        found.append(func.strpos(table.c.words, q.lower()) > 0)
    for label in labels:
        key, equals, value = label.partition("=")
        if not equals:
            raise ValueError(f"label takes key=value, and {label!r} has no =")
        found.append(table.c.labels.contains(literal({key: value}, JSONB)))
    return found


def sort_of(kind: str, text: str, *, scope: str | None = None) -> Sort:
    """`name`, `-updated_at`, `cpu_available`: any scalar field, and for what has capacity its amount of any class.

    Cursors carry values of what is sorted by: so within a scope it is what the scope shows.

    Raises:
        ValueError: there is no such field to sort by.
    """
    table, listing = LIVING[kind], LISTINGS[kind]
    is_falling, field = text.startswith("-"), text.removeprefix("-")
    match field:
        case "name":
            return Sort(table.c.name if "name" in table.c else table.c.key, is_falling, True)
        case "version" | "created_at" | "updated_at" | "state":
            return Sort(table.c[field], is_falling, True)
        case "external_id":
            return Sort(table.c.external_id, is_falling)
        case "owner" | "parent" if kind == "tenant":
            return Sort(_parent(scope), is_falling)
        case "owner":
            return Sort(listing.owner if listing.owner is not None else cast(None, Text), is_falling)
        case "uid" | "display_name" | "description":
            return Sort(_by_bytes(table.c.document[field].as_string()), is_falling)
        case _ if field in listing.sorts:
            return Sort(_by_bytes(listing.sorts[field]), is_falling)
    if listing.sum_sort is not None and (found := _SUM.match(field)):
        return Sort(listing.sum_sort(found[1], found[2]), is_falling)
    raise ValueError(f"a list of {kind}s can't be sorted by {field!r}")


def page(statement: Select[Any], *, sort: Sort, key: Expression, after: Cursor | None, limit: int) -> Select[Any]:
    """The next `limit` rows by (sort, key), with the sort's value as the column `sort_value`, and one more row if more.

    A row that is added or removed meanwhile moves no other: each is shown once, if it stands all the while.

    Raises:
        ValueError: a cursor whose values can't be those of a row.
    """
    value, is_falling = sort.expression, sort.is_falling
    statement = statement.add_columns(value.label("sort_value"))
    by_key_alone = value is key
    if after is not None:
        is_null = after.value is None and not sort.is_total
        if not (is_null or cursors.fits(after.value, value.type)) or not cursors.fits(after.key, key.type):
            raise ValueError(cursors.NO_CURSOR)
        statement = statement.where(_behind(sort, key, after))
    directed = value.desc() if is_falling else value.asc()
    if not sort.is_total:
        directed = directed.nulls_last()
    order = [directed] if by_key_alone else [directed, key.desc() if _falls_whole(sort) else key.asc()]
    return statement.order_by(*order).limit(limit + 1)


def _behind(sort: Sort, key: Expression, after: Cursor) -> Condition:
    value, last = sort.expression, after.value
    if value is key:
        behind: Condition = key < after.key if sort.is_falling else key > after.key
        return behind
    if sort.is_total:  # one comparison of rows, which an index can begin at
        here, there = tuple_(value, key), tuple_(literal(last, value.type), literal(after.key, key.type))
        behind = here < there if sort.is_falling else here > there
        return behind
    if last is None:
        return and_(value.is_(None), key > after.key)
    bound = literal(last, value.type)
    further = value < bound if sort.is_falling else value > bound
    return or_(further, and_(value == bound, key > after.key), value.is_(None))


def _falls_whole(sort: Sort) -> bool:
    return sort.is_total and sort.is_falling


def _by_bytes(expression: Expression) -> Expression:
    if isinstance(expression.type, String) and expression.type.collation is None:
        return collate(expression, "C")
    return expression


def _microseconds(value: Any) -> int:
    return value if isinstance(value, int) else from_rfc3339(value)


# ── the audit ──

AUDIT_FILTERS = ("actor", "resource", "command", "outcome", "since", "until")


def audit_conditions(*, filters: Mapping[str, Any], q: str | None = None, scope: str | None) -> list[Condition]:
    """`since` and `until` are inclusive, each a time or a position.

    Raises:
        ValueError: a filter that the audit does not have, or a value that it can't have.
    """
    found: list[Condition] = []
    if scope is not None:
        found.append(audit_in_scope(scope))
    if q:
        # Not in requests and problems: of these a scope leaves things out.
        words = (audit.c.actor, audit.c.command, audit.c.resource, audit.c.document["reason"].as_string())
        found.append(func.strpos(func.lower(func.concat_ws("\n", *words)), q.lower()) > 0)
    for name, value in filters.items():
        if value is None:
            continue
        if name not in AUDIT_FILTERS:
            raise ValueError(f"the audit has no filter {name}")
        if name not in ("since", "until"):
            found.append(audit.c[name] == value)
            continue
        is_position = str(value).isdecimal()
        column = audit.c.position if is_position else audit.c.at
        bound = int(value) if is_position else from_rfc3339(value)
        found.append(column >= bound if name == "since" else column <= bound)
    return found


def audit_in_scope(scope: str) -> Condition:
    """Commands on what the subtree's tenants have; an operation is its target's tenant's."""
    seen = _scope(scope)
    operation = select(operations.c.key).where(
        operations.c.key == func.substr(audit.c.resource, len("operation/") + 1), operations.c.owner.in_(seen)
    )
    of_operation = and_(audit.c.resource.startswith("operation/"), operation.correlate(audit).exists())
    return or_(audit.c.owner.in_(seen), of_operation)
