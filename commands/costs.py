"""What deciding will take, told before it is begun: the writer decides one unit after the other, and must never be
silent for long.

Microseconds of the machine on which `bench/placement.py` was measured, with some room. What is cheap counts
`PLAIN_US`; dear is what grows with the groups, rules and members of sets that a request names, or with all that a
tenant, group or rack has.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from commands.groups import DeleteGroup, UpdateGroup
from commands.hosts import MoveHost, RegisterHost, UpdateHost
from commands.model import Command
from commands.quotas import DeleteQuota, SetQuota
from commands.racks import UpdateRack
from commands.tenants import DeleteTenant, MoveTenant
from commands.vms import ProvisionVm
from domain.errors import Validation
from domain.fleet import Fleet
from domain.host import KIND as HOST
from domain.quota import KIND as QUOTA
from domain.vm import KIND as VM
from domain.vm import Rule

UNIT_US_MAX = 100_000  # what another's change waits for at most, beside all that it takes by itself
LONG_US = 5_000  # from here on, nothing else is under way while it is decided
DEAR_US = 400  # from here on, nothing of anybody else
PLAIN_US = 100
REGISTER_US = 40  # of a host: no scheduling
GROUP_US = 10.0  # to look for hosts there
RULE_US, MEMBER_US = 15.0, 0.3  # of one rule in one group; of one member that it speaks of
REFUSAL_GROUPS = 4  # that a refusal looks at once more: those that it is explained with, and alternatives
HOST_US, VM_US, QUOTA_US = 4.0, 2.0, 15.0


class _Set(msgspec.Struct):
    """A set of VMs as the unit will have made it: its members, and the distinct rules by which they are bound."""

    members: int
    rules: set[Rule]


class Estimate:
    """Adds up what the commands of one unit will take."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._sets: dict[tuple[str, str], _Set] = {}
        self._us = 0.0
        self._refusal_us = 0.0  # the dearest that one of them may be refused with, after which none is decided

    def add(self, command: Command) -> float:
        """What the unit takes with this command."""
        self._us += REGISTER_US if isinstance(command, RegisterHost) else PLAIN_US
        if isinstance(command, ProvisionVm):
            self._add_placement(command)
        elif (price := PRICES.get(type(command))) is not None:
            self._us += price(command, self._fleet)
        return self._us + self._refusal_us

    def _add_placement(self, command: ProvisionVm) -> None:
        a_group = GROUP_US
        for name in {rule.set for rule in command.rules}:
            found = self._set(command.tenant, name)
            found.members += 1
            found.rules.update(
                Rule(rule.type, rule.set, rule.level, rule.max_skew, rule.partition)
                for rule in command.rules
                if rule.set == name
            )
            a_group += len(found.rules) * (RULE_US + MEMBER_US * found.members) + MEMBER_US * found.members
        self._us += a_group * self._groups(command)
        self._refusal_us = max(self._refusal_us, (a_group - GROUP_US) * REFUSAL_GROUPS)

    def _groups(self, command: ProvisionVm) -> int:
        if isinstance(command.group, list):
            return len(command.group)
        return len(self._fleet.streams(QUOTA, tenant=command.tenant)) if command.group == "*" else 1

    def _set(self, tenant: str, name: str) -> _Set:
        found = self._sets.get((tenant, name))
        if found is None:
            members = self._fleet.members_of(tenant, name)
            rules = {rule for vm in members for rule in vm.rules if rule.set == name}
            found = self._sets[tenant, name] = _Set(len(members), rules)
        return found


def price_us(commands: Sequence[Command], fleet: Fleet) -> float:
    """What a unit of these will take; of one that is plain, without looking at the fleet."""
    if len(commands) == 1 and type(commands[0]) not in PRICES and is_plain(commands[0]):
        return PLAIN_US
    estimate = Estimate(fleet)
    return max(estimate.add(command) for command in commands)


def is_plain(command: Command) -> bool:
    """Whether a unit of this command alone is cheap for certain, so that nothing need be added up. One of `PRICES` is
    not, but it can't be asked for in smaller parts."""
    return not isinstance(command, ProvisionVm) or (isinstance(command.group, str) and not command.rules)


def too_much(us: float, *, is_one_of_several: bool) -> Validation:
    if is_one_of_several:
        field, advice = "/commands", "send fewer of them at once, or without atomic"
    else:
        field, advice = "/rules", "name fewer groups, or rules over smaller sets"
    message = (
        f"deciding this would take some {us / 1000:,.0f} ms, while all other commands wait; at most"
        f" {UNIT_US_MAX / 1000:,.0f} ms are allowed; {advice}"
    )
    return Validation([{"field": field, "message": message}])


def _vms_of_subtree(fleet: Fleet, tenant: str) -> int:
    return sum(len(fleet.streams(VM, tenant=name)) for name in fleet.subtree(tenant))


def _move_tenant(command: MoveTenant, fleet: Fleet) -> float:
    return VM_US * _vms_of_subtree(fleet, command.tenant)


def _delete_tenant(command: DeleteTenant, fleet: Fleet) -> float:
    quotas = len(fleet.streams(QUOTA, tenant=command.tenant))
    return VM_US * len(fleet.streams(VM, tenant=command.tenant)) + QUOTA_US * quotas


def _set_quota(command: SetQuota, fleet: Fleet) -> float:
    is_new = fleet.get(QUOTA, command.group, command.tenant) is None
    return VM_US * _vms_of_subtree(fleet, command.tenant) if is_new else 0.0


def _delete_quota(command: DeleteQuota, fleet: Fleet) -> float:
    return VM_US * len(fleet.streams(VM, tenant=command.tenant))


def _update_group(command: UpdateGroup, fleet: Fleet) -> float:
    return HOST_US * len(fleet.streams(HOST, group=command.group))


def _delete_group(command: DeleteGroup, fleet: Fleet) -> float:
    return QUOTA_US * len(fleet.streams(QUOTA, group=command.group))


def _register_host(command: RegisterHost, fleet: Fleet) -> float:
    return HOST_US / 4 * len(fleet.streams(HOST, rack=command.rack or ""))


def _change_places(fleet: Fleet, hosts: Collection[str]) -> float:
    """The VMs there, and all members of their sets, of whose rules it is seen whether they still hold."""
    vms = [vm for host in hosts for vm in fleet.each(VM, host=host)]
    sets = {(vm.tenant, rule.set) for vm in vms for rule in vm.rules}
    members = sum(len(fleet.members.get(key, ())) for key in sets)
    return HOST_US * len(hosts) + VM_US * len(vms) + RULE_US * (len(sets) + members / 4)


def _update_host(command: UpdateHost, fleet: Fleet) -> float:
    is_placed = command.force or command.model_fields_set.isdisjoint(("rack", "labels"))
    return 0.0 if is_placed else _change_places(fleet, [command.host])


def _move_host(command: MoveHost, fleet: Fleet) -> float:
    return _change_places(fleet, [command.host])


def _update_rack(command: UpdateRack, fleet: Fleet) -> float:
    return _change_places(fleet, [host.name for host in fleet.each(HOST, rack=command.rack)])


PRICES: dict[type[Command], Callable[[Any, Fleet], float]] = {
    MoveTenant: _move_tenant,
    DeleteTenant: _delete_tenant,
    SetQuota: _set_quota,
    DeleteQuota: _delete_quota,
    UpdateGroup: _update_group,
    DeleteGroup: _delete_group,
    RegisterHost: _register_host,
    MoveHost: _move_host,
    UpdateHost: _update_host,
    UpdateRack: _update_rack,
}
