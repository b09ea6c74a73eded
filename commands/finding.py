"""Finding what a command names, within what its actor may see; what is not there is refused with the nearest name."""

from collections.abc import Collection, Iterable
from itertools import islice

from commands import suggesting
from domain.errors import USED_BY_MAX, NotFound, Protected, Suspended
from domain.fleet import Transaction
from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.filters import PLACES
from domain.tenant import Tenant
from domain.values import About
from domain.vm import Vm, Where


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
        if tx.scope not in granted and not any(sees(tx, grantee) for grantee in granted):
            raise missing(tx, "group", name)
    return found


def host(tx: Transaction, name: str) -> Host:
    found = tx.fleet.host(name)
    if found is None:
        raise missing(tx, "host", name)
    return found


def where(tx: Transaction, where: Where | None, groups: Iterable[str]) -> None:
    """Is each place there that a condition on hosts names?

    For a scoped actor only the places of the groups that it asks for are there: the others' are not its to see.

    Raises:
        NotFound: one is not.
    """
    if where is None:
        return
    for level in PLACES:
        name = getattr(where, level)
        if name is None:
            continue
        if tx.scope is not None:
            if not any(tx.fleet.capacity.table(group).has(level, name) for group in groups):
                raise missing(tx, level, name)
        elif level == "host":
            host(tx, name)
        elif level == "rack":
            rack(tx, name)
        else:
            place(tx, level, name)


def place(tx: Transaction, level: str, name: str) -> None:
    """Raises NotFound, unless there is such a region, dc or room: made by its first rack, gone with the last."""
    if (level, name) not in tx.fleet.racks_by_place:
        raise missing(tx, level, name)


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


def must_not_be_protected(kind: str, name: str, about: About) -> None:
    """Raises Protected, for every verb that destroys."""
    if about.protected:
        raise Protected(kind, name)


def quotas_must_not_be_protected(tx: Transaction, quotas: Iterable[tuple[str, str]]) -> None:
    """Of a group or tenant that is to end, and they with it: (group, tenant)."""
    for group, tenant in quotas:
        found = tx.fleet.quota(group, tenant)
        assert found is not None
        must_not_be_protected("quota", f"{group}/{tenant}", found.about)


def some(names: Collection[str]) -> list[str]:
    """At most `USED_BY_MAX` of what stands in a command's way, by name: however many there are, it costs no more."""
    return sorted(names if len(names) <= USED_BY_MAX else islice(names, USED_BY_MAX))


def missing(tx: Transaction, kind: str, name: str) -> NotFound:
    """The refusal, with the nearest name of that kind (none for a scoped actor, to whom others' names are secret).

    `kind` may also be a level of places: region, dc or room.
    """
    if tx.scope is not None:
        return NotFound(kind, name, in_scope=True)
    near = nearest(tx, kind, name)
    return NotFound(kind, name, near if near != name else None)  # a revoked token has its name for ever


def nearest(tx: Transaction, kind: str, name: str) -> str | None:
    """The name of the kind, or of a place at the level, that was probably meant."""
    fleet = tx.fleet
    if kind == "vm":
        tenant, _, own = name.partition("/")
        if fleet.tenant(tenant) is None:
            other = nearest(tx, "tenant", tenant)
            return f"{other}/{own}" if other is not None and fleet.vm(other, own) is not None else None
        near = suggesting.nearest(
            own,
            known=(stream.rpartition("/")[2] for stream in fleet.vms_by_tenant.get(tenant, ())),
            exists=lambda slip: fleet.vm(tenant, slip) is not None,
        )
        return f"{tenant}/{near}" if near is not None else None
    if kind in ("region", "dc", "room"):
        return suggesting.nearest(
            name, known=fleet.names(kind), exists=lambda slip: (kind, slip) in fleet.racks_by_place
        )
    return suggesting.nearest(name, known=fleet.names(kind), exists=lambda slip: f"{kind}/{slip}" in fleet.entries)
