"""The hosts of one group as vectors, and what is kept about them: scores by request shape, places, labels, totals."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domain.group import Group
from domain.host import Host
from domain.scheduling.demand import Demand
from domain.scheduling.kinds import Kinds
from domain.scheduling.shape import Shape
from domain.scheduling.totals import Totals
from domain.values import Resources, ordered

if TYPE_CHECKING:
    from domain.scheduling.index import CapacityIndex

SHAPES_MAX = 64  # 10 bytes a host each
CHANGES_MAX = 16_384
LABEL_MASKS_MAX = 32

Mask = NDArray[np.bool_]


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
        self.hosts = hosts  # by name
        self.names = [host.name for host in hosts]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self.overcommit = group.overcommit if group is not None else {}
        self.classes = ordered({name for host in self.hosts for name, amount in host.capacity.items() if amount})
        self.class_index = {name: k for k, name in enumerate(self.classes)}
        self.kinds = Kinds(self.classes, self.hosts, self.overcommit)
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
        self.kinds.put(row, new)
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
            self._demand = Demand(self.index.shape_counts(self.name), self.kinds.largest)
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

    def shape(self, resources: Resources, strategy: str) -> Shape:
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

    def fitting(self, resources: Resources, strategy: str) -> tuple[int, Mask | None]:
        """How many hosts have room and take workload, and which; None for which, where it is none. Makes no scores."""
        largest = self.kinds.largest
        if any(amount > largest.get(name, 0) for name, amount in resources.items()):
            return 0, None
        found = self.shapes.get((strategy, *resources.items()))
        if found is not None:
            found.catch_up()
            fitting = found.counts[found.fits]
            return fitting, found.codes == found.fits if fitting else None
        fits = self.kinds.fitting([self.class_index[name] for name in resources], list(resources.values()))
        return int(fits.sum()), fits

    def totals(self) -> Totals:
        if self._totals is None:
            self._totals = Totals(self)
        return self._totals

    def column(self, level: str) -> Column:
        """The places of the hosts at host, rack, room, dc (with its region), dc_name or region."""
        found = self._columns.get(level)
        if found is None:
            found = Column([self.index.place_of(name, level) for name in self.names])
            self._columns[level] = found
        return found

    def has(self, level: str, name: str) -> bool:
        """Is there a host whose region, dc, room, rack or own name is `name`?"""
        return name in self.row_of if level == "host" else name in self._named(level).code_of

    def at(self, level: str, name: str) -> Mask:
        """The hosts whose region, dc, room, rack or own name is `name`."""
        if level != "host":
            return self._named(level).among((name,))
        mask = np.zeros(len(self.names), dtype=np.bool_)
        if (row := self.row_of.get(name)) is not None:
            mask[row] = True
        return mask

    def _named(self, level: str) -> Column:
        return self.column("dc_name" if level == "dc" else level)

    def labelled(self, key: str, value: str) -> Mask:
        """The hosts with this label. Not to be changed by the caller."""
        found = self._labelled.get((key, value))
        if found is None:
            if len(self._labelled) >= LABEL_MASKS_MAX:
                self._labelled.clear()
            found = np.array([host.about.labels.get(key) == value for host in self.hosts], dtype=np.bool_)
            self._labelled[key, value] = found
        return found

    def free(self, classes: list[str], rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """What is free of these classes on these hosts, the state apart: a line a class."""
        amounts = self.kinds.amounts_of(rows)
        free = np.zeros((len(classes), len(rows)), dtype=np.int64)
        for line, name in zip(free, classes, strict=True):
            if (k := self.class_index.get(name)) is not None:
                line[:] = np.maximum(amounts[:, 1 + k], 0.0)
        return free
