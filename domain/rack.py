"""A rack: where hosts stand, in a room of a data centre (dc) of a region."""

from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import Conflict
from domain.kind import Kind
from domain.values import About


class RackCreated(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    name: str
    region: str
    dc: str
    room: str | None = None
    units: int | None = None
    about: About = About()


class RackUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of what can be changed, as it is from now on."""

    region: str
    dc: str
    room: str | None = None
    units: int | None = None
    about: About = About()


class RackDeleted(msgspec.Struct, frozen=True):
    pass


RackEvent = RackCreated | RackUpdated | RackDeleted


class Rack(msgspec.Struct, frozen=True):
    uid: str
    name: str
    region: str
    dc: str
    room: str | None
    units: int | None
    state: str  # active, deleted
    about: About


def evolve(rack: Rack, event: RackEvent) -> Rack:
    match event:
        case RackCreated():
            return Rack(
                uid=event.uid,
                name=event.name,
                region=event.region,
                dc=event.dc,
                room=event.room,
                units=event.units,
                state="active",
                about=event.about,
            )
        case RackUpdated():
            return replace(
                rack, region=event.region, dc=event.dc, room=event.room, units=event.units, about=event.about
            )
        case RackDeleted():
            return replace(rack, state="deleted")
        case _:
            assert_never(event)


def must_have_unit(rack: Rack, unit: int | None, *, host: str, used_by: Sequence[str] = ()) -> None:
    """Raises Conflict, if the host's unit is above the rack's; one whose height is not told has all."""
    if unit is not None and rack.units is not None and unit > rack.units:
        message = f"Unit {unit}, of host {host!r}, is above the {rack.units} units of rack {rack.name!r}."
        raise Conflict(message, rack.name, list(used_by))


KIND = Kind(
    name="rack",
    plural="racks",
    named_by=("rack",),
    state=Rack,
    states=("active", "deleted"),
    events={
        "rack.created": RackCreated,
        "rack.updated": RackUpdated,
        "rack.deleted": RackDeleted,
    },
    evolve=evolve,
    ends=frozenset({RackDeleted}),
)
