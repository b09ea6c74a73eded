"""The capacity index: for each request shape in use, the score of every host, kept by touching only what changed.

Per group a table of its hosts, sorted by name, with a column of usable capacity and of use per class; a list of the
rows that changed; and per shape (resources, strategy) a vector of scores that catches up with that list when it is
asked. Scores are kept with the least of each block of rows, so that the best of 100,000 hosts is found in two short
steps.
"""

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.registry import STRATEGIES
from domain.scheduling.strategies import Amounts, Scores
from domain.values import Resources, available, ordered, usable

BLOCK_ROWS = 256
SHAPES_MAX = 128
CHANGES_MAX = 65_536

FITS, STATE, LACKS = 0, 1, 2  # LACKS + k: the k-th class of the table is the first that is short


class Column:
    """A place of each host as a small number: `codes` is −1 where it has none."""

    def __init__(self, places: list[str | None]) -> None:
        self.code_of: dict[str, int] = {}
        for name in places:
            if name is not None and name not in self.code_of:
                self.code_of[name] = len(self.code_of)
        self.codes = np.array([self.code_of[p] if p is not None else -1 for p in places], dtype=np.int32)

    def among(self, names: Iterable[str]) -> NDArray[np.bool_]:
        """The hosts at any of these places."""
        chosen = np.zeros(len(self.code_of) + 1, dtype=np.bool_)  # the last element answers for code −1
        for name in names:
            if name in self.code_of:
                chosen[self.code_of[name]] = True
        return chosen[self.codes]


class HostTable:
    """The hosts of one group as vectors."""

    def __init__(self, index: "CapacityIndex", group: Group | None, hosts: list[Host]) -> None:
        self.index = index
        self.hosts = sorted(hosts, key=lambda host: host.name)
        self.names = [host.name for host in self.hosts]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self.overcommit = group.overcommit if group is not None else {}
        self.classes = ordered({name for host in self.hosts for name in host.capacity.keys() | host.used.keys()})
        self.class_index = {name: k for k, name in enumerate(self.classes)}
        rooms = [usable(host.capacity, self.overcommit) for host in self.hosts]
        self.capacity: list[Amounts] = [np.array([r.get(c, 0) for r in rooms], dtype=np.int64) for c in self.classes]
        self.used: list[Amounts] = [
            np.array([h.used.get(c, 0) for h in self.hosts], dtype=np.int64) for c in self.classes
        ]
        self.schedulable = np.array([host.is_schedulable for host in self.hosts], dtype=np.bool_)
        self.changes: list[int] = []  # rows whose use changed, oldest first
        self.shapes: OrderedDict[tuple[object, ...], Shape] = OrderedDict()
        self._columns: dict[str, Column] = {}
        self._totals: Totals | None = None

    def use_changed(self, host: Host) -> bool:
        """Take over a host's use. Answers False if the table can't hold it and must be made anew."""
        row = self.row_of[host.name]
        for name in host.used:
            if name not in self.class_index:
                return False
        self.hosts[row] = host
        for name, column in zip(self.classes, self.used, strict=True):
            column[row] = host.used.get(name, 0)
        self.changes.append(row)
        return len(self.changes) < CHANGES_MAX

    def shape(self, resources: Resources, strategy: str) -> "Shape":
        """The scores for one request shape, up to date."""
        key = (tuple(resources.items()), strategy)
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
        found = self._columns.get(level)
        if found is None:
            found = Column([self.index.place_of(host.name, level) for host in self.hosts])
            self._columns[level] = found
        return found

    def at(self, level: str, name: str) -> NDArray[np.bool_]:
        """The hosts whose region, dc, room, rack or own name is `name`."""
        return self.column("dc_name" if level == "dc" else level).among((name,))


