"""Rules of VMs that a change of places would break: they bind what runs, not only where it was put at first."""

from collections.abc import Mapping
from typing import Any

from domain.fleet import Transaction
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.broken import Places

SETS_TOLD_MAX = 100
VMS_TOLD_MAX = 100


def rules_broken(tx: Transaction, *, hosts: Mapping[str, Host], rack: Rack | None = None) -> list[dict[str, Any]]:
    """What would be broken anew, as `below_use` tells it, with these hosts as they would be, and their rack too.

    Cost: the VMs on these hosts, and the members of their sets.
    """
    fleet = tx.fleet
    there = Places(fleet.capacity, hosts=hosts, racks={rack.name: rack} if rack is not None else {})
    sets = {(vm.tenant, rule.set) for name in hosts for vm in fleet.vms_on(name) for rule in vm.rules}
    told: list[dict[str, Any]] = []
    for key in sorted(sets):
        before = {broken.rule: broken.vms for broken in fleet.broken_rules(key)}
        for broken in fleet.broken_rules(key, there):
            rule = broken.rule
            if set(broken.vms) - set(before.get(rule, ())):
                told.append(
                    {
                        "kind": "rule",
                        "name": "/".join(key),
                        "rule": rule.type,
                        "set": rule.set,
                        "level": rule.level,
                        "vms": list(broken.vms[:VMS_TOLD_MAX]),
                    }
                )
        if len(told) >= SETS_TOLD_MAX:
            break
    return told
