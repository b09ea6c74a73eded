"""Finding what a command names, within what its actor may see; what is not there is refused with the nearest name."""

from difflib import get_close_matches

from domain.errors import NotFound, Suspended
from domain.fleet import Transaction
from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.tenant import Tenant
from domain.vm import Vm

NAMES_COMPARED_MAX = 2_000  # a suggestion is a courtesy; it may not cost more than the decision


def tenant(tx: Transaction, name: str) -> Tenant:
    found = tx.fleet.tenant(name)
    if found is None or not sees(tx, name):
        raise missing(tx, "tenant", name)
    return found


def rack(tx: Transaction, name: str) -> Rack:
    found = tx.fleet.rack(name)
    if found is None:
        raise missing(tx, "rack", name)
    return found


def group(tx: Transaction, name: str) -> Group:
    """A scoped actor sees the groups where a tenant of its subtree has quota."""
    found = tx.fleet.group(name)
    if found is None:
        raise missing(tx, "group", name)
    if tx.scope is not None:
        granted = tx.fleet.quotas_by_group.get(name, set())
        if not any(sees(tx, grantee) for grantee in granted):
            raise missing(tx, "group", name)
    return found


def host(tx: Transaction, name: str) -> Host:
    found = tx.fleet.host(name)
    if found is None:
        raise missing(tx, "host", name)
    return found


def vm(tx: Transaction, tenant: str, name: str) -> Vm:
    found = tx.fleet.vm(tenant, name)
    if found is None or not sees(tx, tenant):
        raise missing(tx, "vm", f"{tenant}/{name}")
    return found


def sees(tx: Transaction, tenant: str) -> bool:
    """Is `tenant` within the actor's scope?"""
    return tx.scope is None or tx.scope in tx.fleet.chain(tenant)


def may_grow(tx: Transaction, tenant: str) -> list[str]:
    """The chain of a tenant that may have new or larger workload.

    Raises:
        Suspended: the tenant or an ancestor is.
    """
    chain = tx.fleet.chain(tenant)
    for name in chain:
        found = tx.fleet.tenant(name)
        if found is not None and found.state == "suspended":
            raise Suspended(name if sees(tx, name) else tenant)
    return chain


def missing(tx: Transaction, kind: str, name: str) -> NotFound:
    """The refusal, with the nearest name of that kind (none for a scoped actor, to whom others' names are secret)."""
    if tx.scope is not None:
        return NotFound(kind, name)
    names = [other for other, _ in zip(tx.fleet.names(kind), range(NAMES_COMPARED_MAX), strict=False)]
    near = get_close_matches(name, names, n=1, cutoff=0.7)
    return NotFound(kind, name, near[0] if near else None)
