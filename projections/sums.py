"""Sums over hosts, kept as hosts change: capacity and groups are read at the cost of what is shown, not of all hosts.

    hosts, groups, racks that changed ──► Sums ──► cells that changed ──► rows of the table `sums`

A cell sums up the hosts of one group in one rack, or of one group in one dc: whatever is asked for adds up few of them.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import msgspec

from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.host import Host
from domain.rack import KIND as RACK
from domain.values import Overcommit, Resources, name_of, ordered, usable
from projections.amounts import Totals

BY_RACK, BY_DC = "rack", "dc"  # levels
DEAD_MAX = 64

_json = msgspec.json.Encoder().encode

TableRow = dict[str, Any]


class CellKey(NamedTuple):
    """What a cell is of. Without a rack: all racks of the dc, or, by rack, the hosts that stand in none."""

    level: str
    group: str
    region: str | None
    dc: str | None
    rack: str | None


class _Amounts:
    """One class in a cell."""

    __slots__ = ("_frees", "_heap", "available", "capacity", "hosts", "usable", "used")

    def __init__(self) -> None:
        self.hosts = 0  # those that have a capacity of it
        self.capacity = self.usable = self.used = self.available = 0
        # How many hosts have just so much free, and these amounts with the largest first. One that no host has any more
        # stays until it comes up.
        self._frees: dict[int, int] = {}
        self._heap: list[int] = []

    def free(self, before: int | None, after: int | None) -> None:
        """A host has so much free now, and had so much before; None: it is not counted."""
        if before is not None:
            self.available -= before
            self._frees[before] -= 1
        if after is not None:
            self.available += after
            hosts = self._frees.get(after)
            if hosts is None:
                self._frees[after] = 1
                heappush(self._heap, -after)
            else:
                self._frees[after] = hosts + 1

    def largest(self) -> int:
        if len(self._heap) > 2 * self.hosts + DEAD_MAX:
            self._frees = {free: hosts for free, hosts in self._frees.items() if hosts}
            self._heap = [-free for free in self._frees]
            heapify(self._heap)
        while not self._frees[-self._heap[0]]:
            del self._frees[-heappop(self._heap)]
        return -self._heap[0]


class _Cell:
    __slots__ = ("_columns", "classes", "hosts", "key")

    def __init__(self, key: str, place: CellKey) -> None:
        self.key = key
        self.hosts = 0
        self.classes: dict[str, _Amounts] = {}  # in the order in which they are shown
        self._columns = {"key": key, **place._asdict()}

    def of(self, name: str) -> _Amounts:
        amounts = self.classes.get(name)
        if amounts is None:
            classes = {**self.classes, name: (amounts := _Amounts())}
            self.classes = {name: classes[name] for name in ordered(set(classes))}
        return amounts

    def row(self) -> TableRow:
        sums = Totals(self.hosts, {}, {}, {}, {})
        usable: Resources = {}
        for name, amounts in self.classes.items():
            if amounts.hosts:
                sums.capacity[name], usable[name] = amounts.capacity, amounts.usable
                sums.available[name], sums.largest_fit[name] = amounts.available, amounts.largest()
            if amounts.hosts or amounts.used:
                sums.used[name] = amounts.used
        return {**self._columns, "usable": _json(usable).decode(), "document": _json(sums).decode()}


class _Share:
    """What a host is counted as, and where."""

    __slots__ = ("cells", "host", "room")

    def __init__(self, host: Host, room: Resources, cells: tuple[_Cell, _Cell]) -> None:
        self.host = host
        self.room = room
        self.cells = cells

    def count(self, sign: int) -> None:
        """Add what the host has, or take it away again."""
        used, is_free = self.host.used, self.host.is_schedulable
        for cell in self.cells:
            cell.hosts += sign
            for name, amount in self.host.capacity.items():
                amounts, room = cell.of(name), self.room[name]
                amounts.hosts += sign
                amounts.capacity += sign * amount
                amounts.usable += sign * room
                free = max(0, room - used.get(name, 0)) if is_free else 0
                amounts.free(None if sign > 0 else free, free if sign > 0 else None)
            for name, amount in used.items():
                cell.of(name).used += sign * amount

    def is_other_by_use(self, host: Host) -> bool:
        """Whether only its use of classes that it has tells it from what is counted, as is so most of the time."""
        was = self.host
        return (
            was.capacity is host.capacity
            and was.state == host.state
            and was.group == host.group
            and was.rack == host.rack
            and was.used.keys() <= host.capacity.keys() >= host.used.keys()
        )

    def use(self, host: Host) -> None:
        """Count the host in its present state, where `is_other_by_use`: 3 × faster than all of it anew."""
        was, now, is_free = self.host.used, host.used, host.is_schedulable
        for name, room in self.room.items():
            before, after = was.get(name, 0), now.get(name, 0)
            if before != after:
                for cell in self.cells:
                    amounts = cell.classes[name]
                    amounts.used += after - before
                    if is_free:
                        amounts.free(room - before if room > before else 0, room - after if room > after else 0)
        self.host = host


class Sums:
    """The cells of one fleet. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._cells: dict[str, _Cell] = {}
        self._shares: dict[str, _Share] = {}
        self._overcommits: dict[str, Overcommit] = {}
        self._dcs: dict[str, tuple[str, str]] = {}  # of racks: region and dc

    @classmethod
    def of(cls, fleet: Fleet) -> "Sums":
        """Cost: every host."""
        sums = cls()
        sums.update(fleet, (stream for stream, _ in fleet.entries()))
        return sums

    def rows(self) -> list[TableRow]:
        return [cell.row() for _, cell in sorted(self._cells.items())]

    def update(self, fleet: Fleet, streams: Iterable[str]) -> tuple[list[TableRow], list[str]]:
        """Take over what changed at these streams: the rows that are new or other now, and the keys of those that went.

        Cost: the hosts that changed; all of a group whose over-commit changed, and of a rack that stands elsewhere now.
        """
        hosts: set[str] = set()
        beside: set[str] = set()  # hosts whose group or rack is other than it was
        for stream in streams:
            kind, _, name = stream.partition("/")
            if kind == "host":
                hosts.add(name)
            elif kind == "group" and self._has_new_overcommit(fleet, name):
                beside.update(map(name_of, fleet.streams(HOST, group=name)))
            elif kind == "rack" and self._has_new_dc(fleet, name):
                beside.update(map(name_of, fleet.streams(HOST, rack=name)))
        changed: dict[str, _Cell] = {}
        for name in hosts | beside:
            share, host = self._shares.get(name), fleet.get(HOST, name)
            if share is not None and host is not None and name not in beside and share.is_other_by_use(host):
                share.use(host)
                touched: tuple[_Cell, ...] = share.cells
            else:
                touched = self._replace(name, share, host)
            for cell in touched:
                changed[cell.key] = cell
        gone = sorted(key for key, cell in changed.items() if not cell.hosts)
        for key in gone:
            del self._cells[key]
        return [cell.row() for _, cell in sorted(changed.items()) if cell.hosts], gone

    def _replace(self, name: str, share: _Share | None, host: Host | None) -> tuple[_Cell, ...]:
        """Count the host anew; answers the cells where it was and where it is."""
        touched: tuple[_Cell, ...] = ()
        if share is not None:
            share.count(-1)
            del self._shares[name]
            touched += share.cells
        if host is not None:
            self._shares[name] = share = self._share(host)
            share.count(1)
            touched += share.cells
        return touched

    def _has_new_overcommit(self, fleet: Fleet, name: str) -> bool:
        before, group = self._overcommits.pop(name, {}), fleet.get(GROUP, name)
        if group is None:
            return False  # without hosts, or it would stand
        self._overcommits[name] = group.overcommit
        return group.overcommit != before

    def _has_new_dc(self, fleet: Fleet, name: str) -> bool:
        before, rack = self._dcs.pop(name, None), fleet.get(RACK, name)
        if rack is None:
            return False
        self._dcs[name] = now = (rack.region, rack.dc)
        return now != before

    def _share(self, host: Host) -> _Share:
        region, dc = self._dcs.get(host.rack or "", (None, None))
        in_rack = self._cell(CellKey(BY_RACK, host.group, region, dc, host.rack))
        in_dc = self._cell(CellKey(BY_DC, host.group, region, dc, None))
        return _Share(host, usable(host.capacity, self._overcommits.get(host.group, {})), (in_rack, in_dc))

    def _cell(self, place: CellKey) -> _Cell:
        key = "/".join(part or "" for part in place)
        if key not in self._cells:
            self._cells[key] = _Cell(key, place)
        return self._cells[key]
