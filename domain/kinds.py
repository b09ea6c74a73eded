"""The kinds of resources, a line each, and what is derived from all of them together."""

from typing import Any

from domain import group, host, operation, quota, rack, tenant, token, vm
from domain.kind import Kind

KINDS: tuple[Kind[Any], ...] = (
    tenant.KIND,
    rack.KIND,
    group.KIND,
    host.KIND,
    quota.KIND,
    vm.KIND,
    operation.KIND,
    token.KIND,
)

BY_NAME: dict[str, Kind[Any]] = {kind.name: kind for kind in KINDS}
BY_STATE: dict[type, Kind[Any]] = {kind.state: kind for kind in KINDS}
BY_EVENT: dict[type, Kind[Any]] = {event: kind for kind in KINDS for event in kind.events.values()}
ENDS: frozenset[type] = frozenset(event for kind in KINDS for event in kind.ends)


def tenant_of(stream: str) -> str | None:
    """The tenant whose the stream's resource is by its very name (`vm/acme/web-1`), or that it is itself; None for what
    no tenant has by its name."""
    kind, *name = stream.split("/")
    known = BY_NAME.get(kind)
    if known is None or "tenant" not in known.named_by or len(name) != len(known.named_by):
        return None
    return name[known.named_by.index("tenant")]


def path_of(stream: str) -> str:
    """Where the resource of a stream is read over HTTP."""
    kind, *name = stream.split("/")
    return BY_NAME[kind].path_of(*name)


def owner_of(state: Any) -> str | None:
    """The tenant to whom a resource belongs."""
    kind = BY_STATE[type(state)]
    return tenant_of(getattr(state, kind.target)) if kind.target is not None else kind.owner(state)


def in_order_of_references() -> tuple[Kind[Any], ...]:
    """The kinds, each behind those that it refers to: the order in which resources can be made."""
    found: list[Kind[Any]] = []

    def take(kind: Kind[Any]) -> None:
        for name in kind.refs.values():
            if name != kind.name:
                take(BY_NAME[name])
        if kind not in found:
            found.append(kind)

    for kind in KINDS:
        take(kind)
    return tuple(found)
