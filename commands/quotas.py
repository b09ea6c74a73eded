"""Commands on quotas."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

from pydantic import Field

from commands import finding, warning
from commands.model import Command, Done, Limits, Name, Protectable
from domain.errors import USED_BY_MAX, BelowUse, InUse
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.quota import KIND as QUOTA
from domain.quota import QuotaDeleted, QuotaSet, would_break
from domain.tenant import KIND as TENANT
from domain.transaction import Transaction
from domain.values import NOTHING_SAID, Resources, ordered
from domain.vm import KIND as VM
from domain.vm import Vm


class _OnQuota(Command):
    group: Name
    tenant: Name


class SetQuota(_OnQuota, Protectable, sets=QUOTA):
    """Set a tenant's limits in a group.

    `limits` is replaced as a whole: a class or count that it does not name is unlimited, 0 forbids.
    """

    limits: Limits = Field(description="By resource class or count; one that is not named is unlimited, 0 forbids")
    force: bool = Field(False, description="Apply even if it is below current use")


class DeleteQuota(_OnQuota, ends=QUOTA):
    """Withdraw a quota under which nothing runs."""


def set(command: SetQuota, tx: Transaction) -> Done:
    """A new quota starts with the use that exists."""
    group, tenant = finding.find(tx, GROUP, command.group), finding.find(tx, TENANT, command.tenant)
    limits = {name: command.limits[name] for name in ordered(command.limits)}
    quota = tx.fleet.get(QUOTA, group.name, tenant.name)
    used = quota.used if quota else _use_of_subtree(tx, group.name, tenant.name)
    if not command.force:
        former = quota.limits if quota else {}
        broken = would_break(f"{group.name}/{tenant.name}", limits=limits, used=used)
        if broken := [b for b in broken if former.get(b["resource"]) is None or b["limit"] < former[b["resource"]]]:
            raise BelowUse(broken)
    about = command.about()
    before = quota.about if quota is not None else NOTHING_SAID
    warnings = warning.of_limits(tx, limits) + warning.of_external_id(tx, command.on(), about, before=before)
    event = QuotaSet(
        uid=quota.uid if quota else tx.new_id(),
        group=group.name,
        tenant=tenant.name,
        limits=limits,
        used=used,
        about=about,
    )
    if quota is None or event != QuotaSet(
        uid=quota.uid, group=quota.group, tenant=quota.tenant, limits=quota.limits, used=quota.used, about=quota.about
    ):
        tx.record(command.on(), event)
    return Done(created=quota is None, warnings=warnings)


def delete(command: DeleteQuota, tx: Transaction) -> Done:
    """No quota, no access: refused while the tenant itself has something in the group."""
    name = f"{command.group}/{command.tenant}"
    found = finding.find(tx, QUOTA, command.group, command.tenant)
    finding.must_not_be_protected("quota", name, found.about)
    own = (VM.stream(vm.tenant, vm.name) for vm in _vms_in(tx.fleet, command.group, command.tenant))
    if found.used and (used_by := sorted(islice(own, USED_BY_MAX))):
        raise InUse("quota", name, used_by)
    tx.record(command.on(), QuotaDeleted())
    return Done()


def must_not_be_protected(tx: Transaction, **of: str) -> None:
    """Of a group or tenant that is to end, and they with it."""
    for quota in tx.fleet.each(QUOTA, **of):
        finding.must_not_be_protected("quota", f"{quota.group}/{quota.tenant}", quota.about)


def end(tx: Transaction, **of: str) -> None:
    """With their group or tenant."""
    for stream in sorted(tx.fleet.streams(QUOTA, **of)):
        tx.record(stream, QuotaDeleted())


def _vms_in(fleet: Fleet, group: str, tenant: str) -> Iterator[Vm]:
    """Those of the tenant that hold something in the group, in no order: whoever needs a few of many pays for these."""
    vms = (fleet.at_stream(VM, stream) for stream in fleet.streams(VM, tenant=tenant))
    return (vm for vm in vms if vm is not None and vm.host is not None and fleet.group_of(vm) == group)


def _use_of_subtree(tx: Transaction, group: str, tenant: str) -> Resources:
    """Where a tenant below has a quota there, that knows what it and those below it use.

    Cost: the VMs of tenants that have none.
    """
    fleet = tx.fleet
    total: defaultdict[str, int] = defaultdict(int)
    pending = [tenant]
    for name in pending:
        if (quota := fleet.get(QUOTA, group, name)) is not None:
            taken = [quota.used]
        else:
            taken = [{**vm.claims, "vms": 1} for vm in _vms_in(fleet, group, name)]
            pending += (child.name for child in fleet.each(TENANT, parent=name))
        for used in taken:
            for resource, amount in used.items():
                total[resource] += amount
    return {name: total[name] for name in ordered(dict(total))}


HANDLERS = {SetQuota: set, DeleteQuota: delete}
