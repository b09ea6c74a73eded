"""Commands on operations: what controllers report, what deadlines bring, and what a person decides about a stuck
one."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from commands import finding, vms
from commands.characters import shown
from commands.model import ENGINE, REPORTERS, Command, Done, Line, Text, without_nul_inside
from commands.warning import Warnings
from domain import operation as decide
from domain.errors import Conflict, Validation
from domain.operation import KIND as OPERATION
from domain.operation import (
    Operation,
    OperationCancelled,
    OperationFailed,
    OperationRetried,
    OperationStepFailed,
    OperationStepSucceeded,
    OperationStuck,
    OperationSucceeded,
)
from domain.transaction import Transaction

ADDRESSES_MAX = 64
NUMBER_MAX = 2**53 - 1  # beyond it, who reads JSON as JavaScript does reads another number


def _readable(outputs: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What is shown of the outputs is what it says it is, and numbers are the same for every reader."""
    for name, value in outputs.items():
        _must_have_numbers(value, within=name)
    addresses = outputs.get("addresses", [])
    if not isinstance(addresses, list) or len(addresses) > ADDRESSES_MAX:
        raise ValueError(f"addresses must be a list of at most {ADDRESSES_MAX} IP addresses")
    for n, address in enumerate(addresses):
        if not isinstance(address, str) or not _is_address(address):
            raise ValueError(f"addresses/{n} must be an IP address, such as 10.0.0.1 or 2001:db8::1")
    return outputs


