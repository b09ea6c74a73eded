"""Conditions on hosts. Each filter yields (reason, hosts dropped) for what the request asks, and nothing if it asks
nothing.

Hosts are the rows of the group's table; `dropped` is a vector of booleans over them. `members` are the VMs of the sets
that the request's rules name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domain.vm import Rule, Vm

if TYPE_CHECKING:
    from domain.scheduling.index import HostTable

Dropped = NDArray[np.bool_]
Members = Mapping[str, Sequence[Vm]]


def place(request: Any, table: "HostTable", members: Members) -> Iterator[tuple[str, Dropped]]:
    """Region, dc, room, rack and host, as `where` names them."""
    where = request.where
    if where is None:
        return
    asked = [(level, getattr(where, level)) for level in ("region", "dc", "room", "rack", "host")]
    given = [(level, name) for level, name in asked if name is not None]
    if given:
        kept = np.ones(len(table.names), dtype=np.bool_)
        for level, name in given:
            kept &= table.at(level, name)
        yield "place", ~kept


def labels(request: Any, table: "HostTable", members: Members) -> Iterator[tuple[str, Dropped]]:
    """All of the labels of `where`."""
    if request.where is None or not request.where.labels:
        return
    asked = request.where.labels.items()
    yield "labels", np.array([not (asked <= host.about.labels.items()) for host in table.hosts], dtype=np.bool_)


def rules(request: Any, table: "HostTable", members: Members) -> Iterator[tuple[str, Dropped]]:
    """The request's own rules, and those by which the members of its sets are bound already."""
    for rule in _binding(request.rules, members):
        others = [vm for vm in members.get(rule.set, ()) if vm.host is not None]
        yield f"rule:{rule.type}", ~_allowed(rule, table, others)


def _binding(own: Sequence[Rule], members: Members) -> list[Rule]:
    """A partition's number is each VM's own, so a member's partition rule binds a newcomer as one without a number."""
    found = list(dict.fromkeys(own))
    for name in dict.fromkeys(rule.set for rule in own):
        for vm in members.get(name, ()):
            for rule in vm.rules:
                if rule.set != name or rule in found:
                    continue
                if rule.type == "partition":
                    same = any(r.type == "partition" and r.set == name and r.level == rule.level for r in found)
                    if not same:
                        found.append(Rule("partition", name, rule.level))
                else:
                    found.append(rule)
    return found


def _allowed(rule: Rule, table: "HostTable", others: Sequence[Vm]) -> Dropped:
    column = table.column(rule.level)
    has_place = column.codes >= 0
    places = [table.index.place_of(vm.host or "", rule.level) for vm in others]
    match rule.type:
        case "affinity":
            standing = {p for p in places if p is not None}
            return has_place & column.among(standing) if places else has_place
        case "anti_affinity":
            return has_place & ~column.among({p for p in places if p is not None})
        case "partition":
            foreign = {
                at
                for at, vm in zip(places, others, strict=True)
                if at is not None and _partition(vm, rule) != rule.partition
            }
            return has_place & ~column.among(foreign)
        case "spread":
            return has_place & _evenly(rule, column, Counter(p for p in places if p is not None))
        case kind:
            raise AssertionError(f"{kind} is not a rule")


def _partition(vm: Vm, rule: Rule) -> int | None:
    for other in vm.rules:
        if other.type == "partition" and other.set == rule.set and other.level == rule.level:
            return other.partition
    return None


def _evenly(rule: Rule, column: Any, counts: Counter[str]) -> Dropped:
    """Counts per place differ by at most `max_skew` after the placement, over the places that have a host in the
    group."""
    assert rule.max_skew is not None
    standing = {name: counts.get(name, 0) for name in column.code_of}
    allowed: set[str] = set()
    for name, count in standing.items():
        least = min((other for place, other in standing.items() if place != name), default=count + 1)
        if count + 1 - min(least, count + 1) <= rule.max_skew:
            allowed.add(name)
    return column.among(allowed)  # type: ignore[no-any-return]
