"""Commands on VMs, and what becomes of a VM when one of its operations ends."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from commands import claims, finding, warning
from commands.choice import choose, offered_groups, unknown_class
from commands.groups import StrategyName
from commands.model import (
    Asked,
    Command,
    Done,
    Labels,
    Line,
    Name,
    PatchedAmounts,
    Protectable,
    Redescribed,
    merged_amounts,
)
from domain import quota, vm
from domain.command import Warned
from domain.errors import AlreadyExists, NoCapacity
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.operation import KIND as OPERATION
from domain.operation import Operation, OperationCancelled, OperationStarted, Step
from domain.scheduling.explain import scaled_down
from domain.scheduling.request import PlacementRequest
from domain.tenant import KIND as TENANT
from domain.transaction import Transaction
from domain.values import NAME_PATTERN, Resources, available, excess
from domain.vm import KIND as VM
from domain.vm import (
    Rule,
    Vm,
    VmActivated,
    VmChangeFailed,
    VmCreating,
    VmDeleted,
    VmFailed,
    VmResized,
    VmScheduled,
    VmStarted,
    VmStopped,
    VmUpdated,
    Where,
)

GROUPS_MAX = 100
RULES_MAX = 16

GroupChoice = Annotated[
    Name | Literal["*"] | Annotated[list[Name], Field(min_length=1, max_length=GROUPS_MAX)],
    # A name and * are both texts: told apart in the description, generated clients take a name for a wrong *.
    WithJsonSchema(
        {
            "description": "a name, a list of names, or *: every group where the tenant has quota",
            "anyOf": [
                {"type": "string", "pattern": rf"^(\*|{NAME_PATTERN.removeprefix('^').removesuffix('$')})$"},
                {
                    "type": "array",
                    "items": {"type": "string", "pattern": NAME_PATTERN},
                    "minItems": 1,
                    "maxItems": GROUPS_MAX,
                },
            ],
        }
    ),
]


class WhereField(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    region: Name | None = Field(None, description="In this region")
    dc: Name | None = Field(None, description="In this data centre")
    room: Name | None = Field(None, description="In this room")
    rack: Name | None = Field(None, description="In this rack")
    host: Name | None = Field(None, description="On this host")
    labels: Labels = Field(
        default_factory=dict, json_schema_extra={"default": {}}, description="On a host with these labels"
    )


class RuleField(BaseModel):
    """`max_skew` is spread's, `partition` partition's."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    type: Literal["affinity", "anti_affinity", "spread", "partition"] = Field(description="The type of the rule")
    set: Name = Field(description="The set of the tenant's VMs that it applies to, by a name of your own")
    level: Literal["host", "rack", "dc"] = Field(description="The level at which places are compared")
    max_skew: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="For spread: by how many VMs places may differ"
    )
    partition: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="For partition: the number of the VM's partition"
    )

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> "RuleField":
        if (self.max_skew is not None) != (self.type == "spread"):
            raise ValueError("max_skew goes with a spread rule, and a spread rule needs it")
        if (self.partition is not None) != (self.type == "partition"):
            raise ValueError("partition goes with a partition rule, and a partition rule needs it")
        return self


class ProvisionVm(Protectable, creates=VM, verb="provision", starts_operation=True):
    """Provision a VM.

    `group` is a name, a list of names, or "*": every group where the tenant has quota.
    """

    tenant: Name = Field(description="The tenant that owns it")
    name: Name
    group: GroupChoice
    resources: Asked = Field(description="Its amounts by resource class")
    image: Line | None = Field(None, description="The image that it boots from")
    strategy: StrategyName | None = Field(None, description="The strategy that chooses its host; else the group's")
    where: WhereField | None = Field(None, description="Conditions on its host, for as long as it exists")
    rules: Annotated[list[RuleField], Field(max_length=RULES_MAX)] = Field(
        default_factory=list,
        json_schema_extra={"default": []},
        description="Rules between it and other VMs of the tenant, for as long as it exists",
    )


class _OnVm(Command):
    tenant: Name
    vm: Name


class UpdateVm(_OnVm, Redescribed, changes=VM):
    """Change a VM's words and protection."""


class ResizeVm(_OnVm, does=VM, verb="resize", starts_operation=True):
    """Resize a VM.

    `resources` are merged: a class that is not named stays, 0 or null removes it.
    """

    resources: PatchedAmounts = Field(description="Its new amounts by resource class")


class StartVm(_OnVm, does=VM, verb="start", starts_operation=True):
    """Start a stopped VM."""


class StopVm(_OnVm, does=VM, verb="stop", starts_operation=True):
    """Stop a VM; it keeps its claims."""


