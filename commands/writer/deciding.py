"""Deciding one command on the fleet: who may, is it a repeat, does the version match, then its handler, then its
record."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from commands.catalogue import ENGINE_ROLE, HANDLERS, SCOPED_KINDS, permits
from commands.model import Command, Done
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Item
from commands.writer.receipts import Known, Receipt, Receipts, receipt_of
from domain.command import CommandAccepted, CommandRejected
from domain.errors import (
    DomainError,
    Forbidden,
    IdempotencyMismatch,
    Internal,
    NotFound,
    Validation,
    VersionMismatch,
)
from domain.fleet import Entry, Fleet, Transaction
from domain.recorded import EVENT_BYTES_MAX, Recorded
from domain.values import command_stream, kind_of, name_of
from eventlog.codec import Row, decode, encode

log = structlog.get_logger()

# The JSON of a resource as it stands in the fleet; the entry is given for what has just left it.
ResourceOf = Callable[[Fleet, str, Entry | None], dict[str, Any] | None]
Clock = Callable[[], int]


class Context(msgspec.Struct, frozen=True, gc=False):
    """What goes with a command into the decision and its record."""

    actor: Actor
    reason: str | None
    batch: str | None
    dry_run: bool


def now_us() -> int:
    return time.time_ns() // 1000


class Decider:
    """Decides on one fleet; owns the receipts. Nothing here waits or does I/O."""

    def __init__(self, fleet: Fleet, *, resource: ResourceOf, step_timeout_s: int, clock: Clock = now_us) -> None:
        self.fleet = fleet
        self.receipts = Receipts()
        self._resource = resource
        self._step_timeout_s = step_timeout_s
        self._clock = clock

    def begin(self) -> Transaction:
        """A transaction for a batch of commands."""
        tx = Transaction(self.fleet)
        tx.step_timeout_s = self._step_timeout_s
        tx.new_id = ids.uuid7
        tx.new_secret = ids.secret
        return tx

    def next_at(self) -> int:
        """The time of the next command: now, but later than the one before, whatever the clock says."""
        return max(self._clock(), self.fleet.at + 1)

    def repeat(self, item: Item, context: Context, known: Known) -> Answer | None:
        """The first answer again, if the key was used; `known` is what the log was found to hold."""
        if item.key == item.id and not known:  # made up for this very command, and not sent again
            return None
        actor = context.actor.name
        receipt = self._receipt(command_stream(actor, item.key), known)
        # A batch may be longer than the one that had its key: its first item tells.
        first = self._receipt(command_stream(actor, f"{context.batch}.0"), known) if context.batch else None
        for used in (receipt, first):
            if used is not None and used.fingerprint and item.fingerprint != used.fingerprint:
                problem = IdempotencyMismatch(used.command).problem()
                return Answer(used.command, problem["status"], 0, problem=problem)
        return self._answer_again(receipt) if receipt is not None else None

    def _receipt(self, stream: str, known: Known) -> Receipt | None:
        if (receipt := self.receipts.get(stream)) is not None:
            return receipt
        return receipt_of(decode(row)) if (row := known.get(stream)) is not None else None

    def decide(
        self, tx: Transaction, item: Item, context: Context, *, at: int, known: Known, rows: list[Row]
    ) -> Answer:
        """Decide, record, and answer. What is to be appended is added to `rows`; a dry run adds nothing."""
        actor, fleet = context.actor, self.fleet
        mark, first, standing = tx.mark(), len(tx.events), fleet.position
        tx.at, tx.command, tx.actor, tx.role, tx.scope = at, item.id, actor.name, actor.role, actor.tenant
        tx.reason = context.reason
        tx.known = known
        on: str | None = None
        refusal: DomainError
        try:
            on = item.command.on()
            _authorise(item.command, actor)
            self._match_version(item, on)
            done = HANDLERS[type(item.command)](item.command, tx)
            if done.created and item.if_match is not None:
                raise VersionMismatch(0)
            self._accept(tx, item, context, on=on, done=done, first=first)
            encoded = _encoded(tx.events[first:])
        except DomainError as error:
            refusal = error
        except Exception:
            # A bug in one decision: the others go on. The log tells us where to look.
            log.exception("decision failed", command=item.id, kind=item.command.kind)
            refusal = Internal()
        else:
            answer = self._answer(tx, item, on, done)
            if context.dry_run:
                tx.undo(mark)
                return msgspec.structs.replace(answer, position=standing, secret=None)
            self.receipts.remember(tx.events[-1])
            rows += encoded
            return answer
        tx.undo(mark)
        is_recorded = not isinstance(refusal, Validation)
        return self.refuse(
            tx, item, context, at=at, on=on, problem=refusal.problem(), rows=rows, is_recorded=is_recorded
        )

    def refuse(
        self,
        tx: Transaction,
        item: Item,
        context: Context,
        *,
        at: int,
        on: str | None,
        problem: dict[str, Any],
        rows: list[Row],
        is_recorded: bool = True,
    ) -> Answer:
        """Refuse, with nothing else of the command left, and record it. Not recorded, and so not remembered, are dry
        runs and requests that can't be meant so."""
        if context.dry_run or not is_recorded:
            return Answer(item.id, problem["status"], 0, on, problem=problem)
        actor = context.actor
        tx.at, tx.command, tx.actor = at, item.id, actor.name
        event = CommandRejected(
            item.id,
            item.command.kind,
            actor.role,
            item.request,
            problem,
            on,
            item.key,
            item.fingerprint,
            actor.name,
            actor.source,
            context.reason,
            context.batch,
        )
        mark, first = tx.mark(), len(tx.events)
        tx.record(command_stream(actor.name, item.key), event, version=1)
        recorded = tx.events[-1]
        try:
            rows += _encoded(tx.events[first:])
        except Validation as too_large:
            tx.undo(mark)
            return Answer(item.id, too_large.status, 0, on, problem=too_large.problem())
        self.receipts.remember(recorded)
        return Answer(item.id, problem["status"], recorded.position, on, problem=problem)

    def view(self, on: str | None, *, ended: Entry | None = None) -> tuple[dict[str, Any] | None, int]:
        """A resource as it is now and its version; `ended` is its last entry if it has just left the fleet."""
        if on is None:
            return None, 0
        entry = self.fleet.entries.get(on) or ended
        return self._resource(self.fleet, on, ended), entry.version if entry is not None else 0

    def _accept(self, tx: Transaction, item: Item, context: Context, *, on: str, done: Done, first: int) -> None:
        actor = context.actor
        event = CommandAccepted(
            item.id,
            item.command.kind,
            actor.role,
            item.request,
            on,
            done.operation,
            done.created,
            [recorded.position for recorded in tx.events[first:]],
            item.key,
            item.fingerprint,
            actor.name,
            actor.source,
            context.reason,
            context.batch,
        )
        tx.record(command_stream(actor.name, item.key), event, version=1)

    def _answer(self, tx: Transaction, item: Item, on: str, done: Done) -> Answer:
        resource, version = self.view(on, ended=tx.ended.get(on))
        status = 202 if _is_under_way(self.fleet, done.operation, on) else 201 if done.created else 200
        return Answer(
            item.id,
            status,
            tx.events[-1].position,
            on,
            resource,
            version,
            done.operation,
            secret=done.secret,
            created=done.created,
        )

    def _answer_again(self, receipt: Receipt) -> Answer:
        if receipt.problem is not None:
            return Answer(
                receipt.command,
                receipt.problem["status"],
                receipt.position,
                receipt.on,
                replayed=True,
                problem=receipt.problem,
            )
        resource, version = self.view(receipt.on)
        under_way = _is_under_way(self.fleet, receipt.operation, receipt.on)
        status = 202 if under_way else 201 if receipt.created else 200
        return Answer(
            receipt.command,
            status,
            receipt.position,
            receipt.on,
            resource,
            version,
            receipt.operation,
            replayed=True,
            created=receipt.created,
        )

    def _match_version(self, item: Item, on: str) -> None:
        """A condition on the version of what is not there yet is left to the handler, which knows what is missing."""
        entry = self.fleet.entries.get(on)
        if entry is None:
            return
        if item.create_only or (item.if_match is not None and item.if_match not in (entry.version, ANY_VERSION)):
            raise VersionMismatch(entry.version)


ANY_VERSION = -1  # `If-Match: *`


def _authorise(command: Command, actor: Actor) -> None:
    """By role, then by scope: who is confined to a tenant commands its VMs and clusters; the rest is not there for
    them."""
    if not permits(actor.role, command.kind):
        raise Forbidden(command.kind)
    if actor.tenant is None or actor.role == ENGINE_ROLE or command.kind.startswith(SCOPED_KINDS):
        return
    raise NotFound(kind_of(command.on()), name_of(command.on()))


def _is_under_way(fleet: Fleet, operation: str | None, on: str | None) -> bool:
    """A command *on* an operation is done when it is answered; one that started an operation, when that has ended."""
    return operation is not None and operation in fleet.operations and on != "operation/" + operation


def _encoded(events: list[Recorded]) -> list[Row]:
    rows = [encode(recorded) for recorded in events]
    for row in rows:
        if len(row.state) > EVENT_BYTES_MAX:
            message = f"leads to an event of {len(row.state)} bytes; at most {EVENT_BYTES_MAX} are kept, so send less"
            raise Validation([{"field": "", "message": message}])
    return rows
