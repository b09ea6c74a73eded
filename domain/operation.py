"""An operation: work that external controllers carry out, step by step, with a deadline for each and a compensation
if it fails.

Steps run in their order. When one fails, or its deadline passes, the compensations of it and of those before it are
added and run in their turn; the operation fails when the last of them is confirmed, and is `stuck` when one of them
can't be. What only goes forward (a deletion) is tried again instead, and then is `stuck`. `stuck` is undecided, not
over: a late report still decides it, and so does a person, who retries it or settles it with a word about the world.

A deadline runs from a step's start. What no controller has begun is of no unknown outcome: it waits.
"""

from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import Conflict, Forbidden, InvalidState
from domain.kind import Former, Kind
from domain.recorded import Recorded

FORWARD_ONLY = frozenset({"vm.delete"})  # kinds of operations that nothing undoes: only forward, or stuck
ATTEMPTS_MAX = 3  # of a step that only goes forward, before a person is called
BACK_OFF_S_MAX = 60
TIMEOUT_S = 600


class Step(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One piece of work for one controller: `name` is `<controller>.<action>`.

    `deadline` (microseconds since 1970) counts once it is started. `compensation` is the step that undoes it;
    `compensates` marks a step that was added to undo another. Nobody is asked to begin it before `not_before`.
    """

    name: str
    state: str = "pending"  # pending, started, succeeded, failed, cancelled
    attempt: int = 1
    deadline: int = 0
    message: str | None = None
    compensation: str | None = None
    compensates: bool = False
    timeout_s: int = TIMEOUT_S
    not_before: int = 0

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


class OperationStepStartedInItsTurn(msgspec.Struct, frozen=True, gc=False):
    """As it was written when a deadline ran from the step's turn, which had set it."""

    step: str
    attempt: int


class OperationStepStarted(msgspec.Struct, frozen=True, gc=False):
    """`deadline` is 0 if the step's turn has set it, as it did at first."""

    step: str
    attempt: int
    deadline: int


class OperationStepSucceeded(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`next_deadline` is no longer written: what follows has none before it is started."""

    step: str
    attempt: int
    outputs: dict[str, Any] = {}
    next_deadline: int = 0


class OperationStepFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """`compensations` are the steps added to undo what may stand. `is_cancel`: a person stopped it, so what comes of it
    is no failure. `retryable` and `code` are the controller's words."""

    step: str
    attempt: int
    reason: str
    compensations: tuple[Step, ...] = ()
    is_cancel: bool = False
    retryable: bool = True
    code: str | None = None


class OperationStuck(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nobody knows what stands there. All is held until a late report decides it, or a person retries or settles it."""

    reason: str
    retryable: bool = True
    code: str | None = None


class OperationRetried(msgspec.Struct, frozen=True, omit_defaults=True):
    """The step's next attempt, asked for by a person, or because the one before failed for `reason`. `deadline` is no
    longer written."""

    step: str
    attempt: int
    deadline: int = 0
    reason: str | None = None
    code: str | None = None
    not_before: int = 0


class OperationSettled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's word about the world: what the operation was to do is done (`verdict` succeeded), or it is not
    (failed)."""

    verdict: str
    reason: str
    outputs: dict[str, Any] = {}


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
    | OperationSettled
    | OperationSucceeded
    | OperationFailed
    | OperationCancelled
)


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
    def is_untouched(self) -> bool:
        """No controller has begun anything of it, so it is known that nothing of it stands."""
        return all(step.state == "pending" and step.attempt == 1 for step in self.steps)

    @property
    def can_be_cancelled(self) -> bool:
        step = self.current
        if self.state != "running" or step is None or self.is_undoing or self.kind in FORWARD_ONLY:
            return False
        return self.is_untouched or step.compensation is not None

    @property
    def waiting_for(self) -> str | None:
        """Who must do something before it goes on; None while a controller is at work."""
        if self.state == "stuck":
            return "a person"
        step = outstanding(self)
        return f"controller {step.controller}" if step is not None else None

    @property
    def ways_out(self) -> tuple[str, ...]:
        """What a person can do about it: of retry, settle and cancel. While a controller is at work, its report or its
        deadline comes first; what can be cancelled needs no word about the world."""
        if self.state == "stuck":
            return ("retry", "settle")
        if self.can_be_cancelled:
            return ("cancel",)
        return ("settle",) if outstanding(self) is not None else ()

    @property
    def is_over(self) -> bool:
        return self.state in ("succeeded", "failed", "cancelled")


def evolve(operation: Operation, event: OperationEvent) -> Operation:
    match event:
        case OperationStarted():
            # positional: names would take 0.2 µs in each fold and decision that starts one
            return Operation(
                event.kind,
                event.target,
                "running",  # state
                event.steps,
                event.input,
                {},  # outputs
                event.at,
                None,  # reason
            )
        case OperationStepStarted():
            changes = {"deadline": event.deadline} if event.deadline else {}
            return replace(operation, steps=_with(operation, event.step, event.attempt, state="started", **changes))
        case OperationStepSucceeded():
            steps = _with(operation, event.step, event.attempt, state="succeeded", message=None)
            operation = replace(operation, steps=steps, outputs={**operation.outputs, **event.outputs})
            return _going_on(operation) if operation.state == "stuck" else operation
        case OperationStepFailed():
            steps = _with(operation, event.step, event.attempt, state="failed", message=event.reason)
            return replace(
                operation,
                state="running",
                steps=steps + event.compensations,
                reason=operation.reason or event.reason,
                is_cancelled=operation.is_cancelled or event.is_cancel,
            )
        case OperationStuck():
            return replace(
                operation,
                state="stuck",
                steps=_with_current(operation, message=event.reason),
                reason=operation.reason if operation.is_undoing and operation.reason else event.reason,
            )
        case OperationRetried():
            steps = _with(
                operation,
                event.step,
                event.attempt - 1,
                state="pending",
                attempt=event.attempt,
                deadline=event.deadline,
                message=event.reason,
                not_before=event.not_before,
            )
            return _going_on(replace(operation, steps=steps))
        case OperationSettled():
            outputs = {**operation.outputs, **event.outputs}
            return replace(operation, reason=event.reason, outputs=outputs, steps=_settled(operation, event))
        case OperationSucceeded():
            return replace(operation, state="succeeded")
        case OperationFailed():
            return replace(
                operation, state="failed", reason=event.reason, steps=_with_current(operation, state="cancelled")
            )
        case OperationCancelled():
            return replace(
                operation, state="cancelled", reason=event.reason, steps=_with_current(operation, state="cancelled")
            )
        case _:
            assert_never(event)


def outstanding(operation: Operation) -> Step | None:
    """The step that a controller must still begin, if any."""
    if operation.state != "running":
        return None
    step = operation.current
    return step if step is not None and step.state == "pending" else None


def must_be_own(step: str, controller: str) -> None:
    """A controller reports on its own work alone. Whose a step is stands in its name, whatever became of the operation.

    Raises:
        Forbidden: the step is another controller's.
    """
    whose = step.partition(".")[0]
    if whose != controller:
        raise Forbidden(f"operation.report:{whose}")


def reported(operation: Operation, id: str, *, step: str, attempt: int) -> Step:
    """The step that a report speaks of: the one whose turn it is, also while nobody knows what came of it.

    Raises:
        Conflict: the operation, the step or the attempt is over, or its turn has not come.
    """
    current = operation.current
    if operation.is_over or current is None or current.name != step or current.attempt != attempt:
        raise Conflict(
            f"Attempt {attempt} of {step!r} in operation {id!r} has ended or was never requested; drop this work.",
            id,
        )
    return current


def start(operation: Operation, id: str, step: Step, *, at: int) -> OperationStepStarted:
    """A controller begins the step; its deadline runs from here.

    Raises:
        Conflict: it was begun already, or is stuck.
    """
    if operation.state == "stuck":
        raise Conflict(f"Operation {id!r} is stuck; an operator must decide whether {step.name!r} is tried again.", id)
    if step.state == "started":
        raise Conflict(f"Attempt {step.attempt} of {step.name!r} was started already.", id)
    return OperationStepStarted(step.name, step.attempt, at + step.timeout_s * 1_000_000)


def fail_step(
    operation: Operation, step: Step, *, reason: str, at: int, retryable: bool = True, code: str | None = None
) -> OperationStepFailed | OperationRetried | OperationStuck:
    """A step came to nothing: undo what may stand, or, where nothing undoes it, try again, and then call a person."""
    if operation.kind in FORWARD_ONLY and retryable and step.attempt < ATTEMPTS_MAX:
        not_before = at + min(2**step.attempt, BACK_OFF_S_MAX) * 1_000_000
        return OperationRetried(step.name, step.attempt + 1, reason=reason, code=code, not_before=not_before)
    if operation.kind in FORWARD_ONLY or step.compensates:
        return OperationStuck(f"{step.name}: {reason}", retryable, code)
    return _undo(operation, step, reason=reason, retryable=retryable, code=code)


def expire(operation: Operation, step: Step) -> OperationStepFailed | OperationStuck:
    """The deadline passed, so nobody knows whether the step's work stands. Frees nothing."""
    if step.compensation is None:
        return OperationStuck(f"{step.name}: no report before its deadline")
    return _undo(operation, step, reason="no report before its deadline")


def cancel(operation: Operation, id: str, *, reason: str) -> OperationStepFailed | OperationCancelled:
    """Undo what was begun, as after a failure; what nobody began is over at once.

    Raises:
        InvalidState: it is stuck, is being undone already, or can't be undone half-way.
    """
    step = operation.current
    if step is None or not operation.can_be_cancelled:
        if operation.state == "stuck":
            raise invalid_state(operation, id, ["running"])
        why = (
            "It is already being rolled back." if operation.is_undoing else f"{operation.kind} can't be cancelled now."
        )
        raise invalid_state(operation, id, [], why=why)
    if operation.is_untouched:
        return OperationCancelled(reason)
    return _undo(operation, step, reason=reason, is_cancel=True)


def retry(operation: Operation, id: str) -> OperationRetried:
    """Try the stuck step once more.

    Raises:
        InvalidState: it is not stuck.
    """
    step = operation.current
    if operation.state != "stuck" or step is None:
        raise invalid_state(operation, id, ["stuck"])
    return OperationRetried(step.name, step.attempt + 1)


def settle(operation: Operation, id: str, *, verdict: str, reason: str, outputs: dict[str, Any]) -> OperationSettled:
    """A person says what is so: of what is stuck, or of what no controller begins and nobody can cancel.

    Raises:
        InvalidState: a controller is at work on it, or it can be cancelled.
    """
    if "settle" not in operation.ways_out:
        raise invalid_state(operation, id, ["stuck"])
    return OperationSettled(verdict, reason, outputs)


def invalid_state(operation: Operation, id: str, allowed: list[str], *, why: str = "") -> InvalidState:
    """The refusal of what is not possible now, with what is."""
    said = f"{why} {told(operation, id)}.".lstrip()
    return InvalidState(
        kind="operation",
        name=id,
        state=operation.state,
        allowed=allowed,
        operation=id,
        ways_out=list(operation.ways_out),
        why=said,
    )


def told(operation: Operation, id: str) -> str:
    """What it is at and what a person can do, as the end of a sentence or one of its own."""
    waits = f"waits for {operation.waiting_for}" if outstanding(operation) is not None else f"is {operation.state}"
    ways = " or ".join(operation.ways_out)
    if operation.state == "running":
        ways = f"wait for its end, or {ways} it" if ways else "wait for its end"
    else:
        ways = f"{ways} it"
    return f"Operation {id} {waits}: {ways}"


def _undo(
    operation: Operation,
    step: Step,
    *,
    reason: str,
    is_cancel: bool = False,
    retryable: bool = True,
    code: str | None = None,
) -> OperationStepFailed:
    begun = operation.steps[: operation.steps.index(step) + 1]
    compensations = tuple(
        Step(name=s.compensation, compensates=True, timeout_s=s.timeout_s)
        for s in reversed(begun)
        if s.compensation is not None
    )
    return OperationStepFailed(
        step=step.name,
        attempt=step.attempt,
        reason=reason,
        compensations=compensations,
        is_cancel=is_cancel,
        retryable=retryable,
        code=code,
    )


def _with(operation: Operation, name: str, attempt: int, /, **changes: Any) -> tuple[Step, ...]:
    return tuple(
        replace(step, **changes) if step.name == name and step.attempt == attempt else step for step in operation.steps
    )


def _with_current(operation: Operation, **changes: Any) -> tuple[Step, ...]:
    current = operation.current
    return tuple(replace(step, **changes) if step is current else step for step in operation.steps)


def _settled(operation: Operation, event: OperationSettled) -> tuple[Step, ...]:
    """A controller whose report is repeated late must not find that its step is under way. By a person's word the work
    is done or not; what was to undo it is not needed any more."""
    is_done = event.verdict == "succeeded" and not operation.is_undoing
    return _with_current(operation, state="succeeded" if is_done else "cancelled", message=event.reason)


def _going_on(operation: Operation) -> Operation:
    """It was stuck and is not any more; why it is being undone stays."""
    return replace(operation, state="running", reason=operation.reason if operation.is_undoing else None)


def _with_the_deadline_of_its_turn(recorded: Recorded) -> OperationStepStarted:
    return OperationStepStarted(recorded.event.step, recorded.event.attempt, 0)


KIND = Kind(
    name="operation",
    plural="operations",
    named_by=("operation",),
    state=Operation,
    states=("running", "stuck", "succeeded", "failed", "cancelled"),
    ended=frozenset(),
    events={
        "operation.started": OperationStarted,
        "operation.step_started.2": OperationStepStarted,
        "operation.step_succeeded": OperationStepSucceeded,
        "operation.step_failed": OperationStepFailed,
        "operation.stuck": OperationStuck,
        "operation.retried": OperationRetried,
        "operation.settled": OperationSettled,
        "operation.succeeded": OperationSucceeded,
        "operation.failed": OperationFailed,
        "operation.cancelled": OperationCancelled,
    },
    former={"operation.step_started": Former(OperationStepStartedInItsTurn, _with_the_deadline_of_its_turn)},
    evolve=evolve,
    ends=frozenset({OperationSucceeded, OperationFailed, OperationCancelled}),
    target="target",
    has_id_for_name=True,
)
