"""What the hosts of a group use and have available in all, kept by touching only what changed."""

from domain.host import Host
from domain.scheduling.changes import RowChanges
from domain.values import Overcommit, Resources, available, ordered


class Totals:
    """Use of all hosts and availability of the schedulable ones."""

    _hosts: list[Host]  # as they are counted
    capacity: Resources  # without over-commit; a table is made anew when it changes
    _used: Resources
    _available: Resources
    _read: int  # how far into the changes

    def __init__(self, hosts: list[Host], changes: RowChanges, *, classes: list[str], overcommit: Overcommit) -> None:
        """`hosts` is the table's own list, whose elements it replaces as they change."""
        self._now = hosts
        self._changes = changes
        self._classes = classes
        self._overcommit = overcommit
        self.capacity = {}
        for host in hosts:
            for name, amount in host.capacity.items():
                self.capacity[name] = self.capacity.get(name, 0) + amount
        self.capacity = {name: self.capacity[name] for name in ordered(self.capacity)}
        self._recount()

    def read(self) -> tuple[Resources, Resources]:
        """With every class of the table."""
        used, available = self.sums()
        shown = dict.fromkeys(self._classes, 0)
        return _shown(shown, used), _shown(shown, available)

    def sums(self) -> tuple[Resources, Resources]:
        """The same, as they are kept: a class that is not there, or 0, is none. Not to be changed by the caller."""
        if self._read == self._changes.end:
            return self._used, self._available
        rows = self._changes.since(self._read)
        if rows is None:
            self._recount()
        elif rows:
            self._read = self._changes.end
            for row in rows:
                self._count(self._hosts[row], -1)
                self._hosts[row] = self._now[row]
                self._count(self._hosts[row], 1)
        return self._used, self._available

    def _recount(self) -> None:
        self._read = self._changes.end
        self._hosts = list(self._now)
        self._used = {}
        self._available = {}
        for host in self._hosts:
            self._count(host, 1)

    def _count(self, host: Host, sign: int) -> None:
        used, free = self._used, self._available
        for name, amount in host.used.items():
            used[name] = used.get(name, 0) + sign * amount
        if host.is_schedulable:
            for name, amount in available(host.capacity, self._overcommit, host.used).items():
                free[name] = free.get(name, 0) + sign * amount


def _shown(classes: Resources, amounts: Resources) -> Resources:
    """Every class of the table, and what there is of others (a capacity may have been taken back under what runs)."""
    rest = {name: amount for name, amount in amounts.items() if amount}
    return {name: rest.get(name, 0) for name in ordered(classes | rest)}
