"""What must hold in every fleet at the end of every command: invariants 1 to 3 of the architecture, as one function."""

from collections import defaultdict

from domain.fleet import Fleet
from domain.group import Group
from domain.host import Host
from domain.quota import Quota
from domain.values import Resources, available, plus
from domain.vm import Vm


def violations(fleet: Fleet) -> list[str]:
    """One sentence for each account that is wrong; empty when all is right. Reads the whole fleet.

    That a placement never takes a host or a quota beyond its limit can't be seen in a state alone, as `force` may leave
    them above; the deciders hold it, and the tests of the command set check it at each grant.
    """
    claims: defaultdict[str, Resources] = defaultdict(dict)
    uses: defaultdict[tuple[str, str], Resources] = defaultdict(dict)
    found: list[str] = []
    for stream, entry in fleet.entries.items():
        vm = entry.state
        if not isinstance(vm, Vm) or not vm.claims:
            continue
        if vm.host is None or fleet.host(vm.host) is None:
            found.append(f"{stream} claims {vm.claims} on no host")
            continue
        claims[vm.host] = plus(claims[vm.host], vm.claims)
        for tenant in fleet.chain(vm.tenant):
            key = (fleet.group_of(vm), tenant)
            uses[key] = plus(uses[key], {**vm.claims, "vms": 1})
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


def _present(resources: Resources) -> Resources:
    return {name: amount for name, amount in resources.items() if amount}
