"""Rules and conditions of VMs that a change of places would break: they bind what runs, not only where it was put at
first."""

from collections.abc import Mapping
from typing import Any

from domain.host import Host
from domain.rack import Rack
from domain.scheduling.broken import BrokenRule, Places, unmet
from domain.transaction import Transaction
from domain.vm import KIND as VM
from domain.vm import full_name

TOLD_MAX = 100
VMS_TOLD_MAX = 100


def rules_broken(tx: Transaction, *, hosts: Mapping[str, Host], rack: Rack | None = None) -> list[dict[str, Any]]:
    """What would be broken anew, as `below_use` tells it, with these hosts as they would be, and their rack too.

    Cost: the VMs on these hosts, and the members of their sets.
    """
    fleet = tx.fleet
    here = Places(fleet.capacity)
    there = Places(fleet.capacity, hosts=hosts, racks={rack.name: rack} if rack is not None else {})
    vms = [vm for name in hosts for vm in fleet.each(VM, host=name) if vm.rules or vm.where is not None]
    told: list[dict[str, Any]] = []
    for key in sorted({(vm.tenant, rule.set) for vm in vms for rule in vm.rules}):
        before = {broken.rule: broken.vms for broken in fleet.broken_rules(key)}
        anew = (b for b in fleet.broken_rules(key, there) if set(b.vms) - set(before.get(b.rule, ())))
        told += [_told("/".join(key), broken) for broken in anew]
        if len(told) >= TOLD_MAX:
            return told
    for vm in vms:
        was = unmet(here, vm)
        told += [_told(full_name(vm), broken) for broken in unmet(there, vm) if broken not in was]
    return told[:TOLD_MAX]


def _told(name: str, broken: BrokenRule) -> dict[str, Any]:
    rule, vms = broken.rule, list(broken.vms[:VMS_TOLD_MAX])
    return {"kind": "rule", "name": name, "rule": rule.type, "set": rule.set or None, "level": rule.level, "vms": vms}