class Shape:
    """Scores, the reason for which each host is dropped, and how many are dropped for each."""

    def __init__(self, table: HostTable, resources: Resources, strategy: str) -> None:
        self.table = table
        self.strategy = STRATEGIES[strategy]
        self.amounts = [resources.get(name, 0) for name in table.classes]
        self.unknown = [name for name in resources if name not in table.class_index]
        self.seen = len(table.changes)
        every = np.arange(len(table.names))
        self.scores, self.codes = self._score(every)
        self.counts: list[int] = np.bincount(self.codes, minlength=LACKS + len(table.classes) + 1).tolist()
        blocks = -(-len(every) // BLOCK_ROWS)
        padded = np.full(blocks * BLOCK_ROWS, np.inf)
        padded[: len(every)] = self.scores
        self.scores = padded
        self.blocks: Scores = padded.reshape(-1, BLOCK_ROWS).min(axis=1) if blocks else np.empty(0)

    def catch_up(self) -> None:
        changes = self.table.changes
        if self.seen == len(changes):
            return
        rows = list(dict.fromkeys(changes[self.seen :]))
        self.seen = len(changes)
        chosen = np.array(rows)
        scores, codes = self._score(chosen)
        counts, old = self.counts, self.codes
        for row, code in zip(rows, codes.tolist(), strict=True):
            counts[old[row]] -= 1
            counts[code] += 1
        old[chosen] = codes
        self.scores[chosen] = scores
        for block in {row // BLOCK_ROWS for row in rows}:
            self.blocks[block] = self.scores[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS].min()

    def best(self, *, but: int = -1) -> int:
        """The row with the least score (and name), leaving out `but`; −1 if none fits."""
        if not len(self.blocks):
            return -1
        blocks = self.blocks
        if but >= 0:
            block = but // BLOCK_ROWS
            kept, self.scores[but] = self.scores[but], np.inf
            blocks = blocks.copy()
            blocks[block] = self.scores[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS].min()
        first = int(blocks.argmin()) * BLOCK_ROWS
        row = first + int(self.scores[first : first + BLOCK_ROWS].argmin())
        found = row if self.scores[row] != np.inf else -1
        if but >= 0:
            self.scores[but] = kept
        return found

    def _score(self, rows: NDArray[np.int64]) -> tuple[Scores, NDArray[np.int8]]:
        table = self.table
        capacity = [column[rows] for column in table.capacity]
        free = [
            cap - column[rows] - amount for cap, column, amount in zip(capacity, table.used, self.amounts, strict=True)
        ]
        codes = np.zeros(len(rows), dtype=np.int8)
        if self.unknown:
            # No host of the group has such a class at all, and classes are told in their order.
            codes[:] = LACKS + len(table.classes)
        for k in range(len(table.classes) - 1, -1, -1):
            if self.amounts[k]:
                codes[free[k] < 0] = LACKS + k
        codes[~table.schedulable[rows]] = STATE
        scores = self.strategy(free, capacity) if free else np.zeros(len(rows))
        return np.where(codes == FITS, scores, np.inf), codes

    def reason(self, code: int) -> str:
        """The word for a code, as explanations give it."""
        if code == STATE:
            return "state"
        known = code - LACKS < len(self.table.classes)
        return f"insufficient:{self.table.classes[code - LACKS] if known else self.unknown[0]}"


class Totals:
    """Use of all hosts and availability of the schedulable ones, kept the same way."""

    def __init__(self, table: HostTable) -> None:
        self.table = table
        self.seen = len(table.changes)
        self.hosts = list(table.hosts)
        self.used = {name: int(column.sum()) for name, column in zip(table.classes, table.used, strict=True)}
        self.available = {
            name: int(np.maximum(cap - used, 0)[table.schedulable].sum())
            for name, cap, used in zip(table.classes, table.capacity, table.used, strict=True)
        }

    def read(self) -> tuple[Resources, Resources]:
        table = self.table
        for row in dict.fromkeys(table.changes[self.seen :]):
            old, new = self.hosts[row], table.hosts[row]
            self.hosts[row] = new
            for name in table.classes:
                self.used[name] += new.used.get(name, 0) - old.used.get(name, 0)
            if new.is_schedulable:
                before = available(old.capacity, table.overcommit, old.used)
                for name, amount in available(new.capacity, table.overcommit, new.used).items():
                    self.available[name] += amount - before[name]
        self.seen = len(table.changes)
        return self.used, self.available


class CapacityIndex:
    """All groups' tables. Each `…_changed` is a function of (old, new) alone; tables are made when first asked for."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.racks: dict[str, Rack] = {}
        self.groups: dict[str, Group] = {}
        self._members: dict[str, dict[str, None]] = {}
        self._tables: dict[str, HostTable] = {}

    def host_changed(self, old: Host | None, new: Host | None) -> None:
        if old is not None and new is not None and _only_use_differs(old, new):
            self.hosts[new.name] = new
            table = self._tables.get(new.group)
            if table is not None and not table.use_changed(new):
                del self._tables[new.group]
            return
        if old is not None:
            self._tables.pop(old.group, None)
            del self._members[old.group][old.name]
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
        self._tables.clear()

    def group_changed(self, old: Group | None, new: Group | None) -> None:
        group = new or old
        assert group is not None
        if new is not None:
            self.groups[new.name] = new
        else:
            self.groups.pop(group.name, None)
        self._tables.pop(group.name, None)

    def table(self, group: str) -> HostTable:
        found = self._tables.get(group)
        if found is None:
            hosts = [self.hosts[name] for name in self._members.get(group, ())]
            found = self._tables[group] = HostTable(self, self.groups.get(group), hosts)
        return found

    def totals(self, group: str) -> tuple[Resources, Resources]:
        """What a group's hosts use, and what its schedulable hosts have available. Not to be changed by the caller."""
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


def _only_use_differs(old: Host, new: Host) -> bool:
    return (
        old.capacity is new.capacity
        and old.group == new.group
        and old.state == new.state
        and old.rack == new.rack
        and old.about is new.about
    )
