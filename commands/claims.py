"""Claims: taken on a host and in every quota of the tenant's chain, and given back to those that stand now."""

from collections import defaultdict
from collections.abc import Iterable

from domain.host import KIND as HOST
from domain.host import HostClaimed, HostReleased
from domain.quota import KIND as QUOTA
from domain.quota import QuotaConsumed, QuotaReleased
from domain.transaction import Transaction
from domain.values import Resources, plus
from domain.vm import KIND as VM
from domain.vm import Vm

Uses = dict[tuple[str, str], Resources]  # (group, tenant) → what is used there


def take(
    tx: Transaction, vm: str, *, host: str, group: str, chain: Iterable[str], resources: Resources, vms: int
) -> None:
    """Claim `resources` for the VM of stream `vm`; `vms` is 1 for a new VM, 0 for one that grows."""
    tx.record(HOST.stream(host), HostClaimed(vm, resources))
    counted = {**resources, "vms": vms} if vms else resources
    for quota in tx.fleet.quotas(group, chain):
        tx.record(QUOTA.stream(group, quota.tenant), QuotaConsumed(vm, counted))


def give_back(tx: Transaction, vm: Vm, *, resources: Resources, vms: int) -> None:
    """Release from the VM's host, and from each quota that stands now along its tenant's present chain.

    `vm` is the VM while it still had its host.
    """
    assert vm.host is not None, "what has no host holds nothing"
    stream = VM.stream(vm.tenant, vm.name)
    tx.record(HOST.stream(vm.host), HostReleased(stream, resources))
    group = tx.fleet.group_of(vm)
    counted = {**resources, "vms": vms} if vms else resources
    for quota in tx.fleet.quotas(group, tx.fleet.chain(vm.tenant)):
        tx.record(QUOTA.stream(group, quota.tenant), QuotaReleased(stream, counted))


def uses_of(tx: Transaction, vms: Iterable[Vm]) -> Uses:
    """What these VMs use, per group and tenant of their own (ancestors not included)."""
    uses: defaultdict[tuple[str, str], Resources] = defaultdict(dict)
    for vm in vms:
        if vm.claims:
            key = (tx.fleet.group_of(vm), vm.tenant)
            uses[key] = plus(uses[key], {**vm.claims, "vms": 1})
    return dict(uses)


def along_chains(uses: Uses, chains: dict[str, list[str]]) -> Uses:
    """The same uses, counted against each tenant of their tenants' chains."""
    counted: defaultdict[tuple[str, str], Resources] = defaultdict(dict)
    for (group, tenant), used in uses.items():
        for name in chains[tenant]:
            counted[group, name] = plus(counted[group, name], used)
    return dict(counted)


def shift(tx: Transaction, by: str, *, before: Uses, after: Uses) -> None:
    """One release and one consumption per touched quota, summed; where both are the same, nothing."""
    for group, tenant in sorted(before.keys() | after.keys()):
        gone, came = before.get((group, tenant), {}), after.get((group, tenant), {})
        if gone == came or tx.fleet.get(QUOTA, group, tenant) is None:
            continue
        stream = QUOTA.stream(group, tenant)
        if gone:
            tx.record(stream, QuotaReleased(by, gone))
        if came:
            tx.record(stream, QuotaConsumed(by, came))
