"""Whom an actor who is confined to a tenant sees: today's subtree of it, and the groups where that has quota.

A name is seen for as long as who bears it today has borne it: what stood under it before was another's. An actor who
sees everything has no `Sight`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from projections.queries import Life, ReadModel


class Sight(msgspec.Struct, frozen=True):
    """`actor` is confined to the tenant `root`. Tenants and groups are as they live at `position`."""

    actor: str
    root: str
    position: int
    tenants: Mapping[str, Life]
    groups: Mapping[str, Life]

    def has_tenant(self, name: Any, at: int | None = None) -> bool:
        """Whether the name is one of the subtree's; `at` a time (microseconds since 1970), or now."""
        return _lives(self.tenants.get(name), at)

    def has_group(self, name: Any, at: int | None = None) -> bool:
        return _lives(self.groups.get(name), at)

    def has(self, kind: Any, name: Any, at: int | None = None) -> bool:
        """Whether what a refusal names is seen. An operation's id tells nothing of whose it is."""
        match kind:
            case "group":
                return self.has_group(name, at)
            case "operation":
                return True
            case _:
                return self.has_tenant(owner_of(f"{kind}/{name}"), at)


async def sight_of(read_model: ReadModel, *, actor: str, root: str) -> Sight:
    position, seen = await read_model.in_sight(root)
    return Sight(actor, root, position, seen["tenant"], seen["group"])


def _lives(life: Life | None, at: int | None) -> bool:
    return life is not None and (at is None or at >= life.began_at)


def owner_of(stream: str | None) -> str | None:
    """The tenant whose a stream is; None for what no tenant has, and for operations and commands, which follow another
    stream."""
    kind, *names = (stream or "").split("/")
    match kind, names:
        case ("tenant", [tenant]) | ("vm" | "cluster", [tenant, _]) | ("quota", [_, tenant]):
            return tenant
        case _:
            return None
