"""What is accepted and hardly meant so: each warning names its field, and what was probably meant."""

from collections.abc import Iterable

from commands import finding
from commands.choice import class_like
from domain.command import Warned
from domain.transaction import Transaction
from domain.values import COUNTS, FIRST_CLASSES, NOTHING_SAID, About, kind_of, name_of

Warnings = tuple[Warned, ...]

# Keys of limits that no host has: counts, and the size of volumes (of one storage class: `volume_gib_<class>`).
# `objects_<kind>` counts a kind of operators' own; there is no such kind yet.
OTHER_LIMITS = (*COUNTS, "volume_gib")
OF_A_STORAGE_CLASS = "volume_gib_"
SUGGESTED_MAX = 3  # classes; some 0.2 ms each
NAMED_MAX = 100  # of more that have the same id only the number is told


def of_external_id(tx: Transaction, stream: str, about: About, *, before: About = NOTHING_SAID) -> Warnings:
    """The customer's own key is new here, and others of the kind have it (within a scope: those that are seen)."""
    id = about.external_id
    if id is None or id == before.external_id:
        return ()
    kind = kind_of(stream)
    found = tx.fleet.by_external_id.get((kind, id), set())
    if len(found) > NAMED_MAX:
        others = f"{len(found)} others" if tx.scope is None else ""
    else:
        names = sorted(name_of(other) for other in found if other != stream and _is_seen(tx, other))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        others = ", ".join(repr(name) for name in names[:3]) + more
    if not others:
        return ()
    return (Warned("/external_id", f"{id!r} is also the external_id of the {kind} {others}"),)


def of_limits(tx: Transaction, names: Iterable[str]) -> Warnings:
    """A misspelt limit limits nothing."""
    others = (name for name in names if name not in OTHER_LIMITS and not _is_of_a_storage_class(name))
    return tuple(
        Warned(f"/limits/{name}", f"{name!r} is not known to any host or kind, so it limits nothing yet", near)
        for name, near in _unknown(tx, others, also=OTHER_LIMITS)
    )


def of_overcommit(tx: Transaction, names: Iterable[str]) -> Warnings:
    return tuple(
        Warned(f"/overcommit/{name}", f"no host has the resource class {name!r} yet", near)
        for name, near in _unknown(tx, names)
    )


def of_capacity(tx: Transaction, names: Iterable[str]) -> Warnings:
    """The first host of a new class is no surprise, unless the class is nearly called as another."""
    return tuple(
        Warned(f"/capacity/{name}", f"no other host has the resource class {name!r}", near)
        for name, near in _unknown(tx, names)
        if near is not None
    )


def of_region(tx: Transaction, name: str | None, *, before: str | None = None) -> Warnings:
    """A group may be bound to a region before its first rack stands."""
    if name is None or name == before or ("region", name) in tx.fleet.racks_by_place:
        return ()
    return (Warned("/region", f"no rack is in a region {name!r} yet", finding.nearest(tx, "region", name)),)


def _unknown(tx: Transaction, names: Iterable[str], *, also: tuple[str, ...] = ()) -> list[tuple[str, str | None]]:
    """The classes that no host has and no site knows, with what was probably meant by the first few."""
    known = tx.fleet.hosts_of_class
    unknown = [name for name in names if name not in FIRST_CLASSES and name not in known]
    return [(name, class_like(name, known, also=also) if n < SUGGESTED_MAX else None) for n, name in enumerate(unknown)]


def _is_of_a_storage_class(name: str) -> bool:
    return name.startswith(OF_A_STORAGE_CLASS) and name != OF_A_STORAGE_CLASS


def _is_seen(tx: Transaction, stream: str) -> bool:
    """Who is confined to a tenant commands VMs alone."""
    return tx.scope is None or finding.sees(tx, stream.split("/")[1])
