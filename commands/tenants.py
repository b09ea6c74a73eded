"""Commands on tenants."""

from typing import Any

from pydantic import Field

from commands import claims, finding, quotas, warning
from commands.model import Command, Done, Name, Protectable, Redescribed
from domain.errors import AlreadyExists, BelowUse, Conflict
from domain.quota import KIND as QUOTA
from domain.quota import would_break
from domain.tenant import KIND as TENANT
from domain.tenant import (
    TenantCreated,
    TenantDeleted,
    TenantMoved,
    TenantResumed,
    TenantSuspended,
    TenantUpdated,
)
from domain.transaction import Transaction
from domain.values import minus, plus
from domain.vm import KIND as VM

DEPTH_MAX = 16  # a chain is walked for every decision


class CreateTenant(Protectable, creates=TENANT):
    """Create a tenant."""

    name: Name
    parent: Name | None = Field(None, description="The parent tenant")


class _OnTenant(Command):
    tenant: Name


class UpdateTenant(_OnTenant, Redescribed, changes=TENANT):
    """Change a tenant's words and protection."""


class MoveTenant(_OnTenant, does=TENANT, verb="move"):
    """Give a tenant another parent.

    `parent` null makes it a root. `force` leaves quotas above their limits.
    """

    parent: Name | None = Field(description="The new parent tenant; null: none")
    force: bool = Field(False, description="Apply even if a quota is then exceeded")


class SuspendTenant(_OnTenant, does=TENANT, verb="suspend"):
    """Allow a tenant no new workload."""


class ResumeTenant(_OnTenant, does=TENANT, verb="resume"):
    """Allow a tenant new workload again."""


class DeleteTenant(_OnTenant, ends=TENANT):
    """Delete a tenant that has nothing."""


def create(command: CreateTenant, tx: Transaction) -> Done:
    if command.parent is not None:
        finding.find(tx, TENANT, command.parent)
    if tx.fleet.get(TENANT, command.name) is not None:
        raise AlreadyExists("tenant", command.name)
    if command.parent is not None:
        _must_not_be_too_deep(command.name, len(tx.fleet.chain(command.parent)) + 1)
    about = command.about()
    warnings = warning.of_external_id(tx, command.on(), about)
    tx.record(command.on(), TenantCreated(tx.new_id(), command.name, command.parent, about))
    return Done(created=True, warnings=warnings)


def update(command: UpdateTenant, tx: Transaction) -> Done:
    tenant = finding.find(tx, TENANT, command.tenant)
    about = command.patched(tenant.about)
    warnings = warning.of_external_id(tx, command.on(), about, before=tenant.about)
    if about != tenant.about:
        tx.record(command.on(), TenantUpdated(about))
    return Done(warnings=warnings)


def move(command: MoveTenant, tx: Transaction) -> Done:
    """The use of the whole subtree leaves the old ancestors' quotas and comes into the new ones'."""
    fleet = tx.fleet
    tenant = finding.find(tx, TENANT, command.tenant)
    if command.parent == tenant.parent:
        return Done()
    subtree = fleet.subtree(tenant.name)
    ancestors: list[str] = []
    if command.parent is not None:
        finding.find(tx, TENANT, command.parent)
        if command.parent in subtree:
            raise Conflict(
                f"{command.parent!r} is {tenant.name!r} itself or below it; choose a parent outside its subtree.",
                command.parent,
            )
        ancestors = fleet.chain(command.parent)
    _must_not_be_too_deep(tenant.name, len(ancestors) + _height(tx, tenant.name))

    uses = claims.uses_of(tx, (vm for name in subtree for vm in fleet.each(VM, tenant=name)))
    former = {name: fleet.chain(tenant.name)[1:] for name in subtree}
    coming = dict.fromkeys(subtree, ancestors)
    before, after = claims.along_chains(uses, former), claims.along_chains(uses, coming)
    if not command.force:
        broken: list[dict[str, Any]] = []
        for (group, name), used in sorted(after.items()):
            quota = fleet.get(QUOTA, group, name)
            if quota is not None:
                total = plus(minus(quota.used, before.get((group, name), {})), used)
                grown = {k: v for k, v in total.items() if v > quota.used.get(k, 0)}
                broken += would_break(f"{group}/{name}", limits=quota.limits, used=grown)
        if broken:
            raise BelowUse(broken)
    tx.record(command.on(), TenantMoved(command.parent))
    claims.shift(tx, command.on(), before=before, after=after)
    return Done()


def suspend(command: SuspendTenant, tx: Transaction) -> Done:
    if finding.find(tx, TENANT, command.tenant).state != "suspended":
        tx.record(command.on(), TenantSuspended())
    return Done()


def resume(command: ResumeTenant, tx: Transaction) -> Done:
    if finding.find(tx, TENANT, command.tenant).state == "suspended":
        tx.record(command.on(), TenantResumed())
    return Done()


def delete(command: DeleteTenant, tx: Transaction) -> Done:
    """Its quotas end with it; what it has or who is confined to it keeps it."""
    tenant = finding.find(tx, TENANT, command.tenant)
    name = tenant.name
    finding.must_not_be_protected("tenant", name, tenant.about)
    quotas.must_not_be_protected(tx, tenant=name)
    finding.must_not_be_in_use(tx, TENANT, name, apart_from=(QUOTA,))
    quotas.end(tx, tenant=name)
    tx.record(command.on(), TenantDeleted())
    return Done()


def _height(tx: Transaction, name: str) -> int:
    return 1 + max((_height(tx, child.name) for child in tx.fleet.each(TENANT, parent=name)), default=0)


def _must_not_be_too_deep(name: str, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise Conflict(f"The tree of tenants has at most {DEPTH_MAX} levels; choose a parent higher up.", name)


HANDLERS = {
    CreateTenant: create,
    UpdateTenant: update,
    MoveTenant: move,
    SuspendTenant: suspend,
    ResumeTenant: resume,
    DeleteTenant: delete,
}
