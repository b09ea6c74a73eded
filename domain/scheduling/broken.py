"""Do the rules of a set hold where its members stand, and each VM's conditions on its host? Both bind placements
(filters.py), for life; a place that changes under what runs can still break them. Also asked of places as they would
be, before they change."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from domain.host import Host
from domain.rack import Rack
from domain.scheduling.filters import PLACES
from domain.scheduling.index import CapacityIndex
from domain.vm import Rule, Vm, Where, full_name

SetKey = tuple[str, str]  # a tenant and the name of its set


class BrokenRule(msgspec.Struct, frozen=True):
    """`vms` are the members (`tenant/vm`, sorted) that stand as they may not; a partition's rule has no number here.

    A condition of one VM's `where` is told as a rule of type `where` of no set, at its level (or `labels`)."""

    rule: Rule
    vms: tuple[str, ...]


class Places:
    """Where hosts stand: now, or with some hosts and racks (by name) as they would be."""

    def __init__(
        self, index: CapacityIndex, *, hosts: Mapping[str, Host] | None = None, racks: Mapping[str, Rack] | None = None
    ) -> None:
        self._index = index
        self._hosts = hosts or {}
        self._racks = racks or {}
        self._of_groups: dict[tuple[str, str], set[str]] = {}  # worked out for one set, the same for all others

    def group_of(self, host: str) -> str:
        return self._host(host).group

    def meets(self, host: str, where: Where, level: str) -> bool:
        """Does the host keep the condition at this level?"""
        found = self._host(host)
        if level == "labels":
            labels = found.about.labels
            return all(labels.get(key) == value for key, value in where.labels.items())
        wanted = getattr(where, level)
        if wanted is None or level == "host":
            return wanted is None or wanted == host
        rack = self._rack(found)
        return rack is not None and wanted == (rack.name if level == "rack" else getattr(rack, level))

    def of(self, host: str, level: str) -> str | None:
        if not (self._hosts or self._racks):
            return self._index.place_of(host, level)
        if level == "host":
            return host
        rack = self._rack(self._host(host))
        if rack is None:
            return None
        return rack.name if level == "rack" else f"{rack.region}/{rack.dc}"

    def of_group(self, group: str, level: str) -> set[str]:
        """Those that have a host in the group. Cost, once: each of its hosts, if some would be elsewhere."""
        if not (self._hosts or self._racks):
            return self._index.places_of(group, level)
        if (known := self._of_groups.get((group, level))) is not None:
            return known
        names = {name for name in self._index.names(group) if name not in self._hosts}
        names |= {name for name, host in self._hosts.items() if host.group == group}
        found = {place for name in names if (place := self.of(name, level)) is not None}
        self._of_groups[group, level] = found
        return found

    def _host(self, name: str) -> Host:
        return self._hosts.get(name) or self._index.hosts[name]

    def _rack(self, host: Host) -> Rack | None:
        return (self._racks.get(host.rack) or self._index.racks.get(host.rack)) if host.rack is not None else None


def broken_rules(places: Places, name: str, members: Sequence[Vm]) -> list[BrokenRule]:
    """Those that do not hold of the rules by which members of a tenant's set `name` are bound. Cost: each member."""
    standing = [vm for vm in members if vm.host is not None]
    if len(standing) < 2:
        return []
    found = []
    for rule in sorted(_binding(name, members), key=lambda rule: (rule.level, rule.type, rule.max_skew or 0)):
        if names := _BREAKING[rule.type](rule, places, standing):
            found.append(BrokenRule(rule, tuple(sorted(names))))
    return found


def unmet(places: Places, vm: Vm) -> list[BrokenRule]:
    """The conditions of the VM's own `where` that its host does not keep."""
    where, host = vm.where, vm.host
    if where is None or host is None:
        return []
    levels = (level for level in (*PLACES, "labels") if not places.meets(host, where, level))
    return [BrokenRule(Rule("where", "", level), (full_name(vm),)) for level in levels]


def broken_for(vm: Vm, broken: Callable[[SetKey], Iterable[BrokenRule]], *, places: Places) -> list[BrokenRule]:
    """Those that this VM is among those to break. `broken` gives the broken rules of one set."""
    name = full_name(vm)
    sets = sorted({rule.set for rule in vm.rules})
    return unmet(places, vm) + [one for of in sets for one in broken((vm.tenant, of)) if name in one.vms]


def _binding(name: str, members: Iterable[Vm]) -> Iterable[Rule]:
    """A partition's number is each VM's own, so that all of a level are one rule."""
    own = (rule for vm in members for rule in vm.rules if rule.set == name)
    return dict.fromkeys(Rule("partition", name, rule.level) if rule.type == "partition" else rule for rule in own)


def _by_place(rule: Rule, places: Places, standing: Iterable[Vm]) -> dict[str | None, list[Vm]]:
    """Under None those of which no place is known: nobody can say that the rule holds for them."""
    found: defaultdict[str | None, list[Vm]] = defaultdict(list)
    for vm in standing:
        found[places.of(vm.host or "", rule.level)].append(vm)
    return found


def _apart(rule: Rule, places: Places, standing: Sequence[Vm]) -> list[str]:
    together = _by_place(rule, places, standing).items()
    return [full_name(vm) for place, vms in together for vm in vms if place is None or len(vms) > 1]


def _together(rule: Rule, places: Places, standing: Sequence[Vm]) -> list[str]:
    found = _by_place(rule, places, standing)
    return [] if len(found) == 1 and None not in found else [full_name(vm) for vm in standing]


def _numbered(rule: Rule, places: Places, standing: Sequence[Vm]) -> list[str]:
    def number(vm: Vm) -> int | None:
        same = (own for own in vm.rules if (own.type, own.set, own.level) == ("partition", rule.set, rule.level))
        return next((own.partition for own in same), None)

    together = _by_place(rule, places, standing).items()
    return [full_name(vm) for place, vms in together for vm in vms if place is None or len(set(map(number, vms))) > 1]


def _evenly(rule: Rule, places: Places, standing: Sequence[Vm]) -> list[str]:
    """Per group of a member, over the places that have a host there: who stands where there are too many."""
    assert rule.max_skew is not None
    found = _by_place(rule, places, standing)
    counts = Counter({place: len(vms) for place, vms in found.items() if place is not None})
    names = [full_name(vm) for vm in found.get(None, ())]
    for group in sorted({places.group_of(vm.host or "") for vm in standing}):
        least = min((counts[place] for place in places.of_group(group, rule.level)), default=0)
        names += [
            full_name(vm)
            for place, vms in found.items()
            if place is not None and counts[place] - least > rule.max_skew
            for vm in vms
            if places.group_of(vm.host or "") == group
        ]
    return names


_BREAKING: dict[str, Callable[[Rule, Places, Sequence[Vm]], list[str]]] = {
    "affinity": _together,
    "anti_affinity": _apart,
    "partition": _numbered,
    "spread": _evenly,
}
