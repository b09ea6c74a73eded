"""What is decided in one transaction on the fleet and appended by one statement."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from commands import costs
from commands.writer.deciding import CommandContext, Decider
from commands.writer.gateway import Answer, Item
from commands.writer.keys import BatchKey
from commands.writer.metrics import Counts, Seconds
from commands.writer.receipts import KnownRows
from domain.errors import Aborted, Internal, OperationFailed, Unauthenticated, Unavailable
from domain.operation import Operation
from domain.values import command_stream
from eventlog.codec import Row

COMMANDS_MAX = 256
BATCH_US_MAX = 10_000  # of deciding: whoever is in it waits for all of it

COMMANDS = Counts("berth_commands", "Commands decided", ["command", "outcome"]).of
DECISION_SECONDS = Seconds(
    "berth_decision_seconds",
    "Time to decide one command",
    buckets=(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1),
).of()


class Ticket(msgspec.Struct, eq=False):
    """One unit of decision: a command, or all those of an atomic batch. `known` is what the log was found to
    hold."""

    items: tuple[Item, ...]
    context: CommandContext
    expires_at: float
    wait_s: float
    future: "asyncio.Future[list[Answer]]"
    known: KnownRows
    batch: BatchKey | None = None  # shared by all tickets of a batch whose key a client gave
    is_alone: bool = False  # its batch was refused for its data, or had its key twice: it gets one of its own
    is_refused: bool = False  # it was refused alone
    us: float = 0.0  # what deciding it will take

    @property
    def is_long(self) -> bool:
        """Deciding it takes so long that no answer may wait for it."""
        return self.us > costs.LONG_US

    @property
    def is_dear(self) -> bool:
        """Deciding it takes so long that nobody else's answer may wait for it."""
        return self.us > costs.DEAR_US

    @property
    def streams(self) -> list[str]:
        """The streams of its commands, one a key."""
        return [command_stream(self.context.actor.name, item.key) for item in self.items]


