"""Amounts by class as they are shown: of one host, and summed up over several."""

from collections.abc import Sequence

import msgspec

from domain.values import Overcommit, Resources, available, ordered

BIGINT_MAX = 2**63 - 1  # what lies beyond is sorted as if it were so large


class Totals(msgspec.Struct, frozen=True):
    """Over several hosts. `largest_fit` is, per class, the most that is free on one schedulable host."""

    hosts: int = 0
    capacity: Resources = {}
    used: Resources = {}
    available: Resources = {}
    largest_fit: Resources = {}


def added(parts: Sequence[Totals]) -> Totals:
    """The totals of several together."""
    summed: tuple[Resources, ...] = ({}, {}, {})
    largest: Resources = {}
    for part in parts:
        for into, amounts in zip(summed, (part.capacity, part.used, part.available), strict=True):
            for name, amount in amounts.items():
                into[name] = into.get(name, 0) + amount
        for name, amount in part.largest_fit.items():
            largest[name] = max(largest.get(name, 0), amount)
    return Totals(sum(part.hosts for part in parts), *map(in_order, (*summed, largest)))


def in_order(amounts: Resources) -> Resources:
    """The same with classes in the order in which they are shown."""
    return {name: amounts[name] for name in ordered(amounts)}


def with_zeros(used: Resources, classes: Resources) -> Resources:
    """What is used, with 0 for the classes that could be and are not."""
    return {name: used.get(name, 0) for name in ordered(used.keys() | classes.keys())}


def free_on(capacity: Resources, overcommit: Overcommit, used: Resources, *, is_schedulable: bool) -> Resources:
    """A host's `available`."""
    return available(capacity, overcommit, used) if is_schedulable else dict.fromkeys(capacity, 0)
