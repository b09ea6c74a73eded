"""A tenant: an organisation or department, one node of the tree of tenants."""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.kind import Kind
from domain.values import About


class TenantCreated(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    name: str
    parent: str | None = None
    about: About = About()


class TenantUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    about: About


class TenantMoved(msgspec.Struct, frozen=True):
    parent: str | None


class TenantSuspended(msgspec.Struct, frozen=True):
    pass


class TenantResumed(msgspec.Struct, frozen=True):
    pass


class TenantDeleted(msgspec.Struct, frozen=True):
    pass


TenantEvent = TenantCreated | TenantUpdated | TenantMoved | TenantSuspended | TenantResumed | TenantDeleted


class Tenant(msgspec.Struct, frozen=True):
    uid: str
    name: str
    parent: str | None
    state: str  # active, suspended, deleted
    about: About


def evolve(tenant: Tenant, event: TenantEvent) -> Tenant:
    match event:
        case TenantCreated():
            return Tenant(event.uid, event.name, event.parent, "active", event.about)
        case TenantUpdated():
            return replace(tenant, about=event.about)
        case TenantMoved():
            return replace(tenant, parent=event.parent)
        case TenantSuspended():
            return replace(tenant, state="suspended")
        case TenantResumed():
            return replace(tenant, state="active")
        case TenantDeleted():
            return replace(tenant, state="deleted")
        case _:
            assert_never(event)


KIND = Kind(
    name="tenant",
    plural="tenants",
    named_by=("tenant",),
    state=Tenant,
    states=("active", "suspended", "deleted"),
    events={
        "tenant.created": TenantCreated,
        "tenant.updated": TenantUpdated,
        "tenant.moved": TenantMoved,
        "tenant.suspended": TenantSuspended,
        "tenant.resumed": TenantResumed,
        "tenant.deleted": TenantDeleted,
    },
    evolve=evolve,
    ends=frozenset({TenantDeleted}),
    owner=lambda tenant: tenant.parent,
    refs={"parent": "tenant"},
    rebinds=frozenset({TenantMoved}),
)
