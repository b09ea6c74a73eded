"""Commands on docks."""

from typing import Annotated

from pydantic import Field

from commands import finding, warning
from commands.model import Command, Done, Name, Protectable, Redescribed
from domain.dock import KIND as DOCK
from domain.dock import DockCreated, DockDeleted, DockUpdated, seal
from domain.errors import AlreadyExists
from domain.rack import KIND as RACK
from domain.transaction import Transaction

Bays = Annotated[int, Field(ge=1, le=40)]

BAYS = "How many lorries it takes at once"


class CreateDock(Protectable, creates=DOCK):
    """Create a dock."""

    name: Name
    rack: Name = Field(description="The rack that is nearest")
    bays: Bays = Field(1, description=BAYS)


class _OnDock(Command):
    dock: Name


class UpdateDock(_OnDock, Redescribed, changes=DOCK):
    """Change a dock."""

    bays: Bays = Field(1, description=BAYS)


class SealDock(_OnDock, does=DOCK, verb="seal"):
    """Take no more deliveries.

    There is no way back.
    """


class DeleteDock(_OnDock, ends=DOCK):
    """Delete a dock."""


def create(command: CreateDock, tx: Transaction) -> Done:
    finding.find(tx, RACK, command.rack)
    if tx.fleet.get(DOCK, command.name) is not None:
        raise AlreadyExists("dock", command.name)
    about = command.about()
    warnings = warning.of_external_id(tx, command.on(), about)
    tx.record(
        command.on(),
        DockCreated(uid=tx.new_id(), name=command.name, rack=command.rack, bays=command.bays, about=about),
    )
    return Done(created=True, warnings=warnings)


def update(command: UpdateDock, tx: Transaction) -> Done:
    dock = finding.find(tx, DOCK, command.dock)
    event = DockUpdated(command.given("bays", dock.bays), command.patched(dock.about))
    if event != DockUpdated(dock.bays, dock.about):
        tx.record(command.on(), event)
    return Done()


def seal_(command: SealDock, tx: Transaction) -> Done:
    tx.record(command.on(), seal(finding.find(tx, DOCK, command.dock)))
    return Done()


def delete(command: DeleteDock, tx: Transaction) -> Done:
    dock = finding.find(tx, DOCK, command.dock)
    finding.must_not_be_protected("dock", dock.name, dock.about)
    finding.must_not_be_in_use(tx, DOCK, dock.name)
    tx.record(command.on(), DockDeleted())
    return Done()


HANDLERS = {CreateDock: create, UpdateDock: update, SealDock: seal_, DeleteDock: delete}
