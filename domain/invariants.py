"""What must hold in every fleet at the end of every command, as one function: invariants 1 to 3 of the architecture,
and that what is on its way has an operation that brings it to its end."""

from collections import defaultdict

from domain.fleet import Fleet
from domain.group import Group
from domain.host import Host
from domain.quota import Quota
from domain.values import Resources, available, plus
from domain.vm import IN_PROGRESS, Vm


def violations(fleet: Fleet) -> list[str]:
    """One sentence for each thing that is wrong; empty when all is right. Reads the whole fleet.

    That a placement never takes a host or a quota beyond its limit can't be seen in a state alone, as `force` may leave
    them above; the deciders hold it, and the tests of the command set check it at each grant.
    """
    claims: defaultdict[str, Resources] = defaultdict(dict)
    uses: defaultdict[tuple[str, str], Resources] = defaultdict(dict)
    found: list[str] = []
    for stream, entry in fleet.entries.items():
        vm = entry.state
        if not isinstance(vm, Vm):
            continue
        if (wrong := _without_its_operation(fleet, stream, vm)) is not None:
            found.append(wrong)
        if not vm.claims:
            continue
        if vm.host is None or fleet.host(vm.host) is None:
            found.append(f"{stream} claims {vm.claims} on no host")
            continue
        claims[vm.host] = plus(claims[vm.host], vm.claims)
        for tenant in fleet.chain(vm.tenant):
            key = (fleet.group_of(vm), tenant)
            uses[key] = plus(uses[key], {**vm.claims, "vms": 1})
    for id, operation in fleet.operations.items():
        target = fleet.find(operation.target)
        if target is None or target.operation != id:
            found.append(f"operation/{id} is {operation.state}, and {operation.target} knows nothing of it")
    free: defaultdict[str, Resources] = defaultdict(dict)
    for stream, entry in fleet.entries.items():
        state = entry.state
        if isinstance(state, Host):
            if state.used != claims[state.name]:
                found.append(f"{stream} has used {state.used}, but its VMs claim {claims[state.name]}")
            group = fleet.group(state.group)
            if group is None:
                found.append(f"{stream} is in group {state.group}, which does not exist")
            elif state.is_schedulable:
                free[state.group] = plus(free[state.group], available(state.capacity, group.overcommit, state.used))
        elif isinstance(state, Quota) and state.used != uses[state.group, state.tenant]:
            found.append(f"{stream} has used {state.used}, but the subtree uses {uses[state.group, state.tenant]}")
    for stream, entry in fleet.entries.items():
        if isinstance(entry.state, Group):
            shown = fleet.capacity.totals(entry.state.name)[1]
            if _present(shown) != _present(free[entry.state.name]):
                found.append(f"{stream} has {shown} available, but its schedulable hosts {free[entry.state.name]}")
    return found


def _without_its_operation(fleet: Fleet, stream: str, vm: Vm) -> str | None:
    """A state in progress needs an operation, running or stuck, that ends it; any other has none."""
    operation = fleet.operations.get(vm.operation) if vm.operation is not None else None
    if vm.operation is None:
        return f"{stream} is {vm.state} without an operation" if vm.state in IN_PROGRESS else None
    if operation is None or operation.target != stream:
        return f"{stream} is {vm.state} by operation {vm.operation}, which does not run there"
    return None if vm.state in IN_PROGRESS else f"{stream} is {vm.state}, and has operation {vm.operation}"


def _present(resources: Resources) -> Resources:
    return {name: amount for name, amount in resources.items() if amount}