class DeleteVm(_OnVm, ends=VM, starts_operation=True):
    """Delete a VM."""


def provision(command: ProvisionVm, tx: Transaction) -> Done:
    """The record, the host's use, the quotas' use and the work for the controllers: all in one transaction, or none."""
    tenant = finding.find(tx, TENANT, command.tenant).name
    groups = offered_groups(tx, tenant, command.group)
    where, rules = _where(command.where), tuple(_rule(rule) for rule in command.rules)
    finding.where(tx, where, groups)
    stream, about = command.on(), command.about()
    if tx.fleet.entry(stream) is not None:
        raise AlreadyExists("vm", f"{tenant}/{command.name}")
    chain = finding.may_grow(tx, tenant)
    request = PlacementRequest(tenant, command.resources, where, rules)
    placement = choose(tx, request, offered=command.group, groups=groups, chain=chain, strategy=command.strategy)
    warnings = warning.of_external_id(tx, stream, about)

    uid, operation = tx.new_id(), tx.new_id()
    # positional: names would take 0.5 µs of the 110 µs of a decision
    scheduled = VmScheduled(
        uid,
        tenant,
        command.name,
        placement.group,
        placement.host,
        command.resources,
        operation,
        placement.explanation,
        command.image,
        where,
        rules,
        about,
    )
    tx.record(stream, scheduled)
    claims.take(tx, stream, host=placement.host, group=placement.group, chain=chain, resources=command.resources, vms=1)
    _begin(tx, stream, operation, kind="vm.provision", step="vm.create", compensation="vm.delete")
    return Done(operation, created=True, warnings=warnings)


def update(command: UpdateVm, tx: Transaction) -> Done:
    found = finding.find(tx, VM, command.tenant, command.vm)
    about = command.patched(found.about)
    warnings = warning.of_external_id(tx, command.on(), about, before=found.about)
    if about != found.about:
        tx.record(command.on(), VmUpdated(about.protected, about))
    return Done(warnings=warnings)


def resize(command: ResizeVm, tx: Transaction) -> Done:
    """Claims the larger amount per class at once; the difference returns when the outcome is known."""
    found = finding.find(tx, VM, command.tenant, command.vm)
    size = merged_amounts(found.resources, command.resources, field="/resources")
    operation = tx.new_id()
    event = vm.resize(found, resources=size, operation=operation, under_way=_under_way(tx, found))
    if size == found.resources:
        return Done()
    more = excess(size, found.resources)
    if more:
        chain = finding.may_grow(tx, found.tenant)
        group = tx.fleet.group_of(found)
        quota.check(tx.fleet.quotas(group, chain), more)
        _must_have_room(tx, found, to=size, more=more)
        assert found.host is not None
        claims.take(tx, command.on(), host=found.host, group=group, chain=chain, resources=more, vms=0)
    tx.record(command.on(), event)
    _begin(tx, command.on(), operation, kind="vm.resize", step="vm.resize", to=size)
    return Done(operation)


def start(command: StartVm, tx: Transaction) -> Done:
    found = finding.find(tx, VM, command.tenant, command.vm)
    if found.state == "active":
        return Done()
    operation = tx.new_id()
    event = vm.start(found, operation=operation, under_way=_under_way(tx, found))
    finding.may_grow(tx, found.tenant)
    tx.record(command.on(), event)
    _begin(tx, command.on(), operation, kind="vm.start", step="vm.start")
    return Done(operation)


def stop(command: StopVm, tx: Transaction) -> Done:
    found = finding.find(tx, VM, command.tenant, command.vm)
    if found.state == "stopped":
        return Done()
    operation = tx.new_id()
    tx.record(command.on(), vm.stop(found, operation=operation, under_way=_under_way(tx, found)))
    _begin(tx, command.on(), operation, kind="vm.stop", step="vm.stop")
    return Done(operation)


def delete(command: DeleteVm, tx: Transaction) -> Done:
    """While it is being created, that operation is cancelled; claims return with the deletion, even if nothing had
    begun."""
    found = finding.find(tx, VM, command.tenant, command.vm)
    operation = tx.new_id()
    event = vm.delete(found, operation=operation, under_way=_under_way(tx, found))
    if found.operation is not None:
        tx.record(OPERATION.stream(found.operation), OperationCancelled("the VM is deleted"))
    tx.record(command.on(), event)
    if isinstance(event, VmDeleted):
        return Done()
    _begin(tx, command.on(), operation, kind="vm.delete", step="vm.delete")
    return Done(operation)


# ── what becomes of the VM when a step begins and when the operation ends; see commands/operations.py ──


def begun(tx: Transaction, operation: Operation) -> None:
    found = _target(tx, operation)
    if found.state == "scheduled":
        tx.record(operation.target, VmCreating())


