"""The capacity index: for each request shape in use, the score of every host, kept by touching only what changed.

Per group a table of its hosts (table.py), sorted by name: capacity and room per class, and a list of the rows that
changed. Per shape (resources, strategy) a vector of scores (shape_scores.py) that catches up with that list when it is
asked. Scores are kept with the least of each block of rows, so that the best of 100,000 hosts and the runner-up are
found in short steps.

All that a table answers is a function of the hosts, racks, VMs and group as they stand, never of the way there: an
index that was filled by a replay answers as the one that lived through it.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.demand import Shape, ShapeCounts
from domain.scheduling.table import HostTable
from domain.values import Resources
from domain.vm import Vm


class CapacityIndex:
    """All groups' tables. Each `…_changed` is a function of (old, new) alone; tables are made when first asked for."""

    def __init__(self, vms: Callable[[], Iterable[Vm]] = tuple) -> None:
        """`vms` gives all that stand now; asked once, when the first strategy wants to know their shapes."""
        self.hosts: dict[str, Host] = {}
        self.racks: dict[str, Rack] = {}
        self.groups: dict[str, Group] = {}
        self._vms = vms
        self._shape_counts: ShapeCounts | None = None
        self._members: dict[str, dict[str, None]] = {}  # hosts by group, as they came: nearly in order as a rule
        self._tables: dict[str, HostTable] = {}

    def host_changed(self, old: Host | None, new: Host | None) -> None:
        """Cheap while only use, state, place or words change; else the group's table is made anew when it is next
        asked for (0.2 s for 100,000 hosts)."""
        if old is not None and new is not None and old.group == new.group:
            self.hosts[new.name] = new
            table = self._tables.get(new.group)
            if table is None:
                return
            if old.capacity is new.capacity or old.capacity == new.capacity:
                table.host_changed(new)
            else:
                del self._tables[new.group]
            return
        if old is not None:
            self._tables.pop(old.group, None)
            self._members[old.group].pop(old.name, None)
            del self.hosts[old.name]
        if new is not None:
            self._tables.pop(new.group, None)
            self._members.setdefault(new.group, {})[new.name] = None
            self.hosts[new.name] = new

    def rack_changed(self, old: Rack | None, new: Rack | None) -> None:
        if new is not None:
            self.racks[new.name] = new
        elif old is not None:
            self.racks.pop(old.name, None)
        for table in self._tables.values():
            table.racks_changed()

    def group_changed(self, old: Group | None, new: Group | None) -> None:
        if new is not None:
            self.groups[new.name] = new
        elif old is not None:
            self.groups.pop(old.name, None)
        group = new or old
        if group is not None and (old is None or new is None or old.overcommit != new.overcommit):
            self._tables.pop(group.name, None)

    def vm_changed(self, old: Vm | None, new: Vm | None) -> None:
        if self._shape_counts is None:  # most folds decide nothing: counting would be a tenth of their time
            return
        for group in self._shape_counts.vm_changed(old, new):
            if (table := self._tables.get(group)) is not None:
                table.demand_changed()

    def shape_counts(self, group: str) -> Mapping[Shape, int]:
        """How many VMs of each shape hold a place that they were given in the group."""
        if self._shape_counts is None:
            self._shape_counts = ShapeCounts()
            for vm in self._vms():
                self._shape_counts.vm_changed(None, vm)
        return self._shape_counts.of(group)

    def table(self, group: str) -> HostTable:
        found = self._tables.get(group)
        if found is None:
            hosts = [self.hosts[name] for name in sorted(self._members.get(group, ()))]
            policy = self.groups.get(group)
            found = self._tables[group] = HostTable(
                hosts,
                overcommit=policy.overcommit if policy is not None else {},
                place_of=self.place_of,
                shape_counts=partial(self.shape_counts, group),
            )
        return found

    def names(self, group: str) -> Iterable[str]:
        """Of the hosts of a group."""
        return self._members.get(group, ())

    def places_of(self, group: str, level: str) -> set[str]:
        """Those that have a host in the group. Makes no table where none is kept, as in a projector."""
        if (table := self._tables.get(group)) is not None:
            return set(table.column(level).code_of)
        return {place for name in self.names(group) if (place := self.place_of(name, level)) is not None}

    def price_of(self, group: str) -> int:
        """What it costs to look at a group, in looks at one whose table is made."""
        return 1 if group in self._tables else 10 + len(self._members.get(group, ())) // 50

    def totals(self, group: str) -> tuple[Resources, Resources]:
        """What a group's hosts use, and what its schedulable hosts have available."""
        return self.table(group).totals().read()

    def capacity_of(self, group: str) -> tuple[int, Resources]:
        """How many hosts a group has, and their capacity without over-commit."""
        table = self.table(group)
        return len(table.names), table.totals().capacity

    def place_of(self, host: str, level: str) -> str | None:
        """Where a host stands at a level; None if unknown. A dc is told by its region too, as only both name it."""
        if level == "host":
            return host
        found = self.hosts.get(host)
        rack = self.racks.get(found.rack) if found is not None and found.rack is not None else None
        if rack is None:
            return None
        match level:
            case "rack":
                return rack.name
            case "dc":
                return f"{rack.region}/{rack.dc}"
            case "dc_name":
                return rack.dc
            case "room":
                return rack.room
            case "region":
                return rack.region
            case _:
                raise AssertionError(f"{level} is no level")
