"""Where hosts stand, and with them VMs."""

from collections.abc import Callable
from typing import Any

import msgspec

from domain.fleet import Fleet
from domain.host import KIND as HOST
from domain.host import Host
from domain.rack import KIND as RACK
from projections.field_types import MAYBE
from projections.fields import Field, joined


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a host stands, and in which group."""

    group: str | None = None
    rack: str | None = None
    region: str | None = None
    dc: str | None = None
    room: str | None = None


NOWHERE = Place()


def place_of(fleet: Fleet, host: Host) -> Place:
    rack = fleet.get(RACK, host.rack) if host.rack is not None else None
    if rack is None:
        return Place(host.group, host.rack)
    return Place(host.group, host.rack, rack.region, rack.dc, rack.room)


def place_on(fleet: Fleet, host: str | None) -> Place:
    """That of what is on the host of this name, or on none."""
    found = fleet.get(HOST, host) if host is not None else None
    return place_of(fleet, found) if found is not None else NOWHERE


def place_field(column: str, of: Callable[[Fleet, Any], Place]) -> Field:
    """The field that a column of the rack or host gives (`racks.dc`), of a view whose source has it."""
    level = column.rpartition(".")[2]

    def over(fleet: Fleet, state: Any) -> Any:
        return getattr(of(fleet, state), level)

    return joined(level, MAYBE, sql=column, over=over, filters=True, sorts=True)
