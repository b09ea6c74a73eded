"""The capacity index: for each request shape in use, the score of every host, kept by touching only what changed.

Per group a table of its hosts, sorted by name: capacity and room per class, and a list of the rows that changed. Per
shape (resources, strategy) a vector of scores that catches up with that list when it is asked. Scores are kept with
the least of each block of rows, so that the best of 100,000 hosts and the runner-up are found in short steps.

All that a table answers is a function of the hosts, racks, VMs and group as they stand, never of the way there: an
index that was filled by a replay answers as the one that lived through it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.demand import Demand, ShapeCounts
from domain.scheduling.registry import STRATEGIES, reads_demand
from domain.scheduling.strategies import Scores
from domain.values import Resources, available, ordered, usable
from domain.vm import Vm

BLOCK_ROWS = 64
SHAPES_MAX = 64  # 10 bytes a host each
CHANGES_MAX = 16_384
LABEL_MASKS_MAX = 32

STATE = 0  # the code of a host that takes no new workload; 1 + k: short of the k-th class of the request

Mask = NDArray[np.bool_]
# Whole numbers as float64, which scores are made of: exact up to 2^53, and no request is larger, so room beyond that
# needs no telling apart.
Amounts = NDArray[np.float64]
ROOM_MAX = 2**53


class Column:
    """A place of each host as a small number: `codes` is −1 where it has none."""

    def __init__(self, places: list[str | None]) -> None:
        self.code_of: dict[str, int] = {}
        for name in places:
            if name is not None:
                self.code_of.setdefault(name, len(self.code_of))
        self.codes = np.array([self.code_of[p] if p is not None else -1 for p in places], dtype=np.int32)

    def among(self, names: Iterable[str]) -> Mask:
        """The hosts at any of these places."""
        chosen = np.zeros(len(self.code_of) + 1, dtype=np.bool_)  # the last element answers for code −1
        for name in names:
            if name in self.code_of:
                chosen[self.code_of[name]] = True
        return chosen[self.codes]


class HostTable:
    """The hosts of one group as vectors; `classes` are those of which any host has a capacity."""

    def __init__(self, index: "CapacityIndex", name: str, group: Group | None, hosts: list[Host]) -> None:
        self.index = index
        self.name = name
        self.hosts = sorted(hosts, key=lambda host: host.name)
        self.names = [host.name for host in self.hosts]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self.overcommit = group.overcommit if group is not None else {}
        self.classes = ordered({name for host in self.hosts for name, amount in host.capacity.items() if amount})
        self.class_index = {name: k for k, name in enumerate(self.classes)}
        capacity = self._lines([usable(host.capacity, self.overcommit) for host in self.hosts])
        used = self._lines([host.used for host in self.hosts])
        self.capacity: Amounts = capacity.astype(np.float64)
        # One line a class, between one that is short where a host takes no new workload and one that is always short:
        # the first line that is short is then the code of a host, the last one's meaning that it fits. Where there is
        # no capacity there is no room, also if what runs stands above it: strategies may rely on that.
        self.room: Amounts = np.full((len(self.classes) + 2, len(self.hosts)), -1.0)
        self.room[0] = [0 if host.is_schedulable else -1 for host in self.hosts]
        self.room[1:-1] = np.where(capacity > 0, np.clip(capacity - used, -ROOM_MAX, ROOM_MAX), 0)
        self.changes: list[int] = []  # rows that changed, oldest first
        self.cut = 0  # how many older ones are forgotten
        self.shapes: OrderedDict[tuple[object, ...], Shape] = OrderedDict()
        self._columns: dict[str, Column] = {}
        self._labelled: dict[tuple[str, str], Mask] = {}
        self._totals: Totals | None = None
        self._demand: Demand | None = None

    def host_changed(self, new: Host) -> None:
        """Take over a host of the table whose capacity and group are as before."""
        row = self.row_of[new.name]
        old = self.hosts[row]
        self.hosts[row] = new
        if old.rack != new.rack:
            self._columns.clear()
        if old.about is not new.about:
            self._labelled.clear()
        if old.used is new.used and old.state == new.state:
            return
        self._fill(row)
        self.changes.append(row)
        if len(self.changes) >= CHANGES_MAX:
            del self.changes[: CHANGES_MAX // 2]
            self.cut += CHANGES_MAX // 2

    def racks_changed(self) -> None:
        self._columns.clear()

    def demand_changed(self) -> None:
        self._demand = None

    def demand(self) -> Demand:
        """The shapes seen lately."""
        if self._demand is None:
            largest = self.capacity.max(1) if len(self.names) else np.zeros(len(self.classes))
            sizes = dict(zip(self.classes, map(int, largest.tolist()), strict=True))
            self._demand = Demand(self.index.shape_counts(self.name), sizes)
        return self._demand

    @property
    def now(self) -> int:
        """The point in the list of changes up to which all is known."""
        return self.cut + len(self.changes)

    def since(self, seen: int) -> list[int] | None:
        """The rows that changed since `now` was `seen`, each once; None if that is no longer known."""
        if seen < self.cut:
            return None
        return list(dict.fromkeys(self.changes[seen - self.cut :]))

    def shape(self, resources: Resources, strategy: str) -> "Shape":
        """The scores for one request shape, up to date."""
        key = (strategy, *resources.items())
        found = self.shapes.get(key)
        if found is None:
            found = self.shapes[key] = Shape(self, resources, strategy)
            if len(self.shapes) > SHAPES_MAX:
                self.shapes.popitem(last=False)
        else:
            self.shapes.move_to_end(key)
            found.catch_up()
        return found

    def totals(self) -> tuple[Resources, Resources]:
        if self._totals is None:
            self._totals = Totals(self)
        return self._totals.read()

    def column(self, level: str) -> Column:
        """The places of the hosts at host, rack, room, dc (with its region), dc_name or region."""
        found = self._columns.get(level)
        if found is None:
            found = Column([self.index.place_of(name, level) for name in self.names])
            self._columns[level] = found
        return found

    def at(self, level: str, name: str) -> Mask:
        """The hosts whose region, dc, room, rack or own name is `name`."""
        if level != "host":
            return self.column("dc_name" if level == "dc" else level).among((name,))
        mask = np.zeros(len(self.names), dtype=np.bool_)
        if (row := self.row_of.get(name)) is not None:
            mask[row] = True
        return mask

    def labelled(self, key: str, value: str) -> Mask:
        """The hosts with this label. Not to be changed by the caller."""
        found = self._labelled.get((key, value))
        if found is None:
            if len(self._labelled) >= LABEL_MASKS_MAX:
                self._labelled.clear()
            found = np.array([host.about.labels.get(key) == value for host in self.hosts], dtype=np.bool_)
            self._labelled[key, value] = found
        return found

    def free(self, name: str) -> Amounts:
        """What is free of a class on each host, the state apart."""
        k = self.class_index.get(name)
        return np.maximum(self.room[1 + k], 0.0) if k is not None else np.zeros(len(self.names))

    def _fill(self, row: int) -> None:
        host = self.hosts[row]
        room, used = usable(host.capacity, self.overcommit), host.used
        line = [0 if host.is_schedulable else -1]
        for name in self.classes:
            cap = room.get(name, 0)
            line.append(max(-ROOM_MAX, min(cap - used.get(name, 0), ROOM_MAX)) if cap else 0)
        self.room[:-1, row] = line

    def _lines(self, amounts: list[Resources]) -> NDArray[np.int64]:
        """One line a class, one element a host."""
        shape = (len(self.classes), len(amounts))
        return np.array([[a.get(name, 0) for a in amounts] for name in self.classes], dtype=np.int64).reshape(shape)


class Shape:
    """Scores, the reason for which each host is dropped, and how many are dropped for each."""

    scores: Scores  # padded to whole blocks; inf where it does not fit
    codes: NDArray[np.int16]
    counts: list[int]  # by code
    _grid: Scores  # the scores, a line a block
    _least: Scores  # of each block
    _seen: int

    def __init__(self, table: HostTable, resources: Resources, strategy: str) -> None:
        self.table = table
        self.strategy = STRATEGIES[strategy]
        self.demand = table.demand() if reads_demand(self.strategy) else None
        self.classes = ordered(resources)
        self.fits = 1 + len(self.classes)  # the code of a host that fits
        self._asked = np.array([[0], *([resources.get(name, 0)] for name in table.classes), [0]], dtype=np.float64)
        sentinel = 1 + len(table.classes)  # a class that no host has is short everywhere
        lines = [1 + table.class_index[name] if name in table.class_index else sentinel for name in self.classes]
        self._lines = np.array([0, *lines, sentinel])
        self._blocks_count = max(1, -(-len(table.names) // BLOCK_ROWS))
        self._rescore()

    def catch_up(self) -> None:
        """Rescore what changed since the last time: some 25 numpy calls, whose number of rows hardly matters."""
        table = self.table
        if self.demand is not None and (demand := table.demand()) is not self.demand:
            is_other = demand.weighed != self.demand.weighed  # what was undone leaves an equal one
            self.demand = demand
            if is_other:
                self._rescore()
                return
        if self._seen == table.now:
            return
        rows = table.since(self._seen)
        if rows is None:
            self._rescore()
            return
        self._seen = table.now
        chosen = np.array(rows)
        scores, codes = self._score(table.room.take(chosen, 1), table.capacity.take(chosen, 1))
        before, after = self.codes.take(chosen).tolist(), codes.tolist()
        if after.count(self.fits) != len(after):
            scores = np.where(codes == self.fits, scores, np.inf)
        if before != after:
            for old, new in zip(before, after, strict=True):
                self.counts[old] -= 1
                self.counts[new] += 1
            self.codes[chosen] = codes
        self.scores[chosen] = scores
        for block in {row // BLOCK_ROWS for row in rows}:
            line = self._grid[block]
            self._least[block] = line[line.argmin()]

    def best(self) -> tuple[int, int]:
        """The rows with the least and the second least (score, name); −1 where there is none."""
        row = self._first()
        if row < 0:
            return -1, -1
        scores, least, block = self.scores, self._least, row // BLOCK_ROWS
        kept, kept_least = scores[row], least[block]
        scores[row] = np.inf
        line = self._grid[block]
        least[block] = line[line.argmin()]
        second = self._first()
        scores[row], least[block] = kept, kept_least
        return row, second

    def reason(self, code: int) -> str:
        """The word for a code, as explanations give it."""
        return "state" if code == STATE else f"insufficient:{self.classes[code - 1]}"

    def _first(self) -> int:
        block = int(self._least.argmin())
        row = block * BLOCK_ROWS + int(self._grid[block].argmin())
        return row if self.scores[row] != np.inf else -1

    def _rescore(self) -> None:
        table = self.table
        self._seen = table.now
        scores, codes = self._score(table.room, table.capacity)
        self.codes = codes.astype(np.int16)
        self.counts = np.bincount(codes, minlength=self.fits + 1).tolist()
        self.scores = np.full(self._blocks_count * BLOCK_ROWS, np.inf)
        self.scores[: len(codes)] = np.where(codes == self.fits, scores, np.inf)
        self._grid = self.scores.reshape(-1, BLOCK_ROWS)
        self._least = self._grid.min(1)

    def _score(self, room: Amounts, capacity: Amounts) -> tuple[Scores, NDArray[np.intp]]:
        """Scores (those of hosts that don't fit mean nothing) and codes of some hosts."""
        after = room - self._asked
        codes = (after.take(self._lines, 0) < 0).argmax(0)
        if not len(capacity):  # without a class no host fits anything, so there is nothing to score
            return np.zeros(len(codes)), codes
        if self.demand is None:
            return self.strategy(after[1:-1], capacity), codes
        return self.strategy(after[1:-1], capacity, self._asked[1:-1], self.demand), codes


class Totals:
    """Use of all hosts and availability of the schedulable ones, kept the same way."""

    _hosts: list[Host]  # as they are counted
    _used: Resources
    _available: Resources
    _seen: int

    def __init__(self, table: HostTable) -> None:
        self.table = table
        self._recount()

    def read(self) -> tuple[Resources, Resources]:
        table = self.table
        rows = table.since(self._seen)
        if rows is None:
            self._recount()
        elif rows:
            self._seen = table.now
            for row in rows:
                self._count(self._hosts[row], -1)
                self._hosts[row] = table.hosts[row]
                self._count(self._hosts[row], 1)
        shown = dict.fromkeys(table.classes, 0)
        return _shown(shown, self._used), _shown(shown, self._available)

    def _recount(self) -> None:
        self._seen = self.table.now
        self._hosts = list(self.table.hosts)
        self._used = {}
        self._available = {}
        for host in self._hosts:
            self._count(host, 1)

    def _count(self, host: Host, sign: int) -> None:
        used, free = self._used, self._available
        for name, amount in host.used.items():
            used[name] = used.get(name, 0) + sign * amount
        if host.is_schedulable:
            for name, amount in available(host.capacity, self.table.overcommit, host.used).items():
                free[name] = free.get(name, 0) + sign * amount


class CapacityIndex:
    """All groups' tables. Each `…_changed` is a function of (old, new) alone; tables are made when first asked for."""

    def __init__(self, vms: Callable[[], Iterable[Vm]] = tuple) -> None:
        """`vms` gives all that stand now; asked once, when the first strategy wants to know their shapes."""
        self.hosts: dict[str, Host] = {}
        self.racks: dict[str, Rack] = {}
        self.groups: dict[str, Group] = {}
        self._vms = vms
        self._shape_counts: ShapeCounts | None = None
        self._members: dict[str, set[str]] = {}
        self._tables: dict[str, HostTable] = {}

    def host_changed(self, old: Host | None, new: Host | None) -> None:
        """Cheap while only use, state, place or words change; else the group's table is made anew when it is next
        asked for (0.4 s for 100,000 hosts)."""
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
            self._members[old.group].discard(old.name)
            del self.hosts[old.name]
        if new is not None:
            self._tables.pop(new.group, None)
            self._members.setdefault(new.group, set()).add(new.name)
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

    def shape_counts(self, group: str) -> Mapping[tuple[tuple[str, int], ...], int]:
        """How many VMs of each shape hold a place that they were given in the group."""
        if self._shape_counts is None:
            self._shape_counts = ShapeCounts()
            for vm in self._vms():
                self._shape_counts.vm_changed(None, vm)
        return self._shape_counts.of(group)

    def table(self, group: str) -> HostTable:
        found = self._tables.get(group)
        if found is None:
            hosts = [self.hosts[name] for name in self._members.get(group, ())]
            found = self._tables[group] = HostTable(self, group, self.groups.get(group), hosts)
        return found

    def totals(self, group: str) -> tuple[Resources, Resources]:
        """What a group's hosts use, and what its schedulable hosts have available."""
        return self.table(group).totals()

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


def _shown(classes: Resources, amounts: Resources) -> Resources:
    """Every class of the table, and what there is of others (a capacity may have been taken back under what runs)."""
    rest = {name: amount for name, amount in amounts.items() if amount}
    return {name: rest.get(name, 0) for name in ordered(classes | rest)}
