"""Deciding one command on the fleet: whose token is it, is it a repeat, may they, does the version match, then its
handler, then its record."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import structlog

from commands.catalogue import HANDLERS, permits
from commands.model import ENGINE_ROLE, Command, Done
from commands.operations import ReportOperation
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Item
from commands.writer.keys import BatchKey, Keys, remembers_refusals
from commands.writer.receipts import KnownRows, Receipt, Receipts
from commands.writer.refusals import REFUSAL_BYTES_MAX, Refusals
from domain.command import CommandAccepted, CommandRejected
from domain.entry import Entry
from domain.errors import (
    DomainError,
    Forbidden,
    Internal,
    NotFound,
    Validation,
    VersionMismatch,
)
from domain.fleet import Fleet
from domain.kinds import BY_NAME, tenant_of
from domain.operation import KIND as OPERATION
from domain.recorded import EVENT_BYTES_MAX, Recorded
from domain.token import KIND as TOKEN
from domain.transaction import Transaction
from domain.values import command_stream, kind_of, name_of
from eventlog.codec import Row, encode

log = structlog.get_logger()

# The JSON of a resource as it stands in the fleet; the entry is given for what has just left it.
ResourceOf = Callable[[Fleet, str, Entry | None], dict[str, Any] | None]
Clock = Callable[[], int]
ReportProgress = Callable[[ReportOperation], Any]


class CommandContext(msgspec.Struct, frozen=True, gc=False):
    """What goes with a command into the decision and its record."""

    actor: Actor
    reason: str | None
    batch: str | None
    dry_run: bool


def now_us() -> int:
    return time.time_ns() // 1000


class Decider:
    """Decides on one fleet; owns the receipts. Nothing here waits or does I/O.

    `controllers` are the names of those that do the work, which no token of another role may bear.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        resource: ResourceOf,
        step_timeout_s: int,
        controllers: Iterable[str] = (),
        report_progress: ReportProgress | None = None,
        clock: Clock = now_us,
    ) -> None:
        self.fleet = fleet
        self.receipts = Receipts()
        self.keys = Keys(self.receipts)
        self._refusals = Refusals()
        self._resource = resource
        self._step_timeout_s = step_timeout_s
        self._controllers = frozenset(controllers)
        self._report_progress = report_progress
        self._clock = clock

    def begin(self) -> Transaction:
        """A transaction for a batch of commands."""
        tx = Transaction(self.fleet)
        tx.step_timeout_s = self._step_timeout_s
        tx.controllers = self._controllers
        tx.new_id = ids.uuid7
        tx.new_secret = ids.secret
        return tx

    def next_at(self) -> int:
        """The time of the next command: now, but later than the one before, whatever the clock says."""
        return max(self._clock(), self.fleet.at + 1)

    def authenticated(self, actor: Actor) -> Actor | None:
        """The actor with the role and tenant that the fleet gives it; None if its token is not good now.

        One dictionary is looked in, and nothing is made where the API knew the same.
        """
        if actor.origin != "token":
            return actor
        token = self.fleet.get(TOKEN, actor.name)
        if token is None:
            return None
        if token.state != "active" or (token.expires_at is not None and token.expires_at <= self._clock()):
            return None
        if token.role == actor.role and token.tenant == actor.tenant:
            return actor
        return msgspec.structs.replace(actor, role=token.role, tenant=token.tenant)

    def repeat(
        self, item: Item, context: CommandContext, known: KnownRows, batch: BatchKey | None = None
    ) -> Answer | None:
        """The first answer again, if the key was used; `known` is what the log was found to hold."""
        if item.key == item.id and not known:  # made up for this very command, and not sent again
            return None
        actor = context.actor
        if (refusal := self.keys.mismatch(item, actor.name, known, batch)) is not None:
            problem = refusal.problem()
            return Answer(refusal.command, problem["status"], 0, problem=problem)
        receipt = self.keys.receipt(item, actor.name, known)
        if receipt is None:
            return None
        if not permits(actor.role, item.command.kind):
            problem = Forbidden(item.command.kind).problem()
            return Answer(receipt.command, problem["status"], 0, problem=problem)
        return self._answer_again(receipt, actor)

    def sees(self, actor: Actor, on: str | None) -> bool:
        """May the actor be told now how the resource of its own command is?"""
        now = self.authenticated(actor)
        return now is not None and (on is None or now.tenant is None or now.tenant in self._owners(on))

    def _owners(self, on: str) -> list[str]:
        """The chain of the tenant whose workload it is; all else has none for who is confined."""
        tenant = tenant_of(on) if BY_NAME[kind_of(on)].is_workload else None
        return self.fleet.chain(tenant) if tenant is not None else []

    def decide(
        self, tx: Transaction, item: Item, context: CommandContext, *, at: int, known: KnownRows, rows: list[Row]
    ) -> Answer:
        """Decide, record, and answer; `context.actor` is authenticated. What is to be appended is added to `rows`; a
        dry run adds nothing."""
        actor, fleet, command = context.actor, self.fleet, item.command
        if (said := command.own_reason) is not None:
            context = msgspec.structs.replace(context, reason=said)
        mark, first, standing = tx.mark(), len(tx.events), fleet.position
        tx.at, tx.command, tx.actor, tx.role, tx.scope = at, item.id, actor.name, actor.role, actor.tenant
        tx.reason = context.reason
        tx.known = known
        on: str | None = None
        refusal: DomainError
        try:
            on = command.on()
            self.authorise(command, on, actor)
            done = self._handled(tx, item, on)
            if not command.is_recorded:
                return self._progressed(item, on, done, is_dry=context.dry_run)
            self._accept(tx, item, context, on=on, done=done, first=first)
            encoded = _encoded(tx.events[first:])
        except DomainError as error:
            refusal = error
        except Exception:
            # A bug in one decision: the others go on. The log tells us where to look.
            log.exception("decision failed", command=item.id, kind=command.kind)
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
        is_recorded = command.is_recorded and not isinstance(refusal, Validation)
        return self.refuse(
            tx, item, context, at=at, on=on, problem=refusal.problem(), rows=rows, is_recorded=is_recorded
        )

    def authorise(self, command: Command, on: str, actor: Actor) -> None:
        """By role, then by scope: who is confined to a tenant commands the workloads of its subtree; the rest is not
        there for them, and nothing may tell it from what does not exist.

        Raises:
            Forbidden, NotFound
        """
        if not permits(actor.role, command.kind):
            raise Forbidden(command.kind)
        if actor.tenant is None or actor.role == ENGINE_ROLE or actor.tenant in self._owners(on):
            return
        if command.creates_it and command.about_kind.is_workload:
            # Of what is to be made, that is missing.
            raise NotFound("tenant", tenant_of(on) or "", in_scope=True)
        raise NotFound(kind_of(on), name_of(on), in_scope=True)

    def _handled(self, tx: Transaction, item: Item, on: str) -> Done:
        """What the handler decides, if the resource has the version that it must have.

        What can't be meant so and what is not found is told before that (the order of refusals): so the handler is
        asked all the same, and its work undone.
        """
        handler = HANDLERS[type(item.command)]
        mismatch = self._mismatch(item, on)
        if mismatch is not None:
            try:
                handler(item.command, tx)
            except (Validation, Forbidden, NotFound):
                raise
            except DomainError:
                pass
            raise mismatch
        done = handler(item.command, tx)
        if done.created and item.if_match is not None:
            raise VersionMismatch(0)
        return done

    def _progressed(self, item: Item, on: str, done: Done, *, is_dry: bool) -> Answer:
        """Progress is checked like every report, kept beside the log, and leaves nothing in it."""
        assert isinstance(item.command, ReportOperation)
        if self._report_progress is not None and not is_dry:
            self._report_progress(item.command)
        resource, version = self.view(on)
        return Answer(
            command=item.id,
            status=200,
            position=self.fleet.position,
            on=on,
            resource=resource,
            version=version,
            operation=done.operation,
        )

    def refuse(
        self,
        tx: Transaction,
        item: Item,
        context: CommandContext,
        *,
        at: int,
        on: str | None,
        problem: dict[str, Any],
        rows: list[Row],
        is_recorded: bool = True,
    ) -> Answer:
        """Refuse, with nothing else of the command left, and record it, within bounds (see `refusals`). Not recorded,
        and so not remembered, are dry runs and requests that can't be meant so."""
        unrecorded = Answer(item.id, problem["status"], 0, on, problem=problem)
        if context.dry_run or not is_recorded:
            return unrecorded
        actor = context.actor
        # What the handler had no part in is recorded without what was asked, which nobody has understood.
        is_authorised = problem["code"] != Forbidden.code and self.may(item.command, on, actor)
        takes_key = remembers_refusals(item)
        if not (is_authorised and takes_key) and not self._refusals.may_record(actor.name, at):
            return unrecorded
        tx.at, tx.command, tx.actor = at, item.id, actor.name
        event = CommandRejected(
            id=item.id,
            command=item.command.kind,
            role=actor.role,
            request=item.request if is_authorised else {},
            problem=problem,
            resource=on,
            key=item.key if takes_key else item.id,
            fingerprint=item.fingerprint,
            token=actor.name,
            source=actor.source,
            reason=context.reason,
            batch=context.batch,
        )
        mark, first = tx.mark(), len(tx.events)
        stream = command_stream(actor.name, event.key)
        tx.record(stream, event, version=1)
        row = encode(tx.events[first])
        if len(row.state) > REFUSAL_BYTES_MAX:
            tx.undo(mark)
            tx.record(stream, msgspec.structs.replace(event, request={}), version=1)
            row = encode(tx.events[first])
            if len(row.state) > EVENT_BYTES_MAX:
                tx.undo(mark)
                return unrecorded
        recorded = tx.events[first]
        rows.append(row)
        self.receipts.remember(recorded)
        return Answer(item.id, problem["status"], recorded.position, on, problem=problem)

    def may(self, command: Command, on: str | None, actor: Actor) -> bool:
        """Would the handler be asked?"""
        try:
            self.authorise(command, on or command.on(), actor)
        except DomainError:
            return False
        return True

    def view(self, on: str | None, *, ended: Entry | None = None) -> tuple[dict[str, Any] | None, int]:
        """A resource as it is now and its version; `ended` is its last entry if it has just left the fleet."""
        if on is None:
            return None, 0
        entry = self.fleet.entry(on) or ended
        return self._resource(self.fleet, on, ended), entry.version if entry is not None else 0

    def view_of_life(self, on: str | None, *, at: int, ended: Entry | None = None) -> tuple[dict[str, Any] | None, int]:
        """The same, of what bore the name at that time: nothing, if that is gone and the name was used again."""
        entry = (self.fleet.entry(on) if on is not None else None) or ended
        if entry is not None and entry.created_at > at:
            return None, 0
        return self.view(on, ended=ended)

    def _accept(self, tx: Transaction, item: Item, context: CommandContext, *, on: str, done: Done, first: int) -> None:
        actor = context.actor
        # positional: names would take 0.1 µs of each command
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
            done.warnings,
        )
        tx.record(command_stream(actor.name, item.key), event, version=1)

    def _answer(self, tx: Transaction, item: Item, on: str, done: Done) -> Answer:
        resource, version = self.view(on, ended=tx.ended.get(on))
        status = 202 if _is_under_way(self.fleet, done.operation, on) else 201 if done.created else 200
        # positional: names would take 0.2 µs of each command
        return Answer(
            item.id,
            status,
            tx.events[-1].position,
            on,
            resource,
            version,
            done.operation,
            False,  # replayed
            None,  # problem
            done.secret,
            done.created,
            done.warnings,
        )

    def _answer_again(self, receipt: Receipt, actor: Actor) -> Answer:
        """The receipt, with the resource as it is now; without it, and how far the work is, for who may not see it any
        more."""
        if receipt.problem is not None:
            return Answer(
                receipt.command,
                receipt.problem["status"],
                receipt.position,
                receipt.on,
                replayed=True,
                problem=receipt.problem,
            )
        if not self.sees(actor, receipt.on):
            return unseen(Answer(receipt.command, 200, receipt.position, receipt.on, replayed=True))
        resource, version = self.view_of_life(receipt.on, at=receipt.at)
        under_way = _is_under_way(self.fleet, receipt.operation, receipt.on)
        status = 202 if under_way else 201 if receipt.created else 200
        return Answer(
            command=receipt.command,
            status=status,
            position=receipt.position,
            on=receipt.on,
            resource=resource,
            version=version,
            operation=receipt.operation,
            replayed=True,
            created=receipt.created,
            warnings=receipt.warnings,
        )

    def _mismatch(self, item: Item, on: str) -> VersionMismatch | None:
        """A condition on the version of what is not there yet is left to the handler, which knows what is missing."""
        if item.if_match is None and not item.create_only:
            return None
        entry = self.fleet.entry(on)
        if entry is None or not (item.create_only or item.if_match not in (entry.version, ANY_VERSION)):
            return None
        return VersionMismatch(entry.version)


ANY_VERSION = -1  # `If-Match: *`


def unseen(answer: Answer) -> Answer:
    """The receipt alone, for who may not see the resource (any more): not even whether the work is done."""
    return msgspec.structs.replace(
        answer, status=200, on=None, resource=None, version=0, operation=None, problem=None, created=False
    )


def _is_under_way(fleet: Fleet, operation: str | None, on: str | None) -> bool:
    """A command *on* an operation is done when it is answered; one that started an operation, when that has ended."""
    if operation is None or fleet.get(OPERATION, operation) is None:
        return False
    return on != OPERATION.stream(operation)


def _encoded(events: list[Recorded]) -> list[Row]:
    rows = [encode(recorded) for recorded in events]
    for row in rows:
        if len(row.state) > EVENT_BYTES_MAX:
            message = f"leads to an event of {len(row.state)} bytes; at most {EVENT_BYTES_MAX} are kept, so send less"
            raise Validation([{"field": "", "message": message}])
    return rows
