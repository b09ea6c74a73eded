"""A dock: where deliveries come in, beside a rack."""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import InvalidState
from domain.kind import Kind
from domain.values import About


class DockCreated(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    name: str
    rack: str
    bays: int
    about: About = About()


class DockUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of what can be changed, as it is from now on."""

    bays: int
    about: About = About()


class DockSealed(msgspec.Struct, frozen=True):
    pass


class DockDeleted(msgspec.Struct, frozen=True):
    pass


DockEvent = DockCreated | DockUpdated | DockSealed | DockDeleted


class Dock(msgspec.Struct, frozen=True):
    uid: str
    name: str
    rack: str
    bays: int
    state: str  # open, sealed, deleted
    about: About


def evolve(dock: Dock, event: DockEvent) -> Dock:
    match event:
        case DockCreated():
            return Dock(
                uid=event.uid, name=event.name, rack=event.rack, bays=event.bays, state="open", about=event.about
            )
        case DockUpdated():
            return replace(dock, bays=event.bays, about=event.about)
        case DockSealed():
            return replace(dock, state="sealed")
        case DockDeleted():
            return replace(dock, state="deleted")
        case _:
            assert_never(event)


def seal(dock: Dock) -> DockSealed:
    """Raises InvalidState, if it is sealed already."""
    if dock.state != "open":
        raise InvalidState("dock", dock.name, dock.state, ["open"])
    return DockSealed()


KIND = Kind(
    name="dock",
    plural="docks",
    named_by=("dock",),
    state=Dock,
    states=("open", "sealed", "deleted"),
    events={
        "dock.created": DockCreated,
        "dock.updated": DockUpdated,
        "dock.sealed": DockSealed,
        "dock.deleted": DockDeleted,
    },
    evolve=evolve,
    ends=frozenset({DockDeleted}),
    refs={"rack": "rack"},
)