class Batch:
    """Tickets decided one after the other, each upon what those before it left; undone only as a whole."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._tx = decider.begin()
        self.base = decider.fleet.position
        self.rows: list[Row] = []
        self.answered: list[tuple[Ticket, list[Answer]]] = []
        self.ended: dict[str, Answer] = {}  # operation id → what those who wait for its end are told
        self.commands = 0
        self.took_us = 0
        self.actors: set[str] = set()

    def takes(self, ticket: Ticket) -> bool:
        if not self.answered:
            return True
        last = self.answered[-1][0]
        if ticket.is_alone or ticket.is_long or last.is_alone or last.is_long:
            return False
        return self.commands < COMMANDS_MAX and self.took_us < BATCH_US_MAX

    def decide(self, ticket: Ticket) -> int:
        """Decide all of the ticket, and tell how many microseconds of the processor that took.

        Its answers may leave when this batch, and so all before it, is committed."""
        began, began_ns = time.perf_counter(), time.thread_time_ns()
        actor = self._decider.authenticated(ticket.context.actor)
        if actor is None:
            problem = Unauthenticated().problem()
            answers = [Answer(item.id, problem["status"], 0, problem=problem) for item in ticket.items]
            for item in ticket.items:
                COMMANDS[item.command.kind, problem["code"]] += 1
        else:
            if actor is not ticket.context.actor:
                ticket.context = msgspec.structs.replace(ticket.context, actor=actor)
            answers = self._repeats(ticket) or self._decide(ticket)
        self._tx.settle()
        self.answered.append((ticket, answers))
        self.actors.add(ticket.context.actor.name)
        self.commands += len(ticket.items)
        DECISION_SECONDS.observe((time.perf_counter() - began) / len(ticket.items))
        self.took_us += (took_us := (time.thread_time_ns() - began_ns) // 1_000)
        return took_us

    def take_back(self) -> list[Ticket]:
        """Undo everything, and give the tickets in their order. What was decided after this batch goes first."""
        self._forget_receipts(self.rows)
        self._tx.undo()
        for ticket, _ in self.answered:
            if ticket.batch is not None:
                ticket.batch.is_settled = False
        return [ticket for ticket, _ in self.answered]

    def give_up(self) -> None:
        """Whoever reads the log next settles it; its callers are told where to ask."""
        for ticket, _ in self.answered:
            if not ticket.future.done():
                ticket.future.set_exception(Unavailable(ticket.items[0].id))

    def _repeats(self, ticket: Ticket) -> list[Answer] | None:
        """The first answers again, if this was decided before."""
        found = [self._decider.repeat(item, ticket.context, ticket.known, ticket.batch) for item in ticket.items]
        if not any(found):
            return None
        # The items of an atomic batch were recorded together, so they come back together.
        return [
            answer or Answer(item.id, 503, 0, problem=Unavailable(item.id).problem())
            for item, answer in zip(ticket.items, found, strict=True)
        ]

    def _decide(self, ticket: Ticket) -> list[Answer]:
        answers = self._decide_unit(ticket)
        if not ticket.context.dry_run:
            self._note_ended_operations()
            for item, answer in zip(ticket.items, answers, strict=True):
                outcome = "accepted" if answer.problem is None else answer.problem["code"]
                COMMANDS[item.command.kind, outcome] += 1
        return answers

    def _decide_unit(self, ticket: Ticket) -> list[Answer]:
        """All the items, or none: the one that failed with its problem, the others as aborted. All share one `at`."""
        context, at = ticket.context, self._decider.next_at()
        if ticket.is_refused:
            return self._refuse_all(ticket, at, failed=0, problem=Internal().problem())
        if (refusal := self._too_much(ticket)) is not None:
            n, problem = refusal
            return self._refuse_all(ticket, at, failed=n, problem=problem, is_recorded=False)
        mark, rows = self._tx.mark(), len(self.rows)
        answers: list[Answer] = []
        # A dry run of several must see each other's effects, so each is decided for real and all are undone.
        several = len(ticket.items) > 1
        decided = msgspec.structs.replace(context, dry_run=False) if several else context
        for n, item in enumerate(ticket.items):
            answer = self._decider.decide(self._tx, item, decided, at=at, known=ticket.known, rows=self.rows)
            if answer.problem is not None and several:
                self._undo_to(mark, rows)
                is_recorded = answer.position > 0
                return self._refuse_all(ticket, at, failed=n, problem=answer.problem, is_recorded=is_recorded)
            answers.append(answer)
        if several and context.dry_run:
            self._undo_to(mark, rows)
            position = self._decider.fleet.position
            return [msgspec.structs.replace(answer, position=position, secret=None) for answer in answers]
        return answers

    def _too_much(self, ticket: Ticket) -> tuple[int, dict[str, Any]] | None:
        """The item with which the unit would keep the others waiting for too long, and the problem; what its actor may
        not do is refused for that, and takes nothing."""
        items = ticket.items
        if len(items) == 1 and costs.is_plain(items[0].command):
            return None
        estimate = costs.Estimate(self._decider.fleet)
        for n, item in enumerate(items):
            if not self._decider.may(item.command, item.command.on(), ticket.context.actor):
                break  # which ends the unit
            if (us := estimate.add(item.command)) > costs.UNIT_US_MAX:
                return n, costs.too_much(us, is_one_of_several=len(items) > 1).problem()
        return None

    def _refuse_all(
        self, ticket: Ticket, at: int, *, failed: int, problem: dict[str, Any], is_recorded: bool = True
    ) -> list[Answer]:
        if len(ticket.items) > 1:
            problem = {**problem, "index": failed}
        aborted = Aborted(failed).problem()
        return [
            self._decider.refuse(
                self._tx,
                item,
                ticket.context,
                at=at,
                on=item.command.on(),
                problem=problem if n == failed else aborted,
                rows=self.rows,
                is_recorded=is_recorded,
            )
            for n, item in enumerate(ticket.items)
        ]

    def _undo_to(self, mark: tuple[int, int, int, int], rows: int) -> None:
        self._forget_receipts(self.rows[rows:])
        self._tx.undo(mark)
        del self.rows[rows:]

    def _forget_receipts(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.stream.startswith("command/"):
                self._decider.receipts.forget(row.stream)

    def _note_ended_operations(self) -> None:
        """What those who wait are told, as of the end of this very command."""
        for stream, entry in self._tx.ended.items():
            kind, _, id = stream.partition("/")
            if kind == "operation":
                operation: Operation = entry.state
                resource, version = self._decider.view_of_life(
                    operation.target, at=operation.started_at, ended=self._tx.ended.get(operation.target)
                )
                self.ended[id] = end_of(id, operation, resource, version, self._decider.fleet.position)


def end_of(id: str, operation: Operation, resource: dict[str, Any] | None, version: int, position: int) -> Answer:
    """What those who wait for an operation are told, as of `position`."""
    if operation.state == "succeeded":
        return Answer(
            command="",
            status=200,
            position=position,
            on=operation.target,
            resource=resource,
            version=version,
            operation=id,
        )
    broken = next((step.name for step in operation.steps if step.state == "failed"), None)
    problem = OperationFailed(id, broken, operation.reason, resource).problem()
    return Answer(
        command="",
        status=problem["status"],
        position=position,
        on=operation.target,
        resource=resource,
        version=version,
        operation=id,
        problem=problem,
    )
