"""Commands on racks."""

from typing import Annotated

from pydantic import Field

from commands import finding, warning
from commands.keeping import rules_broken
from commands.model import Command, Done, Name, Protectable, Redescribed
from domain.errors import AlreadyExists, BelowUse, Conflict
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.rack import KIND as RACK
from domain.rack import RackCreated, RackDeleted, RackUpdated, evolve, must_have_unit
from domain.transaction import Transaction

Units = Annotated[int, Field(ge=1, le=100)]

REGION, DC, ROOM = "The region that it is in", "The data centre of the region", "The room of the data centre"
UNITS = "Its height in rack units"


class CreateRack(Protectable, creates=RACK):
    """Create a rack."""

    name: Name
    region: Name = Field(description=REGION)
    dc: Name = Field(description=DC)
    room: Name | None = Field(None, description=ROOM)
    units: Units | None = Field(None, description=UNITS)


class _OnRack(Command):
    rack: Name


class UpdateRack(_OnRack, Redescribed, changes=RACK):
    """Change a rack.

    `force` leaves rules and conditions of VMs broken by another place.
    """

    region: Name = Field("", description=REGION)
    dc: Name = Field("", description=DC)
    room: Name | None = Field(None, description=ROOM)
    units: Units | None = Field(None, description=UNITS)
    force: bool = Field(False, description="Apply even if the new location breaks a VM's rule or condition")


class DeleteRack(_OnRack, ends=RACK):
    """Delete a rack without hosts."""


def create(command: CreateRack, tx: Transaction) -> Done:
    if tx.fleet.get(RACK, command.name) is not None:
        raise AlreadyExists("rack", command.name)
    about = command.about()
    warnings = warning.of_external_id(tx, command.on(), about)
    tx.record(
        command.on(),
        RackCreated(
            uid=tx.new_id(),
            name=command.name,
            region=command.region,
            dc=command.dc,
            room=command.room,
            units=command.units,
            about=about,
        ),
    )
    return Done(created=True, warnings=warnings)


def update(command: UpdateRack, tx: Transaction) -> Done:
    rack = finding.find(tx, RACK, command.rack)
    event = RackUpdated(
        command.given("region", rack.region),
        command.given("dc", rack.dc),
        command.given("room", rack.room),
        command.given("units", rack.units),
        command.patched(rack.about),
    )
    there = evolve(rack, event)
    hosts = list(tx.fleet.each(HOST, rack=rack.name))
    for host in hosts:
        group = tx.fleet.get(GROUP, host.group)
        if group is not None and group.region is not None and group.region != event.region:
            raise Conflict(
                f"Host {host.name!r} is in this rack, and its group {group.name!r} is bound to region {group.region!r};"
                " move the host to another group first.",
                rack.name,
                [HOST.stream(host.name)],
            )
        must_have_unit(there, host.unit, host=host.name, used_by=[HOST.stream(host.name)])
    is_elsewhere = (event.region, event.dc, event.room) != (rack.region, rack.dc, rack.room)
    if is_elsewhere and not command.force:
        broken = rules_broken(tx, hosts={host.name: host for host in hosts}, rack=there)
        if broken:
            raise BelowUse(broken)
    warnings = warning.of_external_id(tx, command.on(), event.about, before=rack.about)
    if event != RackUpdated(rack.region, rack.dc, rack.room, rack.units, rack.about):
        tx.record(command.on(), event)
    return Done(warnings=warnings)


def delete(command: DeleteRack, tx: Transaction) -> Done:
    rack = finding.find(tx, RACK, command.rack)
    finding.must_not_be_protected("rack", rack.name, rack.about)
    finding.must_not_be_in_use(tx, RACK, rack.name)
    tx.record(command.on(), RackDeleted())
    return Done()


HANDLERS = {CreateRack: create, UpdateRack: update, DeleteRack: delete}
