"""Commands on operations: what controllers report, what deadlines bring, and what a person decides about a stuck
one."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from commands import finding, vms
from commands.model import Command, Done, Text, without_nul_inside
from domain import operation as decide
from domain.errors import Conflict, InvalidState, Validation
from domain.fleet import Transaction
from domain.operation import (
    Operation,
    OperationCancelled,
    OperationFailed,
    OperationStepFailed,
    OperationStepStarted,
    OperationStepSucceeded,
    OperationStuck,
    OperationSucceeded,
)
from domain.values import operation_stream

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Outcome(msgspec.Struct, frozen=True):
    """What an operation means to its target, by the target's kind."""

    begun: Callable[[Transaction, Operation], None]
    succeeded: Callable[[Transaction, Operation], None]
    failed: Callable[[Transaction, Operation, str], None]


OUTCOMES = {"vm": Outcome(vms.begun, vms.succeeded, vms.failed)}


class _OnOperation(Command):
    operation: Id

    def on(self) -> str:
        return operation_stream(self.operation)


class ReportOperation(_OnOperation):
    """A controller's report on one attempt of one step. `progress` is no command: it goes to a side table."""

    kind: ClassVar[str] = "operation.report"
    step: Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z_]+$", max_length=64)]
    attempt: Annotated[int, Field(ge=1, le=1_000_000)]
    outcome: Literal["started", "progress", "succeeded", "failed"]
    message: Text | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    outputs: Annotated[dict[str, JsonValue], AfterValidator(without_nul_inside)] | None = None

    @property
    def is_recorded(self) -> bool:
        return self.outcome != "progress"

    @property
    def key(self) -> str:
        """The key of a report that was sent without one, so that the same report again gets the first answer."""
        return f"{self.operation}:{self.step}:{self.attempt}:{self.outcome}"


class CancelOperation(_OnOperation):
    kind: ClassVar[str] = "operation.cancel"


class RetryOperation(_OnOperation):
    kind: ClassVar[str] = "operation.retry"


class AbandonOperation(_OnOperation):
    """A person answers for it that nothing of the work stands; needs a reason (header Berth-Reason)."""

    kind: ClassVar[str] = "operation.abandon"


class ExpireOperation(_OnOperation):
    """The engine's own, when a deadline has passed."""

    kind: ClassVar[str] = "operation.expire"
    step: str
    attempt: int


def report(command: ReportOperation, tx: Transaction) -> Done:
    id, stream = command.operation, command.on()
    operation = _running(tx, id)
    controller = tx.actor if tx.role == "controller" else None
    step = decide.reported(operation, id, step=command.step, attempt=command.attempt, controller=controller)
    match command.outcome:
        case "started":
            if step.state == "started":
                raise Conflict(f"Attempt {step.attempt} of {step.name!r} was started already.", command.operation)
            tx.record(stream, OperationStepStarted(step.name, step.attempt))
            _outcome(operation).begun(tx, operation)
        case "succeeded":
            following = decide.next_deadline(operation, step, deadline=tx.deadline)
            outputs: dict[str, Any] = command.outputs or {}
            tx.record(stream, OperationStepSucceeded(step.name, step.attempt, outputs, following))
            if not following:
                _end(tx, id)
        case "failed":
            reason = command.message or "the controller gave no reason"
            _fail(tx, id, decide.fail_step(operation, step, reason=reason, deadline=tx.deadline))
        case "progress":
            pass  # of the attempt that is current: the engine keeps it beside the log
    return Done(id)


def expire(command: ExpireOperation, tx: Transaction) -> Done:
    operation = _running(tx, command.operation)
    step = decide.reported(operation, command.operation, step=command.step, attempt=command.attempt, controller=None)
    if step.deadline > tx.at:
        raise Conflict("The deadline has not passed.", command.operation)
    _fail(tx, command.operation, decide.expire(operation, step, deadline=tx.deadline))
    return Done(command.operation)


def cancel(command: CancelOperation, tx: Transaction) -> Done:
    """What was begun is undone, as after a failure; claims return when that is confirmed, and then it is cancelled."""
    operation = _running(tx, command.operation)
    step = operation.current
    if operation.state != "running" or step is None or operation.is_undoing:
        raise InvalidState("operation", command.operation, operation.state, ["running"])
    if step.compensation is None:
        raise Conflict(f"{operation.kind} can't be undone half-way; let it end.", command.operation)
    reason = f"cancelled by {tx.actor}"
    event = decide.fail_step(operation, step, reason=reason, deadline=tx.deadline, is_cancel=True)
    _fail(tx, command.operation, event)
    return Done(command.operation)


def retry(command: RetryOperation, tx: Transaction) -> Done:
    operation = _running(tx, command.operation)
    tx.record(command.on(), decide.retry(operation, command.operation, deadline=tx.deadline))
    return Done(command.operation)


def abandon(command: AbandonOperation, tx: Transaction) -> Done:
    operation = _running(tx, command.operation)
    if operation.state != "stuck":
        raise InvalidState("operation", command.operation, operation.state, ["stuck"])
    if not tx.reason:
        message = "say how you know that nothing of it stands: what it holds is given back"
        raise Validation([{"field": "header:Berth-Reason", "message": message}])
    _give_up(tx, command.operation, f"abandoned by {tx.actor}: {tx.reason}")
    return Done(command.operation)


def _running(tx: Transaction, id: str) -> Operation:
    found = tx.fleet.operation(id)
    if found is None:
        if operation_stream(id) in tx.known:
            raise Conflict(
                f"Operation {id!r} is over; forget this work, as what is asked of it now comes too late.", id
            )
        raise finding.missing(tx, "operation", id)
    if tx.scope is not None:
        raise finding.missing(tx, "operation", id)
    return found


def _fail(tx: Transaction, id: str, event: OperationStepFailed | OperationStuck) -> None:
    stream = operation_stream(id)
    tx.record(stream, event)
    if isinstance(event, OperationStuck):
        return
    if not event.compensations:
        _give_up(tx, id, event.reason)
        return
    operation = tx.fleet.operation(id)
    assert operation is not None
    _outcome(operation).begun(tx, operation)


def _end(tx: Transaction, id: str) -> None:
    """The last step succeeded: the work is done, or, after a failure, undone."""
    operation = tx.fleet.operation(id)
    assert operation is not None
    if operation.is_undoing:
        _give_up(tx, id, operation.reason or "a step failed")
        return
    tx.record(operation_stream(id), OperationSucceeded())
    _outcome(operation).succeeded(tx, operation)


def _give_up(tx: Transaction, id: str, reason: str) -> None:
    operation = tx.fleet.operation(id)
    assert operation is not None
    tx.record(operation_stream(id), OperationCancelled(reason) if operation.is_cancelled else OperationFailed(reason))
    _outcome(operation).failed(tx, operation, reason)


def _outcome(operation: Operation) -> Outcome:
    return OUTCOMES[operation.target.partition("/")[0]]


HANDLERS = {
    ReportOperation: report,
    CancelOperation: cancel,
    RetryOperation: retry,
    AbandonOperation: abandon,
    ExpireOperation: expire,
}
