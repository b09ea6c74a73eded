"""VMs of which a rule does not hold where they stand, kept as VMs, hosts and racks change: a table that is empty as a
rule, so that asking for them costs what there are."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from domain.fleet import Entry, Fleet
from domain.host import HostDeleted, HostMoved, HostRegistered, HostUpdated
from domain.rack import RackUpdated
from domain.scheduling.broken import BrokenRule, SetKey, broken_for
from domain.vm import Vm
from projections.documents import broken_rule

# Events after which a host may stand elsewhere.
MOVES: frozenset[type] = frozenset({HostRegistered, HostUpdated, HostMoved, HostDeleted, RackUpdated})

_json = msgspec.json.Encoder().encode

Row = dict[str, Any]


class Broken:
    """Of one fleet. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._vms: dict[SetKey, frozenset[str]] = {}  # of each set with a broken rule, the VMs that break it
        self._spread: set[SetKey] = set()  # sets with a rule that looks at every place of a group

    @classmethod
    def of(cls, fleet: Fleet) -> "Broken":
        """Cost: every VM with a rule."""
        found = cls()
        found._look(fleet, set(fleet.members))
        return found

    def rows(self, fleet: Fleet) -> list[Row]:
        return self._rows(fleet, {vm for vms in self._vms.values() for vm in vms}, fleet.broken_rules)[0]

    def update(
        self, fleet: Fleet, touched: Mapping[str, Entry], *, moved: Iterable[str]
    ) -> tuple[list[Row], list[str]]:
        """Take over what changed: the rows that are new or other now, and the keys of those that went. `moved` are the
        streams with one of `MOVES`.

        Cost: the members of sets that a VM, or the host of one, entered or left; of every set with a spread, where any
        host moved.
        """
        sets: set[SetKey] = set()
        for entry in touched.values():
            vm = entry.state
            if isinstance(vm, Vm) and vm.rules:
                sets |= {(vm.tenant, rule.set) for rule in vm.rules}
        hosts: set[str] = set()
        for stream in moved:
            kind, _, name = stream.partition("/")
            hosts |= fleet.hosts_by_rack.get(name, set()) if kind == "rack" else {name}
        if hosts:
            sets |= self._spread
        for host in hosts:
            sets |= {(vm.tenant, rule.set) for vm in fleet.vms_on(host) for rule in vm.rules}
        return self._look(fleet, sets) if sets else ([], [])

    def _look(self, fleet: Fleet, sets: set[SetKey]) -> tuple[list[Row], list[str]]:
        """At these sets anew."""
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
        return self._rows(fleet, vms, broken)

    def _rows(
        self, fleet: Fleet, vms: Iterable[str], broken: Callable[[SetKey], Iterable[BrokenRule]]
    ) -> tuple[list[Row], list[str]]:
        rows: list[Row] = []
        gone: list[str] = []
        for name in sorted(vms):
            vm: Vm | None = fleet.find("vm/" + name)
            if found := broken_for(vm, broken) if vm is not None else ():
                rows.append({"key": name, "document": _json([broken_rule(one) for one in found]).decode()})
            else:
                gone.append(name)
        return rows, gone
