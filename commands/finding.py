"""Finding what a command names, within what its actor may see; what is not there is refused with the nearest name."""

from collections.abc import Container, Iterable, Set
from itertools import islice
from typing import Any

from commands import suggesting
from domain.errors import USED_BY_MAX, InUse, NotFound, Protected, Suspended
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.group import Group
from domain.host import KIND as HOST
from domain.kind import Kind, S
from domain.kinds import BY_NAME
from domain.quota import KIND as QUOTA
from domain.rack import KIND as RACK
from domain.scheduling.filters import PLACES
from domain.tenant import KIND as TENANT
from domain.transaction import Transaction
from domain.values import About
from domain.vm import Where


def find(tx: Transaction, kind: Kind[S], *name: str) -> S:
    """What is called so, as its name's parts say: `find(tx, VM, "acme", "web-1")`. What is over, but kept (a revoked
    token), is not there; within a scope, nor is what belongs by its name to another's tenant.

    Raises:
        NotFound: with the nearest name.
    """
    found = tx.fleet.get(kind, *name)
    if found is None or found.state in kind.ended or (tx.scope is not None and not is_seen(tx, kind, *name)):
        raise missing(tx, kind.name, "/".join(name))
    return found


def group_with_quota(tx: Transaction, name: str) -> Group:
    """A scoped actor finds the groups where a tenant of its subtree has quota."""
    found = find(tx, GROUP, name)
    if tx.scope is None or tx.fleet.get(QUOTA, name, tx.scope) is not None:
        return found
    if not any(sees(tx, stream.split("/")[2]) for stream in tx.fleet.streams(QUOTA, group=name)):
        raise missing(tx, "group", name)
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
            find(tx, HOST, name)
        elif level == "rack":
            find(tx, RACK, name)
        else:
            place(tx, level, name)


def place(tx: Transaction, level: str, name: str) -> None:
    """Raises NotFound, unless there is such a region, dc or room: made by its first rack, gone with the last."""
    if (level, name) not in tx.fleet.racks_by_place:
        raise missing(tx, level, name)


def is_seen(tx: Transaction, kind: Kind[Any], *name: str) -> bool:
    """Is it within the actor's scope, as far as its name tells whose it is?"""
    return tx.scope is None or "tenant" not in kind.named_by or sees(tx, name[kind.named_by.index("tenant")])


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
        found = tx.fleet.get(TENANT, name)
        if found is not None and found.state == "suspended":
            raise Suspended(name if sees(tx, name) else tenant)
    return chain


def must_not_be_protected(kind: str, name: str, about: About) -> None:
    """Raises Protected, for every verb that destroys."""
    if about.protected:
        raise Protected(kind, name)


def must_not_be_in_use(tx: Transaction, kind: Kind[Any], *name: str, apart_from: Container[Kind[Any]] = ()) -> None:
    """Raises InUse while anything refers to it, but for kinds that end with it."""
    used_by = (stream for other, stream in tx.fleet.referring_to(kind, *name) if other not in apart_from)
    if some := sorted(islice(used_by, USED_BY_MAX)):
        raise InUse(kind.name, "/".join(name), some)


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
    known = BY_NAME.get(kind)
    if known is None:
        return suggesting.nearest(
            name,
            known=(place for level, place in fleet.racks_by_place if level == kind),
            exists=lambda slip: (kind, slip) in fleet.racks_by_place,
        )
    return _nearest(fleet, known, name)


def _nearest(fleet: Fleet, kind: Kind[Any], name: str) -> str | None:
    """Of what has a name of its own within another (a VM within its tenant), a slip in one of the two names is found;
    any other name is compared as a whole."""
    if len(kind.named_by) == 1 or kind.own_name in kind.refs:
        return _alike(name, fleet.streams(kind), within=kind.name)
    field = kind.named_by[0]
    outer, _, own = name.partition("/")
    outer_kind = BY_NAME[kind.refs[field]]
    if fleet.get(outer_kind, outer) is None:
        other = _nearest(fleet, outer_kind, outer)
        return f"{other}/{own}" if other is not None and fleet.get(kind, other, own) is not None else None
    near = _alike(own, fleet.streams(kind, **{field: outer}), within=f"{kind.name}/{outer}")
    return f"{outer}/{near}" if near is not None else None


def _alike(name: str, streams: Set[str], *, within: str) -> str | None:
    return suggesting.nearest(
        name,
        known=(stream[len(within) + 1 :] for stream in streams),
        exists=lambda slip: f"{within}/{slip}" in streams,
    )
