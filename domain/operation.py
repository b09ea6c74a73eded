"""An operation: work that external controllers carry out, step by step, with a deadline for each and a compensation
if it fails.

Steps run in their order. When one fails, or its deadline passes, the compensations of it and of those before it are
added and run in their turn; the operation fails when the last of them is confirmed, and is `stuck` when one of them
can't be.
"""

from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import Conflict, Forbidden, InvalidState


class Step(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One piece of work for one controller: `name` is `<controller>.<action>`.

    `deadline` (microseconds since 1970) is set when its turn comes. `compensation` is the step that undoes it;
    `compensates` marks a step that was added to undo another.
    """

    name: str
    state: str = "pending"  # pending, started, succeeded, failed, cancelled
    attempt: int = 1
    deadline: int = 0
    message: str | None = None
    compensation: str | None = None
    compensates: bool = False

    @property
    def controller(self) -> str:
        return self.name.partition(".")[0]

    @property
    def action(self) -> str:
        return self.name.partition(".")[2]


class OperationStarted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`target` is a stream; `input` everything that its controllers need."""

    kind: str
    target: str
    steps: tuple[Step, ...]
    input: dict[str, Any]
    at: int


class OperationStepStarted(msgspec.Struct, frozen=True, gc=False):
    step: str
    attempt: int


class OperationStepSucceeded(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`next_deadline` is that of the step whose turn comes now, 0 if none follows."""

    step: str
    attempt: int
    outputs: dict[str, Any] = {}
    next_deadline: int = 0


class OperationStepFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """`compensations` are the steps added to undo what may stand; the first has its deadline. `is_cancel`: a person
    stopped it, so what comes of it is no failure."""

    step: str
    attempt: int
    reason: str
    compensations: tuple[Step, ...] = ()
    is_cancel: bool = False


class OperationStuck(msgspec.Struct, frozen=True):
    """Nobody knows what stands there. All is held until a person retries or abandons it."""

    reason: str


class OperationRetried(msgspec.Struct, frozen=True):
    step: str
    attempt: int
    deadline: int


class OperationSucceeded(msgspec.Struct, frozen=True, gc=False):
    pass


class OperationFailed(msgspec.Struct, frozen=True):
    reason: str


class OperationCancelled(msgspec.Struct, frozen=True):
    reason: str


OperationEvent = (
    OperationStarted
    | OperationStepStarted
    | OperationStepSucceeded
    | OperationStepFailed
    | OperationStuck
    | OperationRetried
    | OperationSucceeded
    | OperationFailed
    | OperationCancelled
)
TOPICS: dict[str, type] = {
    "operation.started": OperationStarted,
    "operation.step_started": OperationStepStarted,
    "operation.step_succeeded": OperationStepSucceeded,
    "operation.step_failed": OperationStepFailed,
    "operation.stuck": OperationStuck,
    "operation.retried": OperationRetried,
    "operation.succeeded": OperationSucceeded,
    "operation.failed": OperationFailed,
    "operation.cancelled": OperationCancelled,
}
ENDS: tuple[type, ...] = (OperationSucceeded, OperationFailed, OperationCancelled)


class Operation(msgspec.Struct, frozen=True, gc=False):
    kind: str
    target: str
    state: str  # running, stuck, succeeded, failed, cancelled
    steps: tuple[Step, ...]
    input: dict[str, Any]
    outputs: dict[str, Any]
    started_at: int
    reason: str | None  # why it fails or is stuck
    is_cancelled: bool = False  # a person stopped it; once undone, it ends so

    @property
    def is_undoing(self) -> bool:
        return any(step.state == "failed" for step in self.steps)

    @property
    def current(self) -> Step | None:
        """The step whose turn it is; None when all are done."""
        undoing = self.is_undoing
        for step in self.steps:
            if step.state in ("pending", "started") and step.compensates == undoing:
                return step
        return None

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


def evolve(operation: Operation, event: OperationEvent) -> Operation:
    match event:
        case OperationStarted():
            return Operation(event.kind, event.target, "running", event.steps, event.input, {}, event.at, None)
        case OperationStepStarted():
            return replace(operation, steps=_with(operation, event.step, event.attempt, state="started"))
        case OperationStepSucceeded():
            steps = _with(operation, event.step, event.attempt, state="succeeded")
            operation = replace(operation, steps=steps, outputs={**operation.outputs, **event.outputs})
            return _turn_to_next(operation, event.next_deadline) if event.next_deadline else operation
        case OperationStepFailed():
            steps = _with(operation, event.step, event.attempt, state="failed", message=event.reason)
            return replace(
                operation,
                steps=steps + event.compensations,
                reason=operation.reason or event.reason,
                is_cancelled=operation.is_cancelled or event.is_cancel,
            )
        case OperationStuck():
            return replace(
                operation,
                state="stuck",
                steps=tuple(replace(s, message=event.reason) if s is operation.current else s for s in operation.steps),
                reason=operation.reason or event.reason,
            )
        case OperationRetried():
            steps = tuple(
                replace(step, state="pending", attempt=event.attempt, deadline=event.deadline, message=None)
                if step.name == event.step and step.attempt == event.attempt - 1
                else step
                for step in operation.steps
            )
            reason = operation.reason if operation.is_undoing else None
            return replace(operation, state="running", steps=steps, reason=reason)
        case OperationSucceeded():
            return replace(operation, state="succeeded")
        case OperationFailed():
            return replace(operation, state="failed", reason=event.reason, steps=_without_current(operation))
        case OperationCancelled():
            return replace(operation, state="cancelled", reason=event.reason, steps=_without_current(operation))
        case _:
            assert_never(event)


def outstanding(operation: Operation) -> Step | None:
    """The step that a controller must still begin, if any."""
    if operation.state != "running":
        return None
    step = operation.current
    return step if step is not None and step.state == "pending" else None


def reported(operation: Operation, id: str, *, step: str, attempt: int, controller: str | None) -> Step:
    """The step that a report speaks of.

    `controller` is the reporter's name, None for an operator who reports in a controller's place.

    Raises:
        Forbidden: the step is another controller's.
        Conflict: the operation, the step or the attempt is over, or its turn has not come.
    """
    named = [s for s in operation.steps if s.name == step]
    if named and controller is not None and named[0].controller != controller:
        raise Forbidden(f"operation.report:{named[0].controller}")
    current = operation.current
    if operation.state != "running" or current is None or current.name != step or current.attempt != attempt:
        raise Conflict(
            f"Attempt {attempt} of {step!r} in operation {id!r} is over or was never asked for; forget this work.",
            id,
        )
    return current


def fail_step(
    operation: Operation, step: Step, *, reason: str, deadline: int, is_cancel: bool = False
) -> OperationStepFailed | OperationStuck:
    """A step came to nothing: undo what may stand, or call for a person if a compensation itself could not be done."""
    if step.compensates:
        return OperationStuck(f"{step.name}: {reason}")
    begun = operation.steps[: operation.steps.index(step) + 1]
    names = [s.compensation for s in reversed(begun) if s.compensation is not None]
    compensations = tuple(
        Step(name=name, compensates=True, deadline=deadline if n == 0 else 0) for n, name in enumerate(names)
    )
    return OperationStepFailed(step.name, step.attempt, reason, compensations, is_cancel)


def expire(operation: Operation, step: Step, *, deadline: int) -> OperationStepFailed | OperationStuck:
    """The deadline passed, so nobody knows whether the step's work stands. Frees nothing."""
    if step.compensates or step.compensation is None:
        return OperationStuck(f"{step.name}: no report before its deadline")
    return fail_step(operation, step, reason="no report before its deadline", deadline=deadline)


def retry(operation: Operation, id: str, *, deadline: int) -> OperationRetried:
    """Try the stuck step once more.

    Raises:
        InvalidState: it is not stuck.
    """
    if operation.state != "stuck" or operation.current is None:
        raise InvalidState("operation", id, operation.state, ["stuck"])
    step = operation.current
    return OperationRetried(step.name, step.attempt + 1, deadline)


def next_deadline(operation: Operation, step: Step, *, deadline: int) -> int:
    """The deadline for the step after `step`, 0 if it is the last."""
    rest = operation.steps[operation.steps.index(step) + 1 :]
    return deadline if any(s.state == "pending" and s.compensates == operation.is_undoing for s in rest) else 0


def _with(operation: Operation, name: str, attempt: int, **changes: Any) -> tuple[Step, ...]:
    return tuple(
        replace(step, **changes) if step.name == name and step.attempt == attempt else step for step in operation.steps
    )


def _without_current(operation: Operation) -> tuple[Step, ...]:
    """A controller whose report is repeated late must not find that its step is under way."""
    current = operation.current
    return tuple(replace(step, state="cancelled") if step is current else step for step in operation.steps)


def _turn_to_next(operation: Operation, deadline: int) -> Operation:
    current = operation.current
    if current is None:
        return operation
    return replace(
        operation, steps=tuple(replace(s, deadline=deadline) if s is current else s for s in operation.steps)
    )
