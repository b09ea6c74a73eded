"""Quotas, as they are shown: with what is free under them and under all above them."""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import Boolean

from domain.fleet import Fleet
from domain.quota import KIND, Quota
from domain.values import Resources
from projections.amounts import in_order, with_zeros
from projections.field_types import AMOUNTS, BOOLEAN, STRING, Name
from projections.fields import common, joined, own, stored
from projections.members import with_members
from projections.subtree import subtree_filter
from projections.view import AmountSorts, Document, Others, View, owned_in_scope

T = TypeVar("T")

_ABOVE = """
(
    WITH RECURSIVE up AS (
        SELECT own.parent FROM tenants own WHERE own.key = quotas.tenant
        UNION ALL
        SELECT above.parent FROM up JOIN tenants above ON above.key = up.parent
    )
    SELECT json_agg(json_build_array(above.limits, above.used))
    FROM up JOIN quotas above ON above.tenant = up.parent AND above.group = quotas.group
)
"""
_LIMIT = "(quotas.limits ->> :class)::bigint"
_USED = "coalesce((quotas.used ->> :class)::bigint, 0)"


class Facts(NamedTuple, Generic[T]):
    above: T  # limits and use of the quotas of tenants above, in the same group


class _Part(msgspec.Struct):
    available: Resources


_above = msgspec.json.Decoder(list[tuple[Resources, Resources]]).decode
_part = msgspec.json.Decoder(_Part).decode


def _available(quota: Quota) -> Resources:
    return {name: max(0, limit - quota.used.get(name, 0)) for name, limit in quota.limits.items()}


def _members(available: Resources, *, above: Iterable[tuple[Resources, Resources]]) -> Document:
    least: Resources = dict(available)
    for limits, used in above:
        for name, limit in limits.items():
            left = max(0, limit - used.get(name, 0))
            least[name] = min(least.get(name, left), left)
    return {"effective_available": in_order(least)}


def _from_row(document: bytes, facts: Facts[bytes | None], scope: str | None) -> bytes:
    above = _above(facts.above) if facts.above else ()
    return with_members(document, _members(_part(document).available, above=above))


def _from_fleet(fleet: Fleet, quota: Quota, document: Document) -> Document:
    above = fleet.quotas(quota.group, fleet.chain(quota.tenant)[1:])
    return document | _members(document["available"], above=[(one.limits, one.used) for one in above])


def _amount(fleet: Fleet, quota: Quota, what: str, of: str) -> int | None:
    """None where the class is unlimited."""
    limit, used = quota.limits.get(of), quota.used.get(of, 0)
    if what == "used":
        return used
    return limit if what == "capacity" or limit is None else max(0, limit - used)


VIEW: View[Quota] = View(
    kind=KIND,
    fields=(
        *common(KIND, owner="quotas.tenant"),
        own("tenant", STRING, column=Name, is_indexed=True, filters=True, sorts=True),
        own("group", STRING, column=Name, is_indexed=True, filters=True, sorts=True),
        own("limits", AMOUNTS),
        own("used", AMOUNTS, lambda quota: with_zeros(quota.used, quota.limits)),
        own("available", AMOUNTS, _available),
        joined("effective_available", AMOUNTS),
        own(
            "over",
            BOOLEAN,
            column=Boolean(),
            filters=True,
            filter_as="Only quotas that are exceeded (true), or not (false)",
            sorts=True,
        ),
    ),
    filters=(subtree_filter("quotas.tenant"),),
    stored=(
        stored("limits", JSONB()),
        stored("used", JSONB()),
    ),
    is_lively=True,
    others=Others(facts=Facts(above=_ABOVE), from_row=_from_row, from_fleet=_from_fleet),
    amount_sorts=AmountSorts(
        sql={
            "available": f"CASE WHEN {_LIMIT} IS NOT NULL THEN greatest(0, {_LIMIT} - {_USED}) END",
            "used": _USED,
            "capacity": _LIMIT,
        },
        over=_amount,
    ),
    in_scope="quotas.tenant IN (SELECT key FROM scope)",
    is_in_scope=owned_in_scope,
    short=("q",),
    columns=("group", "tenant", "display_name", "over"),
    wide=("effective_available", "version"),
    amounts=("used", "limits"),
)
