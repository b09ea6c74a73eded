"""What must hold in every fleet at the end of every command, as one function: invariants 1 to 3 of the architecture,
and that what is on its way has an operation that brings it to its end."""

from collections import defaultdict

from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.values import Resources, available, name_of, plus
from domain.vm import IN_PROGRESS, Vm
from domain.vm import KIND as VM


def violations(fleet: Fleet) -> list[str]:
    """One sentence for each thing that is wrong; empty when all is right. Reads the whole fleet.

    That a placement never takes a host or a quota beyond its limit can't be seen in a state alone, as `force` may leave
    them above; the deciders hold it, and the tests of the command set check it at each grant.
    """
    claims: defaultdict[str, Resources] = defaultdict(dict)
    uses: defaultdict[tuple[str, str], Resources] = defaultdict(dict)
    found: list[str] = []
    for vm in fleet.each(VM):
        stream = VM.stream(vm.tenant, vm.name)
        if (wrong := _without_its_operation(fleet, stream, vm)) is not None:
            found.append(wrong)
        if not vm.claims:
            continue
        if vm.host is None or fleet.get(HOST, vm.host) is None:
            found.append(f"{stream} claims {vm.claims} on no host")
            continue
        claims[vm.host] = plus(claims[vm.host], vm.claims)
        for tenant in fleet.chain(vm.tenant):
            key = (fleet.group_of(vm), tenant)
            uses[key] = plus(uses[key], {**vm.claims, "vms": 1})
    for stream, entry in fleet.living[OPERATION.name].items():
        target = fleet.entry(entry.state.target)
        if target is None or target.state.operation != name_of(stream):
            found.append(f"{stream} is {entry.state.state}, and {entry.state.target} knows nothing of it")
    free: defaultdict[str, Resources] = defaultdict(dict)
    for host in fleet.each(HOST):
        stream = HOST.stream(host.name)
        if host.used != claims[host.name]:
            found.append(f"{stream} has used {host.used}, but its VMs claim {claims[host.name]}")
        group = fleet.get(GROUP, host.group)
        if group is None:
            found.append(f"{stream} is in group {host.group}, which does not exist")
        elif host.is_schedulable:
            free[host.group] = plus(free[host.group], available(host.capacity, group.overcommit, host.used))
    for quota in fleet.each(QUOTA):
        if quota.used != uses[quota.group, quota.tenant]:
            stream = QUOTA.stream(quota.group, quota.tenant)
            found.append(f"{stream} has used {quota.used}, but the subtree uses {uses[quota.group, quota.tenant]}")
    for name in map(name_of, fleet.streams(GROUP)):
        shown = fleet.capacity.totals(name)[1]
        if _present(shown) != _present(free[name]):
            found.append(f"{GROUP.stream(name)} has {shown} available, but its schedulable hosts {free[name]}")
    return found


def _without_its_operation(fleet: Fleet, stream: str, vm: Vm) -> str | None:
    """A state in progress needs an operation, running or stuck, that ends it; any other has none."""
    operation = fleet.get(OPERATION, vm.operation) if vm.operation is not None else None
    if vm.operation is None:
        return f"{stream} is {vm.state} without an operation" if vm.state in IN_PROGRESS else None
    if operation is None or operation.target != stream:
        return f"{stream} is {vm.state} by operation {vm.operation}, which does not run there"
    return None if vm.state in IN_PROGRESS else f"{stream} is {vm.state}, and has operation {vm.operation}"


def _present(resources: Resources) -> Resources:
    return {name: amount for name, amount in resources.items() if amount}
