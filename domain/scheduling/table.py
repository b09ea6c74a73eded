"""The hosts of one group as vectors, and what is kept about them: scores by request shape, places, labels, totals."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from domain.host import Host
from domain.scheduling.changes import RowChanges
from domain.scheduling.demand import Demand, Shape
from domain.scheduling.host_classes import HostClasses
from domain.scheduling.shape_scores import ShapeScores
from domain.scheduling.totals import Totals
from domain.values import Overcommit, Resources, ordered

SHAPES_MAX = 64  # 10 bytes a host each
LABEL_MASKS_MAX = 32

Mask = NDArray[np.bool_]


class PlaceColumn:
    """Where each host stands at one level, as a small number: `codes` is −1 where that is not known."""

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

    def __init__(
        self,
        hosts: list[Host],
        *,
        overcommit: Overcommit,
        place_of: Callable[[str, str], str | None],
        shape_counts: Callable[[], Mapping[Shape, int]],
    ) -> None:
        """`place_of` gives where a host stands at a level; `shape_counts` how many VMs of each shape the group has."""
        self.hosts = hosts  # by name
        self.names = [host.name for host in hosts]
        self.row_of = {name: row for row, name in enumerate(self.names)}
        self.overcommit = overcommit
        self.place_of = place_of
        self.classes = ordered({name for host in self.hosts for name, amount in host.capacity.items() if amount})
        self.class_index = {name: k for k, name in enumerate(self.classes)}
        self.host_classes = HostClasses(self.classes, self.hosts, self.overcommit)
        self.scores_by_shape: OrderedDict[tuple[object, ...], ShapeScores] = OrderedDict()
        self._shape_counts = shape_counts
        self._changes = RowChanges()
        self._columns: dict[str, PlaceColumn] = {}
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
        self.host_classes.put(row, new)
        self._changes.add(row)

    def racks_changed(self) -> None:
        self._columns.clear()

    def demand_changed(self) -> None:
        self._demand = None

    def demand(self) -> Demand:
        """The shapes that the group is asked for."""
        if self._demand is None:
            self._demand = Demand(self._shape_counts(), self.host_classes.largest)
        return self._demand

    def shape_scores(self, resources: Resources, strategy: str) -> ShapeScores:
        """The scores for one request shape, up to date."""
        key = (strategy, *resources.items())
        found = self.scores_by_shape.get(key)
        if found is None:
            found = self.scores_by_shape[key] = ShapeScores(
                self.host_classes, self._changes, resources=resources, strategy=strategy, demand=self.demand
            )
            if len(self.scores_by_shape) > SHAPES_MAX:
                self.scores_by_shape.popitem(last=False)
        else:
            self.scores_by_shape.move_to_end(key)
            found.catch_up()
        return found

    def fitting(self, resources: Resources, strategy: str) -> tuple[int, Callable[[], Mask]]:
        """How many hosts have room and take workload, and, for who asks, which. Makes no scores."""
        largest = self.host_classes.largest
        for name, amount in resources.items():
            if amount > largest.get(name, 0):
                return 0, lambda: np.zeros(len(self.names), dtype=np.bool_)
        found = self.scores_by_shape.get((strategy, *resources.items()))
        if found is not None:
            found.catch_up()
            return found.counts[found.fits], lambda: found.codes == found.fits
        fits = self.host_classes.fitting([self.class_index[name] for name in resources], list(resources.values()))
        return int(fits.sum()), lambda: fits

    def totals(self) -> Totals:
        if self._totals is None:
            self._totals = Totals(self.hosts, self._changes, classes=self.classes, overcommit=self.overcommit)
        return self._totals

    def column(self, level: str) -> PlaceColumn:
        """The places of the hosts at host, rack, room, dc (with its region), dc_name or region."""
        found = self._columns.get(level)
        if found is None:
            found = PlaceColumn([self.place_of(name, level) for name in self.names])
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

    def _named(self, level: str) -> PlaceColumn:
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
        """What is free of these classes on these hosts, the state apart: a row a class."""
        amounts = self.host_classes.amounts_of(rows)
        free = np.zeros((len(classes), len(rows)), dtype=np.int64)
        for amounts_free, name in zip(free, classes, strict=True):
            if (k := self.class_index.get(name)) is not None:
                amounts_free[:] = np.maximum(amounts[:, 1 + k], 0.0)
        return free
