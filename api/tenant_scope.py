"""What an actor confined to a tenant may read: that tenant's subtree as it is today, and the groups where it has quota.

A name counts from when its present bearer was created: what had that name before belonged to somebody else. An actor
who may read everything has no `TenantScope`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from domain.kinds import tenant_of
from projections.queries import Life, ReadModel


class TenantScope(msgspec.Struct, frozen=True):
    """`actor` is confined to the tenant `root`. Tenants and groups are those that exist at `position`."""

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
        """Whether what a refusal names may be read. An operation's id reveals nothing about its owner."""
        match kind:
            case "group":
                return self.has_group(name, at)
            case "operation":
                return True
            case _:
                return self.has_tenant(tenant_of(f"{kind}/{name}"), at)


async def tenant_scope_of(read_model: ReadModel, *, actor: str, root: str) -> TenantScope:
    position, seen = await read_model.in_scope(root)
    return TenantScope(actor, root, position, seen["tenant"], seen["group"])


def _lives(life: Life | None, at: int | None) -> bool:
    return life is not None and (at is None or at >= life.began_at)
