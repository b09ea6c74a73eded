"""A VM: a workload with a berth on one host. It claims its size there, and in the quotas of its tenant's chain."""

from sys import intern
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import InvalidState, Protected
from domain.kind import Kind
from domain.operation import Operation, told
from domain.values import About, Resources, larger

BEING_CREATED = frozenset({"scheduled", "creating"})
IN_PROGRESS = BEING_CREATED | {"updating", "deleting"}  # states in which an operation is on its way


class Where(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Conditions on the host; None and {} ask for nothing."""

    region: str | None = None
    dc: str | None = None
    room: str | None = None
    rack: str | None = None
    host: str | None = None
    labels: dict[str, str] = {}


class Rule(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What holds between the members of a tenant's named set of VMs, at `level` host, rack or dc.

    `type` is affinity, anti_affinity, spread (with `max_skew`) or partition (with `partition`, the VM's own number).
    """

    type: str
    set: str
    level: str
    max_skew: int | None = None
    partition: int | None = None


class VmScheduled(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """It has a berth: `host`, and why there (`explanation`)."""

    uid: str
    tenant: str
    name: str
    group: str
    host: str
    resources: Resources
    operation: str
    explanation: Any
    image: str | None = None
    where: Where | None = None
    rules: tuple[Rule, ...] = ()
    about: About = About()


class VmCreating(msgspec.Struct, frozen=True, gc=False):
    pass


class VmActivated(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    addresses: tuple[str, ...] = ()


class VmFailed(msgspec.Struct, frozen=True):
    """Its creation failed and was cleaned up: it holds nothing and has no host."""

    reason: str


class VmUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    """`protected` is told here too: events from before `about` had it have it here alone."""

    protected: bool = False
    about: About = About()


class VmResizing(msgspec.Struct, frozen=True):
    """On the way to `resources`; until the outcome is known it claims `claims`, the larger amount per class."""

    operation: str
    resources: Resources
    claims: Resources


class VmResized(msgspec.Struct, frozen=True):
    resources: Resources


class VmStarting(msgspec.Struct, frozen=True):
    operation: str


class VmStarted(msgspec.Struct, frozen=True):
    pass


class VmStopping(msgspec.Struct, frozen=True):
    operation: str


class VmStopped(msgspec.Struct, frozen=True):
    pass


class VmChangeFailed(msgspec.Struct, frozen=True):
    """A deletion, start, stop or resize failed: it is again what it was, and claims what it claimed. One whose creation
    its deletion had cancelled is failed, since nobody goes on creating it."""

    reason: str


class VmDeleting(msgspec.Struct, frozen=True):
    operation: str


class VmDeleted(msgspec.Struct, frozen=True):
    pass


VmEvent = (
    VmScheduled
    | VmCreating
    | VmActivated
    | VmFailed
    | VmUpdated
    | VmResizing
    | VmResized
    | VmStarting
    | VmStarted
    | VmStopping
    | VmStopped
    | VmChangeFailed
    | VmDeleting
    | VmDeleted
)


class Vm(msgspec.Struct, frozen=True, gc=False):
    uid: str
    tenant: str
    name: str
    group: str  # where it was placed; while it has a host, its group is the host's
    host: str | None
    resources: Resources
    claims: Resources  # what it holds on its host and in quotas
    state: str  # as `vm.state` in the contract
    former: str | None  # the state to return to when a change fails
    operation: str | None
    image: str | None
    where: Where | None
    rules: tuple[Rule, ...]
    addresses: tuple[str, ...]
    reason: str | None
    about: About


def evolve(vm: Vm, event: VmEvent) -> Vm:
    match event:
        case VmScheduled():
            # Thousands of VMs have these names in common; each would keep its own, as the log's decoder gave it.
            # positional: names would take 1.2 µs more, a tenth of folding all events of a provisioning
            return Vm(
                event.uid,
                intern(event.tenant),
                event.name,
                intern(event.group),
                intern(event.host),
                event.resources,
                event.resources,  # claims
                "scheduled",  # state
                None,  # former
                event.operation,
                event.image,
                event.where,
                event.rules,
                (),  # addresses
                None,  # reason
                event.about,
            )
        case VmCreating():
            return replace(vm, state="creating")
        case VmActivated():
            return replace(vm, state="active", operation=None, addresses=event.addresses)
        case VmFailed():
            return replace(vm, state="failed", host=None, claims={}, operation=None, reason=event.reason)
        case VmUpdated():
            about = event.about
            return replace(
                vm, about=about if about.protected == event.protected else replace(about, protected=event.protected)
            )
        case VmResizing():
            return replace(
                vm, state="updating", former=vm.state, operation=event.operation, claims=event.claims, reason=None
            )
        case VmResized():
            return replace(
                vm,
                state=vm.former or "active",
                former=None,
                operation=None,
                resources=event.resources,
                claims=event.resources,
            )
        case VmStarting() | VmStopping():
            return replace(vm, state="updating", former=vm.state, operation=event.operation, reason=None)
        case VmStarted():
            return replace(vm, state="active", former=None, operation=None)
        case VmStopped():
            return replace(vm, state="stopped", former=None, operation=None)
        case VmChangeFailed():
            return replace(
                vm,
                state="failed" if vm.former in BEING_CREATED else vm.former or vm.state,
                former=None,
                operation=None,
                claims=vm.resources,
                reason=event.reason,
            )
        case VmDeleting():
            return replace(vm, state="deleting", former=vm.state, operation=event.operation)
        case VmDeleted():
            return replace(vm, state="deleted", host=None, claims={}, operation=None)
        case _:
            assert_never(event)


def full_name(vm: Vm) -> str:
    return f"{vm.tenant}/{vm.name}"


def must_be(vm: Vm, *states: str, under_way: Operation | None) -> None:
    """Raises InvalidState, with what is `under_way` on the VM, unless the VM is in one of `states`."""
    if vm.state in states:
        return
    if under_way is None or vm.operation is None:
        raise InvalidState("vm", full_name(vm), vm.state, list(states))
    why = f"{told(under_way, vm.operation)}."
    raise InvalidState(
        kind="vm",
        name=full_name(vm),
        state=vm.state,
        allowed=list(states),
        operation=vm.operation,
        ways_out=list(under_way.ways_out),
        why=why,
    )


def resize(vm: Vm, *, resources: Resources, operation: str, under_way: Operation | None = None) -> VmResizing:
    must_be(vm, "active", "stopped", under_way=under_way)
    return VmResizing(operation, resources, larger(vm.resources, resources))


def start(vm: Vm, *, operation: str, under_way: Operation | None = None) -> VmStarting:
    must_be(vm, "stopped", under_way=under_way)
    return VmStarting(operation)


def stop(vm: Vm, *, operation: str, under_way: Operation | None = None) -> VmStopping:
    must_be(vm, "active", under_way=under_way)
    return VmStopping(operation)


def delete(vm: Vm, *, operation: str, under_way: Operation | None = None) -> VmDeleting | VmDeleted:
    """A VM that holds nothing is gone at once; any other goes by an operation.

    Raises:
        InvalidState: it is being deleted or changed already.
        Protected: it is.
    """
    must_be(vm, "scheduled", "creating", "active", "stopped", "failed", under_way=under_way)
    if vm.about.protected:
        raise Protected("vm", full_name(vm))
    return VmDeleting(operation) if vm.claims else VmDeleted()


KIND = Kind(
    name="vm",
    plural="vms",
    named_by=("tenant", "vm"),
    state=Vm,
    states=("scheduled", "creating", "active", "stopped", "updating", "failed", "deleting", "deleted"),
    events={
        "vm.scheduled": VmScheduled,
        "vm.creating": VmCreating,
        "vm.activated": VmActivated,
        "vm.failed": VmFailed,
        "vm.updated": VmUpdated,
        "vm.resizing": VmResizing,
        "vm.resized": VmResized,
        "vm.starting": VmStarting,
        "vm.started": VmStarted,
        "vm.stopping": VmStopping,
        "vm.stopped": VmStopped,
        "vm.change_failed": VmChangeFailed,
        "vm.deleting": VmDeleting,
        "vm.deleted": VmDeleted,
    },
    evolve=evolve,
    ends=frozenset({VmDeleted}),
    owner=lambda vm: vm.tenant,
    refs={"tenant": "tenant", "host": "host"},
    rebinds=frozenset({VmFailed}),
    is_workload=True,
)
