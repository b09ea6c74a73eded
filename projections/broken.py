"""VMs of which a rule or a condition does not hold where they stand, kept as VMs, hosts and racks change: a table that
is empty as a rule, so that asking for them costs what there are."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from domain.entry import Entry
from domain.fleet import Fleet
from domain.host import KIND as HOST
from domain.host import HostDeleted, HostMoved, HostRegistered, HostUpdated
from domain.rack import RackUpdated
from domain.scheduling.broken import BrokenRule, Places, SetKey, broken_for, unmet
from domain.vm import KIND as VM
from domain.vm import Vm, full_name
from projections.inner_lists import READ_MAX, cut

# Events after which a host may stand elsewhere.
MOVES: frozenset[type] = frozenset({HostRegistered, HostUpdated, HostMoved, HostDeleted, RackUpdated})

_json = msgspec.json.Encoder().encode

TableRow = dict[str, Any]


class Broken:
    """Of one fleet. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._vms: dict[SetKey, frozenset[str]] = {}  # of each set with a broken rule, the VMs that break it
        self._unmet: set[str] = set()  # VMs whose own conditions are not met
        self._spread: set[SetKey] = set()  # sets with a rule that looks at every place of a group

    @classmethod
    def of(cls, fleet: Fleet) -> "Broken":
        """Cost: every VM."""
        found = cls()
        found._look(fleet, set(fleet.members), {full_name(vm) for vm in fleet.each(VM) if vm.where is not None})
        return found

    def rows(self, fleet: Fleet) -> list[TableRow]:
        return self._rows(fleet, self._unmet.union(*self._vms.values()), fleet.broken_rules)[0]

    def update(
        self, fleet: Fleet, touched: Mapping[str, Entry], *, moved: Iterable[str]
    ) -> tuple[list[TableRow], list[str]]:
        """Take over what changed: the rows that are new or other now, and the keys of those that went. `moved` are the
        streams with one of `MOVES`.

        Cost: the members of sets that a VM, or the host of one, entered or left; of every set with a spread, where any
        host moved.
        """
        vms = [entry.state for entry in touched.values() if isinstance(entry.state, Vm)]
        hosts: set[str] = set()
        for stream in moved:
            kind, _, name = stream.partition("/")
            hosts.update((host.name for host in fleet.each(HOST, rack=name)) if kind == "rack" else (name,))
        vms += [vm for host in hosts for vm in fleet.each(VM, host=host)]
        sets = {(vm.tenant, rule.set) for vm in vms if vm.rules for rule in vm.rules}
        if hosts:
            sets |= self._spread
        conditioned = {full_name(vm) for vm in vms if vm.where is not None}
        return self._look(fleet, sets, conditioned) if sets or conditioned else ([], [])

    def _look(self, fleet: Fleet, sets: set[SetKey], conditioned: set[str]) -> tuple[list[TableRow], list[str]]:
        """At these sets, and at these VMs' own conditions, anew."""
        known: dict[SetKey, list[BrokenRule]] = {}

        def broken(key: SetKey) -> list[BrokenRule]:
            if key not in known:
                known[key] = fleet.broken_rules(key)
            return known[key]

        vms: set[str] = set()
        for key in sets:
            members = fleet.members_of(*key)
            if any(rule.type == "spread" and rule.set == key[1] for vm in members for rule in vm.rules):
                self._spread.add(key)
            else:
                self._spread.discard(key)
            now = frozenset(vm for rule in broken(key) for vm in rule.vms)
            vms |= self._vms.pop(key, frozenset()) | now
            if now:
                self._vms[key] = now
        places = Places(fleet.capacity)
        for name in conditioned:
            was = name in self._unmet
            vm = fleet.get(VM, name)
            if vm is not None and unmet(places, vm):
                self._unmet.add(name)
                vms.add(name)
            elif was:
                self._unmet.remove(name)
                vms.add(name)
        return self._rows(fleet, vms, broken)

    def _rows(
        self, fleet: Fleet, vms: Iterable[str], broken: Callable[[SetKey], Iterable[BrokenRule]]
    ) -> tuple[list[TableRow], list[str]]:
        rows: list[TableRow] = []
        gone: list[str] = []
        places = Places(fleet.capacity)
        for name in sorted(vms):
            vm = fleet.get(VM, name)
            if found := broken_for(vm, broken, places=places) if vm is not None else ():
                rows.append({"key": name, "document": _json([broken_rule(one) for one in found]).decode()})
            else:
                gone.append(name)
        return rows, gone


def broken_rule(broken: BrokenRule) -> dict[str, Any]:
    """As it is shown."""
    shown = {name: value for name, value in msgspec.to_builtins(broken.rule).items() if value}  # `where` is of no set
    return cut({**shown, "vms": list(broken.vms[:READ_MAX])}, "vms")