def _must_have_numbers(value: JsonValue, *, within: str) -> None:
    if isinstance(value, int) and abs(value) > NUMBER_MAX:
        raise ValueError(f"{shown(within[:64])} has a number beyond 2^53 - 1; give it as a text")
    if isinstance(value, list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            _must_have_numbers(entry, within=within)


def _is_address(text: str) -> bool:
    try:
        return ip_address(text) is not None and "%" not in text
    except ValueError:
        return False


Outputs = Annotated[dict[str, JsonValue], AfterValidator(without_nul_inside), AfterValidator(_readable)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Outcome(msgspec.Struct, frozen=True):
    """What an operation means to its target, by the target's kind."""

    begun: Callable[[Transaction, Operation], None]
    succeeded: Callable[[Transaction, Operation], None]
    failed: Callable[[Transaction, Operation, str], None]
    unsaid: Callable[[Operation], Warnings]  # what a controller would have said of a success, and a person did not


OUTCOMES = {"vm": Outcome(vms.begun, vms.succeeded, vms.failed, vms.unsaid)}


class _OnOperation(Command):
    operation: Id


class ReportOperation(_OnOperation, does=OPERATION, verb="report", roles=REPORTERS):
    """Report on an attempt of a step.

    A controller's report on one attempt of one step. `progress` is no command: it goes to a side table. `retryable`
    and `code` are of what failed: whether another attempt may do better, and why in the controller's own word.
    """

    step: Annotated[str, StringConstraints(pattern=r"^[a-z_]+\.[a-z_]+$", max_length=64)] = Field(
        description="The step, such as vm.create"
    )
    attempt: Annotated[int, Field(ge=1, le=1_000_000)] = Field(description="The attempt of that step")
    outcome: Literal["started", "progress", "succeeded", "failed"] = Field(description="The outcome")
    message: Text | None = Field(None, description="For people")
    percent: Annotated[int, Field(ge=0, le=100)] | None = Field(None, description="Progress in percent")
    outputs: Outputs | None = Field(None, description="Results, such as addresses")
    retryable: bool = Field(True, description="After a failure: whether another attempt may succeed")
    code: Line | None = Field(None, description="After a failure: the controller's own code for it")

    @property
    def is_recorded(self) -> bool:
        return self.outcome != "progress"

    @property
    def key(self) -> str:
        """The key of a report that was sent without one, so that the same report again gets the first answer."""
        return f"{self.operation}:{self.step}:{self.attempt}:{self.outcome}"


class CancelOperation(_OnOperation, does=OPERATION, verb="cancel"):
    """Cancel an operation, and undo what was begun."""


class RetryOperation(_OnOperation, does=OPERATION, verb="retry"):
    """Try a stuck step once more."""


class SettleOperation(_OnOperation, does=OPERATION, verb="settle"):
    """Say whether an operation's work is done.

    A person's word about the world, the same for every kind of operation: `as` succeeded, what it was to do is done
    (of a deletion: nothing stands); failed, it is not (of a creation: nothing stands). Needs a `reason`, here or in the
    header Berth-Reason. `outputs` are what a controller would have reported.
    """

    as_: Annotated[Literal["succeeded", "failed"], Field(alias="as", description="The actual outcome")]
    outputs: Outputs | None = Field(None, description="What a controller would have reported")
    reason: Text | None = Field(None, description="The reason, for the audit; or in the header Berth-Reason")

    @property
    def own_reason(self) -> str | None:
        return self.reason


class ExpireOperation(_OnOperation, does=OPERATION, verb="expire", roles=ENGINE):
    """The engine's own, when a deadline has passed."""

    step: str
    attempt: int


def report(command: ReportOperation, tx: Transaction) -> Done:
    id, stream = command.operation, command.on()
    if tx.role == "controller":  # an operator may report in a controller's place
        decide.must_be_own(command.step, tx.actor)
    operation = _running(tx, id)
    step = decide.reported(operation, id, step=command.step, attempt=command.attempt)
    match command.outcome:
        case "started":
            tx.record(stream, decide.start(operation, id, step, at=tx.at))
            _outcome(operation).begun(tx, operation)
        case "succeeded":
            tx.record(stream, OperationStepSucceeded(step.name, step.attempt, command.outputs or {}))
            _end_if_done(tx, id)
        case "failed":
            reason = command.message or "the controller gave no reason"
            event = decide.fail_step(
                operation, step, reason=reason, at=tx.at, retryable=command.retryable, code=command.code
            )
            _fail(tx, id, event)
        case "progress":
            pass  # of the attempt that is current: the engine keeps it beside the log
    return Done(id)


def expire(command: ExpireOperation, tx: Transaction) -> Done:
    operation = _running(tx, command.operation)
    step = decide.reported(operation, command.operation, step=command.step, attempt=command.attempt)
    if operation.state != "running" or step.state != "started" or step.deadline > tx.at:
        raise Conflict("No controller works on it, or its deadline has not passed.", command.operation)
    _fail(tx, command.operation, decide.expire(operation, step))
    return Done(command.operation)


def cancel(command: CancelOperation, tx: Transaction) -> Done:
    """What was begun is undone, as after a failure; claims return when that is confirmed, and then it is cancelled.
    What nobody began is cancelled at once."""
    operation = _running(tx, command.operation, to="cancel")
    event = decide.cancel(operation, command.operation, reason=f"cancelled by {tx.actor}")
    if isinstance(event, OperationStepFailed):
        _fail(tx, command.operation, event)
    else:
        tx.record(command.on(), event)
        _outcome(operation).failed(tx, operation, event.reason)
    return Done(command.operation)


def retry(command: RetryOperation, tx: Transaction) -> Done:
    tx.record(command.on(), decide.retry(_running(tx, command.operation, to="retry"), command.operation))
    return Done(command.operation)


def settle(command: SettleOperation, tx: Transaction) -> Done:
    id = command.operation
    if not (tx.reason or "").strip():
        message = "say how you know: whether what this operation holds is released or kept depends on it"
        raise Validation([{"field": "/reason", "message": message}])
    reason = f"settled as {command.as_} by {tx.actor}: {tx.reason}"
    operation = _running(tx, id, to="settle")
    tx.record(
        command.on(), decide.settle(operation, id, verdict=command.as_, reason=reason, outputs=command.outputs or {})
    )
    if command.as_ == "failed":
        _give_up(tx, id, reason)
        return Done(id)
    settled = tx.fleet.get(OPERATION, id)
    assert settled is not None
    warnings = _outcome(settled).unsaid(settled)
    _succeed(tx, id)
    return Done(id, warnings=warnings)


def _running(tx: Transaction, id: str, *, to: str = "") -> Operation:
    """The operation, which is not over. `to` is what a person wants of it; a controller reports on its work."""
    found = tx.fleet.get(OPERATION, id)
    if found is None:
        stream = OPERATION.stream(id)
        if stream in tx.known:
            if to and tx.scope is None:
                raise Conflict(_too_late(id, tx.known[stream], to=to), id)
            raise Conflict(f"Operation {id!r} is over, so this comes too late; drop this work.", id)
        raise finding.missing(tx, "operation", id)
    if tx.scope is not None:
        raise finding.missing(tx, "operation", id)
    return found


ENDED = {
    "operation.succeeded": "has succeeded",
    "operation.failed": "has failed",
    "operation.cancelled": "was cancelled",
}


def _too_late(id: str, last: Any, *, to: str) -> str:
    """`last` is the row of its end; None if it ended only just now."""
    how = ENDED.get(last.topic, "is over") if last is not None else "is over"
    if how == "has succeeded":
        return f"Operation {id!r} {how}: there is nothing left to {to}; to change its result, send another command."
    return (
        f"Operation {id!r} {how}: there is nothing left to {to}. To try once more, send its command again;"
        " after a failed creation, delete the failed resource first."
    )


def _fail(tx: Transaction, id: str, event: OperationStepFailed | OperationRetried | OperationStuck) -> None:
    tx.record(OPERATION.stream(id), event)
    if not isinstance(event, OperationStepFailed):
        return
    if not event.compensations:
        _give_up(tx, id, event.reason)
        return
    operation = tx.fleet.get(OPERATION, id)
    assert operation is not None
    _outcome(operation).begun(tx, operation)


def _end_if_done(tx: Transaction, id: str) -> None:
    """After the last step the work is done, or, after a failure, undone."""
    operation = tx.fleet.get(OPERATION, id)
    assert operation is not None
    if operation.current is not None:
        return
    if operation.is_undoing:
        _give_up(tx, id, operation.reason or "a step failed")
    else:
        _succeed(tx, id)


def _succeed(tx: Transaction, id: str) -> None:
    operation = tx.fleet.get(OPERATION, id)
    assert operation is not None
    tx.record(OPERATION.stream(id), OperationSucceeded())
    _outcome(operation).succeeded(tx, operation)


def _give_up(tx: Transaction, id: str, reason: str) -> None:
    operation = tx.fleet.get(OPERATION, id)
    assert operation is not None
    tx.record(OPERATION.stream(id), OperationCancelled(reason) if operation.is_cancelled else OperationFailed(reason))
    _outcome(operation).failed(tx, operation, reason)


def _outcome(operation: Operation) -> Outcome:
    return OUTCOMES[operation.target.partition("/")[0]]


HANDLERS = {
    ReportOperation: report,
    CancelOperation: cancel,
    RetryOperation: retry,
    SettleOperation: settle,
    ExpireOperation: expire,
}
