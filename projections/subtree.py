"""A tenant and all below it, in SQL: what a scope is, and what a filter `subtree` asks for."""

from sqlalchemy import CTE, BigInteger, Text, column, text

from domain.fleet import Fleet
from projections.field_types import Name
from projections.fields import Filter, OfEntry, Scope

_BELOW = """
SELECT key, uid, created_at FROM tenants WHERE key = :{tenant}
UNION ALL
SELECT tenants.key, tenants.uid, tenants.created_at FROM tenants JOIN {name} ON tenants.parent = {name}.key
"""


def scope_clause() -> CTE:
    """Those to whom whoever asks is confined, as they live today: in a statement with this clause, conditions can speak
    of `scope` (key, uid, created_at). Its parameter is `scope`."""
    below = text(_BELOW.format(tenant="scope", name="scope"))
    return below.columns(column("key", Name), column("uid", Text), column("created_at", BigInteger)).cte(
        "scope", recursive=True
    )


def keys_below(parameter: str) -> str:
    """A subquery."""
    return f"(WITH RECURSIVE below AS ({_BELOW.format(tenant=parameter, name='below')}) SELECT key FROM below)"


def subtree_filter(tenant: str) -> Filter:
    """By the tenant that the SQL gives, of states that have a `tenant`. A subtree that is above a scope shows nothing,
    or it would tell who is above."""
    condition = f"{tenant} IN {keys_below('subtree')}"

    def over(fleet: Fleet, subtree: str, scope: Scope | None) -> OfEntry:
        if scope is not None and not scope.has_tenant(subtree, fleet.at):
            return lambda key, entry: False
        tenants = frozenset(fleet.subtree(subtree))
        return lambda key, entry: entry.state.tenant in tenants

    return Filter(
        name="subtree",
        description="Only those of this tenant and all below it",
        sql=condition,
        sql_in_scope=f"{condition} AND :subtree IN (SELECT key FROM scope)",
        over=over,
    )
