"""Commands on hosts."""

from typing import Annotated, Any

from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from commands import claims, finding, warning
from commands.groups import must_stand_in_region
from commands.keeping import rules_broken
from commands.model import (
    Asked,
    Command,
    Done,
    Line,
    Name,
    PatchedAmounts,
    Protectable,
    Redescribed,
    merged_amounts,
)
from domain import host as decide
from domain.errors import USED_BY_MAX, AlreadyExists, BelowUse, Conflict, NoQuota, Validation
from domain.group import KIND as GROUP
from domain.group import Group
from domain.host import KIND as HOST
from domain.host import HostDeleted, HostMoved, HostRegistered, HostUpdated
from domain.quota import KIND as QUOTA
from domain.quota import would_break
from domain.rack import KIND as RACK
from domain.rack import must_have_unit
from domain.transaction import Transaction
from domain.values import Bmc
from domain.vm import KIND as VM

Unit = Annotated[int, Field(ge=1, le=100)]


def _without_user(address: str) -> str:
    if "@" in address:
        raise ValueError("must not contain a user or a password, as it is kept for ever; refer to them in credential")
    return address


Address = Annotated[Line, AfterValidator(_without_user)]

ADDRESS, PROTOCOL = "The address of its management controller", "The controller's protocol, for example redfish"
CREDENTIAL = "A reference to the secret, never the secret"
SYSTEM = "Which system of the controller it is, where one controller has several, as in a chassis"
IN_RACK, AT_UNIT, ITS_BMC = "The rack that it is in", "The position in its rack", "Its management controller"


class BmcField(BaseModel):
    """How to reach the management controller; `credential` is a reference, never a secret. `system` tells the hosts of
    one controller apart, as in a chassis."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    address: Address = Field(description=ADDRESS)
    protocol: Line | None = Field(None, description=PROTOCOL)
    credential: Line | None = Field(None, description=CREDENTIAL)
    system: Line | None = Field(None, description=SYSTEM)


class BmcPatch(BaseModel):
    """A merge patch of it; what has none yet needs an address."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    address: Address = Field("", description=ADDRESS)
    protocol: Line | None = Field(None, description=PROTOCOL)
    credential: Line | None = Field(None, description=CREDENTIAL)
    system: Line | None = Field(None, description=SYSTEM)


class RegisterHost(Protectable, creates=HOST, verb="register"):
    """Register a host."""

    name: Name
    group: Name = Field(description="The group that it belongs to")
    capacity: Asked = Field(description="Its capacity by resource class")
    rack: Name | None = Field(None, description=IN_RACK)
    unit: Unit | None = Field(None, description=AT_UNIT)
    bmc: BmcField | None = Field(None, description=ITS_BMC)


class _OnHost(Command):
    host: Name


class UpdateHost(_OnHost, Redescribed, changes=HOST):
    """Change a host.

    `capacity` and `bmc` are merged as well, class by class and part by part; `force` leaves use above a capacity,
    or rules and conditions of VMs broken.
    """

    capacity: PatchedAmounts = Field({}, description="Its capacity; merged class by class, null or 0 removes one")
    rack: Name | None = Field(None, description=IN_RACK)
    unit: Unit | None = Field(None, description=AT_UNIT)
    bmc: BmcPatch | None = Field(None, description=f"{ITS_BMC}; merged part by part")
    force: bool = Field(False, description="Apply even if use then exceeds a capacity, or a rule of a VM is broken")


class MoveHost(_OnHost, does=HOST, verb="move"):
    """Move a host to another group.

    `force` leaves the host above its new over-commit, quotas above their limits and rules of VMs broken.
    """

    group: Name = Field(description="The group that it moves to")
    force: bool = Field(False, description="Apply even if an over-commit, a quota or a rule of a VM is then broken")


class CordonHost(_OnHost, does=HOST, verb="cordon"):
    """Place nothing new on a host."""


class UncordonHost(_OnHost, does=HOST, verb="uncordon"):
    """Place on a host again."""


class DeleteHost(_OnHost, ends=HOST):
    """Delete a host without VMs."""


def register(command: RegisterHost, tx: Transaction) -> Done:
    """Registered with its capacity, it is available at once."""
    group = finding.find(tx, GROUP, command.group)
    if command.rack is not None:
        finding.find(tx, RACK, command.rack)
    if tx.fleet.get(HOST, command.name) is not None:
        raise AlreadyExists("host", command.name)
    bmc, about = _bmc(command.bmc), command.about()
    _must_be_its_own(tx, command.name, bmc)
    _must_have_place(tx, command.name, group=group, rack=command.rack, unit=command.unit)
    warnings = warning.of_capacity(tx, command.capacity) + warning.of_external_id(tx, command.on(), about)
    tx.record(
        command.on(),
        HostRegistered(
            uid=tx.new_id(),
            name=command.name,
            group=command.group,
            capacity=command.capacity,
            rack=command.rack,
            unit=command.unit,
            bmc=bmc,
            about=about,
        ),
    )
    return Done(created=True, warnings=warnings)


