"""Conditions on hosts. Each filter yields (reason, hosts dropped) for what the request asks, and nothing if it asks
nothing.

Hosts are the rows of the group's table; `dropped` is a vector of booleans over them. `members` are the VMs of the sets
that the request's rules name; those without a host stand nowhere, but their rules bind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from domain.scheduling.request import PlacementRequest
from domain.scheduling.table import HostTable, Mask, PlaceColumn
from domain.vm import Rule, Vm

Members = Mapping[str, Sequence[Vm]]

PLACES = ("region", "dc", "room", "rack", "host")


def place(request: PlacementRequest, table: HostTable, members: Members) -> Iterator[tuple[str, Mask]]:
    """Region, dc, room, rack and host, as `where` names them."""
    where = request.where
    if where is None:
        return
    given = [(level, name) for level in PLACES if (name := getattr(where, level)) is not None]
    if given:
        kept = np.ones(len(table.names), dtype=np.bool_)
        for level, name in given:
            kept &= table.at(level, name)
        yield "place", ~kept


def labels(request: PlacementRequest, table: HostTable, members: Members) -> Iterator[tuple[str, Mask]]:
    """All of the labels of `where`."""
    if request.where is None or not request.where.labels:
        return
    kept = np.ones(len(table.names), dtype=np.bool_)
    for key, value in request.where.labels.items():
        kept &= table.labelled(key, value)
    yield "labels", ~kept


def rules(request: PlacementRequest, table: HostTable, members: Members) -> Iterator[tuple[str, Mask]]:
    """The request's own rules, and those by which the members of its sets are bound already."""
    if not request.rules:
        return
    for rule in binding(request.rules, members):
        standing = [vm for vm in members.get(rule.set, ()) if vm.host is not None]
        yield f"rule:{rule.type}", ~_allowed(rule, table, standing)


def binding(own: Sequence[Rule], members: Members) -> list[Rule]:
    """The request's own rules, and those of the members of its sets, each once.

    A partition's number is each VM's own, so a member's partition rule binds a newcomer that has no number at that
    level as one apart from every number."""
    found = dict.fromkeys(own)
    numbered = {(rule.set, rule.level) for rule in own if rule.type == "partition"}
    for name in dict.fromkeys(rule.set for rule in own):
        for vm in members.get(name, ()):
            for rule in vm.rules:
                if rule.set != name:
                    continue
                if rule.type != "partition":
                    found[rule] = None
                elif (name, rule.level) not in numbered:
                    found[Rule("partition", name, rule.level)] = None
    return list(found)


def _allowed(rule: Rule, table: HostTable, standing: Sequence[Vm]) -> Mask:
    """The hosts that keep the rule's promise; one without a place at its level can't."""
    column = table.column(rule.level)
    places = [table.place_of(vm.host or "", rule.level) for vm in standing]
    known = [place for place in places if place is not None]
    has_place = column.codes >= 0
    match rule.type:
        case "affinity":
            # Members that stand apart (or at no known place) can't all be joined, so then nothing is allowed.
            if not places:
                return has_place
            return column.among(known if len(set(places)) == 1 else ())
        case "anti_affinity":
            return has_place & ~column.among(known)
        case "spread":
            return has_place & _evenly(rule, column, Counter(known))
        case "partition":
            foreign = {
                place
                for place, vm in zip(places, standing, strict=True)
                if place is not None and _partition(vm, rule) != rule.partition
            }
            return has_place & ~column.among(foreign)
        case kind:
            raise AssertionError(f"{kind} is not a rule")


def _partition(vm: Vm, rule: Rule) -> int | None:
    for own in vm.rules:
        if own.type == "partition" and own.set == rule.set and own.level == rule.level:
            return own.partition
    return None


def _evenly(rule: Rule, column: PlaceColumn, counts: Counter[str]) -> Mask:
    """The places whose count with the newcomer is at most `max_skew` above the least one now.

    Measured from the place that would grow, not over all: after deletions have left a set uneven, what evens it out
    stays allowed. The places are those that have a host in the group, whatever its state.
    """
    assert rule.max_skew is not None
    least = min((counts[name] for name in column.code_of), default=0)
    return column.among([name for name in column.code_of if counts[name] + 1 - least <= rule.max_skew])
