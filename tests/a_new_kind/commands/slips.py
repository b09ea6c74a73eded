"""Commands on slips."""

from typing import Annotated

from pydantic import Field

from commands import finding, warning
from commands.model import Command, Done, Name, Protectable, Redescribed
from domain.dock import KIND as DOCK
from domain.errors import AlreadyExists
from domain.slip import KIND as SLIP
from domain.slip import SlipChanged, SlipReleased, SlipReserved
from domain.tenant import KIND as TENANT
from domain.transaction import Transaction

Hours = Annotated[int, Field(ge=1, le=24)]

ITS_DOCK, HOURS = "Where it is", "How long it is"


class ReserveSlip(Protectable, creates=SLIP, verb="reserve"):
    """Reserve some hours of a dock."""

    tenant: Name = Field(description="Whose it is")
    name: Name
    dock: Name = Field(description=ITS_DOCK)
    hours: Hours = Field(1, description=HOURS)


class _OnSlip(Command):
    tenant: Name
    slip: Name


class ChangeSlip(_OnSlip, Redescribed, changes=SLIP):
    """Change a slip."""

    dock: Name = Field("", description=ITS_DOCK)
    hours: Hours = Field(1, description=HOURS)


class ReleaseSlip(_OnSlip, ends=SLIP, verb="release"):
    """Give a slip back."""


def reserve(command: ReserveSlip, tx: Transaction) -> Done:
    finding.find(tx, TENANT, command.tenant)
    finding.find(tx, DOCK, command.dock)
    if tx.fleet.get(SLIP, command.tenant, command.name) is not None:
        raise AlreadyExists("slip", f"{command.tenant}/{command.name}")
    finding.may_grow(tx, command.tenant)
    about = command.about()
    warnings = warning.of_external_id(tx, command.on(), about)
    tx.record(
        command.on(),
        SlipReserved(
            uid=tx.new_id(),
            tenant=command.tenant,
            name=command.name,
            dock=command.dock,
            hours=command.hours,
            about=about,
        ),
    )
    return Done(created=True, warnings=warnings)


def change(command: ChangeSlip, tx: Transaction) -> Done:
    slip = finding.find(tx, SLIP, command.tenant, command.slip)
    event = SlipChanged(
        command.given("dock", slip.dock), command.given("hours", slip.hours), command.patched(slip.about)
    )
    finding.find(tx, DOCK, event.dock)
    if event != SlipChanged(slip.dock, slip.hours, slip.about):
        tx.record(command.on(), event)
    return Done()


def release(command: ReleaseSlip, tx: Transaction) -> Done:
    slip = finding.find(tx, SLIP, command.tenant, command.slip)
    finding.must_not_be_protected("slip", f"{slip.tenant}/{slip.name}", slip.about)
    tx.record(command.on(), SlipReleased())
    return Done()


HANDLERS = {ReserveSlip: reserve, ChangeSlip: change, ReleaseSlip: release}