def update(command: UpdateHost, tx: Transaction) -> Done:
    host = finding.find(tx, HOST, command.host)
    group = finding.find(tx, GROUP, host.group)
    event = HostUpdated(
        merged_amounts(host.capacity, command.capacity, field="/capacity"),
        command.given("rack", host.rack),
        command.given("unit", host.unit),
        _merged_bmc(host.bmc, command.bmc) if "bmc" in command.model_fields_set else host.bmc,
        command.patched(host.about),
    )
    if command.rack is not None:
        finding.find(tx, RACK, command.rack)
    if event.bmc != host.bmc:
        _must_be_its_own(tx, host.name, event.bmc)
    if (event.rack, event.unit) != (host.rack, host.unit):
        _must_have_place(tx, host.name, group=group, rack=event.rack, unit=event.unit)
    if not command.force:
        broken: list[dict[str, Any]] = []
        if event.capacity != host.capacity:
            broken = decide.would_break(host, capacity=event.capacity, overcommit=group.overcommit)
            broken = [b for b in broken if event.capacity.get(b["resource"], 0) < host.capacity.get(b["resource"], 0)]
        if event.rack != host.rack or event.about.labels != host.about.labels:
            there = replace(host, rack=event.rack, about=event.about)
            broken += rules_broken(tx, hosts={host.name: there})
        if broken:
            raise BelowUse(broken)
    warnings = warning.of_capacity(tx, event.capacity) + warning.of_external_id(
        tx, command.on(), event.about, before=host.about
    )
    if event != HostUpdated(host.capacity, host.rack, host.unit, host.bmc, host.about):
        tx.record(command.on(), event)
    return Done(warnings=warnings)


def move(command: MoveHost, tx: Transaction) -> Done:
    """What the VMs on it use leaves the quotas of the old group and comes into those of the new one."""
    fleet = tx.fleet
    host, group = finding.find(tx, HOST, command.host), finding.find(tx, GROUP, command.group)
    if host.group == group.name:
        return Done()
    if group.region is not None:
        must_stand_in_region(tx, rack=host.rack, region=group.region, host=host.name)

    uses = claims.uses_of(tx, fleet.each(VM, host=host.name))
    chains = {tenant: fleet.chain(tenant) for _, tenant in uses}
    before = claims.along_chains(uses, chains)
    after = {(group.name, tenant): used for (_, tenant), used in before.items()}
    if not command.force:
        for _, tenant in uses:
            if fleet.get(QUOTA, group.name, tenant) is None:
                granted = sorted(fleet.granted(tenant))
                raise NoQuota(tenant, group.name, granted)
        broken: list[dict[str, Any]] = decide.would_break(host, capacity=host.capacity, overcommit=group.overcommit)
        for (name, tenant), used in sorted(after.items()):
            quota = fleet.get(QUOTA, name, tenant)
            if quota is not None:
                total = {resource: quota.used.get(resource, 0) + amount for resource, amount in used.items()}
                broken += would_break(f"{name}/{tenant}", limits=quota.limits, used=total)
        broken += rules_broken(tx, hosts={host.name: replace(host, group=group.name)})
        if broken:
            raise BelowUse(broken)
    tx.record(command.on(), HostMoved(group.name))
    claims.shift(tx, command.on(), before=before, after=after)
    return Done()


def cordon(command: CordonHost, tx: Transaction) -> Done:
    if event := decide.cordon(finding.find(tx, HOST, command.host)):
        tx.record(command.on(), event)
    return Done()


def uncordon(command: UncordonHost, tx: Transaction) -> Done:
    if event := decide.uncordon(finding.find(tx, HOST, command.host)):
        tx.record(command.on(), event)
    return Done()


def delete(command: DeleteHost, tx: Transaction) -> Done:
    host = finding.find(tx, HOST, command.host)
    finding.must_not_be_protected("host", host.name, host.about)
    finding.must_not_be_in_use(tx, HOST, host.name)
    tx.record(command.on(), HostDeleted())
    return Done()


def _must_be_its_own(tx: Transaction, name: str, bmc: Bmc | None) -> None:
    """Raises AlreadyExists if another host is reached by the same controller: power off would hit that one."""
    controller = decide.controller_of(bmc)
    if bmc is None or controller is None:
        return
    if others := tx.fleet.hosts_by_bmc.get(controller, set()) - {name}:
        raise AlreadyExists("bmc", bmc.address, [HOST.stream(other) for other in sorted(others)[:USED_BY_MAX]])


def _must_have_place(tx: Transaction, name: str, *, group: Group, rack: str | None, unit: int | None) -> None:
    if unit is not None and rack is None:
        raise Conflict("A unit is a position in a rack; name the rack too.", name)
    if rack is not None:
        found = finding.find(tx, RACK, rack)
        must_have_unit(found, unit, host=name)
        for other in tx.fleet.each(HOST, rack=rack) if unit is not None else ():
            if other.unit == unit and other.name != name:
                raise Conflict(
                    f"Unit {unit} of rack {rack!r} holds host {other.name!r}.", rack, [HOST.stream(other.name)]
                )
    if group.region is not None:
        must_stand_in_region(tx, rack=rack, region=group.region, host=name)


def _merged_bmc(bmc: Bmc | None, patch: BmcPatch | None) -> Bmc | None:
    if patch is None:
        return None
    if bmc is None and not patch.address:
        raise Validation([{"field": "/bmc/address", "message": "is required, as the host has no bmc yet"}])
    given = {name: getattr(patch, name) for name in patch.model_fields_set}
    return replace(bmc, **given) if bmc is not None else Bmc(**given)


def _bmc(field: BmcField | None) -> Bmc | None:
    return Bmc(field.address, field.protocol, field.credential, field.system) if field is not None else None


HANDLERS = {
    RegisterHost: register,
    UpdateHost: update,
    MoveHost: move,
    CordonHost: cordon,
    UncordonHost: uncordon,
    DeleteHost: delete,
}