def succeeded(tx: Transaction, operation: Operation) -> None:
    stream, found = operation.target, _target(tx, operation)
    match operation.kind:
        case "vm.provision":
            tx.record(stream, VmActivated(_addresses(operation.outputs)))
        case "vm.start":
            tx.record(stream, VmStarted())
        case "vm.stop":
            tx.record(stream, VmStopped())
        case "vm.resize":
            size: Resources = operation.input["resources"]
            _give_back_surplus(tx, found, size)
            tx.record(stream, VmResized(size))
        case "vm.delete":
            claims.give_back(tx, found, resources=found.claims, vms=1)
            tx.record(stream, VmDeleted())
        case kind:
            raise AssertionError(f"{kind} is not an operation on a VM")


def unsaid(operation: Operation) -> warning.Warnings:
    if operation.kind != "vm.provision" or _addresses(operation.outputs):
        return ()
    name = operation.target.partition("/")[2]
    message = f"no addresses are given, so that the vm {name!r} is active without any; nothing adds them later"
    return (Warned("/outputs/addresses", message),)


def failed(tx: Transaction, operation: Operation, reason: str) -> None:
    """It came to nothing, and that is known: of a creation nothing stands, anything else left the VM as it was."""
    stream, found = operation.target, _target(tx, operation)
    if operation.kind == "vm.provision":
        tx.record(stream, VmFailed(reason))
        claims.give_back(tx, found, resources=found.claims, vms=1)
        return
    if operation.kind == "vm.resize":
        _give_back_surplus(tx, found, found.resources)
    tx.record(stream, VmChangeFailed(reason))


def _target(tx: Transaction, operation: Operation) -> Vm:
    found = tx.fleet.at_stream(VM, operation.target)
    assert found is not None, "a VM outlives its operations"
    return found


def _give_back_surplus(tx: Transaction, found: Vm, size: Resources) -> None:
    if surplus := excess(found.claims, size):
        claims.give_back(tx, found, resources=surplus, vms=0)


def _begin(
    tx: Transaction,
    stream: str,
    operation: str,
    *,
    kind: str,
    step: str,
    compensation: str | None = None,
    to: Resources | None = None,
) -> None:
    found = tx.fleet.at_stream(VM, stream)
    assert found is not None
    work: dict[str, Any] = {
        "uid": found.uid,
        "tenant": found.tenant,
        "name": found.name,
        "group": tx.fleet.group_of(found),
        "host": found.host,
        "resources": to or found.resources,
        "image": found.image,
    }
    steps = (Step(step, timeout_s=tx.step_timeout_s, compensation=compensation),)
    tx.record(OPERATION.stream(operation), OperationStarted(kind, stream, steps, work, tx.at))


def _under_way(tx: Transaction, found: Vm) -> Operation | None:
    return tx.fleet.get(OPERATION, found.operation) if found.operation is not None else None


def _must_have_room(tx: Transaction, found: Vm, *, to: Resources, more: Resources) -> None:
    """Raises NoCapacity, told of the one host that could take it and of the size as a whole."""
    host = tx.fleet.get(HOST, found.host or "")
    assert host is not None
    policy = tx.fleet.get(GROUP, host.group)
    assert policy is not None
    free = available(host.capacity, policy.overcommit, host.used)
    short = excess(more, free)
    if short:
        room = {name: found.resources.get(name, 0) + free.get(name, 0) for name in to}
        reasons = [{"reason": f"insufficient:{next(iter(short))}", "hosts": 1}]
        nearest = {"host": host.name, "short": short}
        unknown = unknown_class(tx, more, tenant=found.tenant, groups=[host.group])
        raise NoCapacity(
            group=host.group,
            requested=to,
            considered=1,
            reasons=reasons,
            nearest=nearest,
            largest_fit=scaled_down(to, room),
            alternatives=[],
            message=unknown,
        )


def _where(field: WhereField | None) -> Where | None:
    if field is None:
        return None
    return Where(
        region=field.region, dc=field.dc, room=field.room, rack=field.rack, host=field.host, labels=field.labels
    )


def _rule(field: RuleField) -> Rule:
    return Rule(field.type, field.set, field.level, field.max_skew, field.partition)


def _addresses(outputs: dict[str, Any]) -> tuple[str, ...]:
    found = outputs.get("addresses", ())
    return tuple(str(address) for address in found) if isinstance(found, list | tuple) else ()


HANDLERS = {
    ProvisionVm: provision,
    UpdateVm: update,
    ResizeVm: resize,
    StartVm: start,
    StopVm: stop,
    DeleteVm: delete,
}
