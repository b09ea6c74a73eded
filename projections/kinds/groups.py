"""Groups, as they are shown: with sums over their hosts."""

from typing import Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy.dialects.postgresql import JSONB

from domain.fleet import Fleet
from domain.group import KIND, Group
from domain.scheduling.registry import STRATEGIES
from domain.values import ratios
from projections.amounts import BIGINT_MAX, Totals, added
from projections.field_types import AMOUNTS, MAYBE, NATURAL, RATIOS, Name, enum
from projections.fields import Scope, common, joined, own, stored
from projections.members import with_members
from projections.sums import BY_DC
from projections.view import AmountSorts, Bearer, Document, Others, View

T = TypeVar("T")

_OF_GROUP = f"sums.level = '{BY_DC}' AND sums.group = groups.key"
_SUMS = f"(SELECT json_agg(document) FROM sums WHERE {_OF_GROUP})"
_HOSTS = f"(SELECT coalesce(sum((document ->> 'hosts')::bigint), 0) FROM sums WHERE {_OF_GROUP})::bigint"
_AMOUNT = f"""
least(
    (SELECT coalesce(sum((document -> '{{what}}' ->> :class)::numeric), 0) FROM sums WHERE {_OF_GROUP}), {BIGINT_MAX}
)
"""


class Facts(NamedTuple, Generic[T]):
    sums: T


_totals = msgspec.json.Decoder(list[Totals]).decode


def _members(totals: Totals) -> Document:
    return {"hosts": totals.hosts, "capacity": totals.capacity, "used": totals.used, "available": totals.available}


def _from_row(document: bytes, facts: Facts[bytes | None], scope: str | None) -> bytes:
    if scope is not None:
        return document
    return with_members(document, _members(added(_totals(facts.sums) if facts.sums else ())))


def _from_fleet(fleet: Fleet, group: Group, document: Document) -> Document:
    hosts, capacity = fleet.capacity.capacity_of(group.name)
    used, available = fleet.capacity.totals(group.name)
    return document | _members(Totals(hosts, capacity, used, available))


def _hosts(fleet: Fleet, group: Group) -> int:
    return fleet.capacity.capacity_of(group.name)[0]


def _amount(fleet: Fleet, group: Group, what: str, of: str) -> int:
    _, capacity = fleet.capacity.capacity_of(group.name)
    used, available = fleet.capacity.totals(group.name)
    return min({"capacity": capacity, "used": used, "available": available}[what].get(of, 0), BIGINT_MAX)


def _is_in_scope(scope: Scope, bearer: Bearer) -> bool:
    return scope.has_group(bearer.name, bearer.at)


VIEW: View[Group] = View(
    kind=KIND,
    fields=(
        *common(KIND),
        own("region", MAYBE, column=Name, filters=True, sorts=True),
        own("strategy", enum(*STRATEGIES), sorts=True),
        own("overcommit", RATIOS, lambda group: ratios(group.overcommit)),
        joined("hosts", NATURAL, sql=_HOSTS, over=_hosts, sorts=True, is_hidden=True, is_optional=True),
        joined("capacity", AMOUNTS, is_hidden=True, is_optional=True),
        joined("used", AMOUNTS, is_hidden=True, is_optional=True),
        joined("available", AMOUNTS, is_hidden=True, is_optional=True),
    ),
    stored=(stored("overcommit", JSONB()),),
    others=Others(facts=Facts(sums=_SUMS), from_row=_from_row, from_fleet=_from_fleet),
    amount_sorts=AmountSorts(
        sql={what: _AMOUNT.format(what=what) for what in ("available", "used", "capacity")},
        over=_amount,
        is_hidden=True,
    ),
    in_scope="groups.key IN (SELECT quotas.group FROM quotas WHERE quotas.tenant IN (SELECT key FROM scope))",
    is_in_scope=_is_in_scope,
    short=("g",),
    columns=("name", "display_name", "region", "strategy", "hosts"),
    wide=("overcommit", "available", "labels", "version"),
    amounts=("used", "capacity"),
    yields=("region", "display_name", "strategy"),
)
