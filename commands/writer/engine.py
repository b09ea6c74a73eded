"""The engine: takes whatever commands wait, decides them as one batch, appends the batch, and then answers.

    submit ─► intake ─► queue ─► batch being decided ─► batch in flight ─► answers
               (keys looked up)        └── one append at a time; the next batch is decided meanwhile

No answer leaves before everything that it was decided upon is committed. If an append loses, both batches are undone
through their journals, what stands in the log is folded, and their commands are decided again.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
import psycopg
import structlog
from prometheus_client import Counter, Gauge, Histogram

from commands.catalogue import ENGINE_ROLE
from commands.operations import ExpireOperation, ReportOperation
from commands.tokens import InstallToken
from commands.writer import ids
from commands.writer.deciding import Context, Decider, ResourceOf, now_us
from commands.writer.gateway import Actor, Answer, Envelope, Item
from commands.writer.leader import Leader
from domain.command import CommandAccepted, CommandRejected
from domain.errors import Aborted, Internal, OperationFailed, Unavailable
from domain.fleet import ENDS, Fleet, Transaction
from domain.operation import Operation
from domain.recorded import LeaderTookOver, LogOpened, Recorded
from domain.values import command_stream, operation_stream
from eventlog.append import Collision, DataRefused, OutcomeUnknown
from eventlog.codec import Row, decode, encode
from eventlog.read import LogReader
from eventlog.tasks import end_tasks

BATCH_COMMANDS_MAX = 256
BATCH_DECIDE_S_MAX = 0.005
QUEUE_COMMANDS_MAX = 20_000
FOLD_PAGE_EVENTS = 5_000
EXPIRY_INTERVAL_S = 0.5
EXPIRY_GRACE_S = 30.0  # after a take-over, controllers first get the chance to say what they did meanwhile
BERTH = Actor("berth", ENGINE_ROLE)

log = structlog.get_logger()

COMMANDS = Counter("berth_commands", "Commands decided", ["command", "outcome"])
DECISION_SECONDS = Histogram(
    "berth_decision_seconds",
    "Time to decide one command",
    buckets=(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1),
)
BATCH_SIZE = Histogram("berth_batch_size", "Commands in one append", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
APPEND_SECONDS = Histogram(
    "berth_append_seconds",
    "Time for one append to be durable",
    buckets=(5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 2.5),
)
LOG_POSITION = Gauge("berth_log_position", "Position of the last event that is committed")

ReportProgress = Callable[[ReportOperation], Any]


class Ticket(msgspec.Struct, eq=False):
    """One unit of decision: a command, or all those of an atomic batch."""

    items: tuple[Item, ...]
    context: Context
    expires_at: float
    wait_s: float
    future: "asyncio.Future[list[Answer]]"
    known: dict[str, Row] = {}
    is_alone: bool = False  # its batch was refused for its data: it gets one of its own
    is_refused: bool = False  # it was refused alone


class Batch:
    """What is decided in one transaction and appended by one statement."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.base = tx.fleet.position
        self.rows: list[Row] = []
        self.answered: list[tuple[Ticket, list[Answer]]] = []
        self.ended: dict[str, Answer] = {}  # operation id → what those who wait for its end are told
        self.commands = 0
        self.decided_s = 0.0

    @property
    def is_full(self) -> bool:
        return (
            self.commands >= BATCH_COMMANDS_MAX
            or self.decided_s >= BATCH_DECIDE_S_MAX
            or bool(self.answered and self.answered[-1][0].is_alone)
        )


class Engine:
    """The writer; implements `Gateway`. Everything runs on one event loop; the fleet belongs to it alone.

    `resource` gives the JSON of a resource; `report_progress` keeps a controller's progress (never an event), and
    may be None.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        resource: ResourceOf,
        report_progress: ReportProgress | None = None,
        admin_token_hash: str | None = None,
        step_timeout_s: int = 600,
        expiry_grace_s: float = EXPIRY_GRACE_S,
    ) -> None:
        self.fleet = Fleet()
        self.is_leading = False
        self._leader = Leader(conninfo)
        self._reader = LogReader(conninfo)
        self._decider = Decider(self.fleet, resource=resource, step_timeout_s=step_timeout_s)
        self._report_progress = report_progress
        self._admin_token_hash = admin_token_hash
        self._expiry_grace_s = expiry_grace_s
        self._queue: deque[Ticket] = deque()
        self._queued_commands = 0
        self._wake = asyncio.Event()
        self._waiting: dict[str, list[tuple[Ticket, Answer]]] = {}
        self._look_ups: dict[str, asyncio.Future[Row | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = asyncio.Event()
        self.failure: BaseException | None = None

    # ── life ──

    async def start(self) -> None:
        """Begin to lead in the background; `ready` waits until commands are decided."""
        self._spawn(self._run(), name="engine")

    async def ready(self) -> None:
        await self._ready.wait()

    async def ended(self) -> None:
        """Wait until the engine has stopped by itself, which it does only for a bug in recorded state."""
        await asyncio.gather(*[task for task in self._tasks if task.get_name() == "engine"])

    async def stop(self) -> None:
        """Stop deciding. What is in flight is settled by whoever reads the log next; callers get Unavailable."""
        self.is_leading = False
        await end_tasks(*self._tasks)
        await self._leader.close()
        await asyncio.to_thread(self._reader.close)

    async def _run(self) -> None:
        try:
            await self._leader.lead()
            await self._take_over()
            # The fleet lives as long as the process: the collector need not walk it again and again.
            gc.collect()
            gc.freeze()
            self.is_leading = True
            self._spawn(self._install_admin_token())
            self._spawn(self._expire_deadlines())
            await self._decide_for_ever()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("engine stopped", position=self.fleet.position)
            self.failure = error
            self.is_leading = False
            self._ready.set()

    async def _take_over(self) -> None:
        """Fold to the log's end, and append the event from which on every earlier writer collides."""
        while True:
            try:
                await self._fold_to_end()
                fleet = self.fleet
                event = LogOpened(ids.uuid7()) if fleet.position == 0 else LeaderTookOver(ids.uuid7())
                position, at = fleet.position + 1, self._decider.next_at()
                recorded = Recorded("log", position, position, at, BERTH.name, ids.uuid7(), event)
                await self._leader.append(fleet.position, [encode(recorded)])
            except (Collision, OutcomeUnknown, psycopg.Error) as lost:
                log.warning("taking over again", error=str(lost).strip())
                await self._leader.regain()
            else:
                fleet.fold(recorded)
                LOG_POSITION.set(position)
                log.info("leading", position=position, log=fleet.log)
                return

    async def _fold_to_end(self) -> None:
        """Fold what stands in the log after our position; while we lead, its end is final."""
        while rows := await self._leader.read_after(self.fleet.position, FOLD_PAGE_EVENTS):
            for row in rows:
                recorded = decode(row)
                self.fleet.fold(recorded)
                if isinstance(recorded.event, CommandAccepted | CommandRejected):
                    self._decider.receipts.remember(recorded)
            await asyncio.sleep(0)

    async def _install_admin_token(self) -> None:
        if self._admin_token_hash is not None:
            command = InstallToken(name="admin", hash=self._admin_token_hash)
            await self.submit(
                Envelope(BERTH, (Item(id := ids.uuid7(), command, {"name": "admin"}, id),), time.time() + 30)
            )
        self._ready.set()

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── intake ──

    async def submit(self, envelope: Envelope) -> list[Answer]:
        first = envelope.items[0]
        if self.failure is not None or not self.is_leading:
            raise Unavailable(None)
        if self._queued_commands + len(envelope.items) > QUEUE_COMMANDS_MAX:
            raise Unavailable(None)
        if isinstance(first.command, ReportOperation) and first.command.outcome == "progress":
            return [self._progress(first.command, envelope.actor, item=first)]
        known = await self._look_up(envelope)
        context = Context(envelope.actor, envelope.reason, envelope.batch, envelope.dry_run)
        units = [envelope.items] if envelope.atomic else [(item,) for item in envelope.items]
        loop = asyncio.get_running_loop()
        tickets = [
            Ticket(unit, context, envelope.expires_at, envelope.wait_s, loop.create_future(), known) for unit in units
        ]
        self._queue.extend(tickets)
        self._queued_commands += len(envelope.items)
        self._wake.set()
        patience_s = envelope.expires_at - time.time() + envelope.wait_s + 1.0
        try:
            async with asyncio.timeout(patience_s):
                answers = [answer for ticket in tickets for answer in await ticket.future]
        except TimeoutError:
            raise Unavailable(first.id) from None
        if any(answer.replayed and answer.operation is not None for answer in answers):
            answers = [await self._with_end(answer, envelope.wait_s) for answer in answers]
        return answers

    async def _look_up(self, envelope: Envelope) -> dict[str, Row]:
        """Rows of the log that decisions need to know: keys not in memory, operations that are over."""
        streams: list[str] = []
        for item in envelope.items:
            if item.key != item.id and not self._key_is_surely_new(item, envelope.actor):
                streams.append(command_stream(envelope.actor.name, item.key))
            on = item.command.on()
            if on.startswith("operation/") and on not in self.fleet.entries:
                streams.append(on)
        if not streams:
            return {}
        futures = [self._look_ups.get(stream) for stream in streams]
        if None in futures:
            loop = asyncio.get_running_loop()
            if not self._look_ups:
                self._spawn(self._look_up_all())
            for stream in streams:
                self._look_ups.setdefault(stream, loop.create_future())
            futures = [self._look_ups[stream] for stream in streams]
        rows = [await future for future in futures if future is not None]
        return {row.stream: row for row in rows if row is not None}

    def _key_is_surely_new(self, item: Item, actor: Actor) -> bool:
        """Its receipt is in memory (so memory answers), or it can't be older than what memory holds completely."""
        receipts = self._decider.receipts
        if receipts.get(command_stream(actor.name, item.key)) is not None:
            return True
        if isinstance(item.command, ReportOperation) and item.key == item.command.key:
            operation = self.fleet.operation(item.command.operation)
            return operation is not None and operation.started_at > receipts.horizon
        return False

    async def _look_up_all(self) -> None:
        """One query for all that wait; those that come meanwhile go with the next."""
        await asyncio.sleep(0)
        while self._look_ups:
            asked, self._look_ups = self._look_ups, {}
            try:
                found = await asyncio.to_thread(self._reader.existing, list(asked))
            except (psycopg.Error, OSError) as error:
                log.warning("look-up failed", error=str(error).strip())
                for future in asked.values():
                    if not future.done():
                        future.set_exception(Unavailable(None))
                continue
            for stream, future in asked.items():
                if not future.done():
                    future.set_result(found.get(stream))

    def _progress(self, command: ReportOperation, actor: Actor, *, item: Item) -> Answer:
        """Progress is no decision: checked against the fleet, kept beside the log."""
        on = command.on()
        operation = self.fleet.operation(command.operation)
        step = operation.current if operation is not None else None
        is_asked = step is not None and (step.name, step.attempt) == (command.step, command.attempt)
        if is_asked and self._report_progress is not None:
            self._report_progress(command)
        resource, version = self._decider.view(on)
        return Answer(item.id, 200, self.fleet.position, on, resource, version, command.operation)

    # ── deciding ──

    async def _decide_for_ever(self) -> None:
        in_flight: tuple[Batch, asyncio.Task[None]] | None = None
        batch: Batch | None = None
        while True:
            if self._queue and (batch is None or not batch.is_full):
                batch = batch or Batch(self._decider.begin())
                self._decide_into(batch)
            if in_flight is not None and in_flight[1].done():
                flown, task = in_flight
                in_flight = None
                if not await self._settle(flown, task, batch):
                    batch = None
            if in_flight is None and batch is not None and batch.answered:
                if batch.rows:
                    task = asyncio.create_task(self._append(batch))
                    task.add_done_callback(lambda _: self._wake.set())
                    in_flight = batch, task
                else:
                    self._release(batch)
                batch = None
            if self._queue and (batch is None or not batch.is_full):
                await asyncio.sleep(0)
                continue
            await self._wake.wait()
            self._wake.clear()

    def _decide_into(self, batch: Batch) -> None:
        began = time.perf_counter()
        while self._queue and not batch.is_full:
            ticket = self._queue[0]
            if ticket.is_alone and batch.answered:
                break
            self._queue.popleft()
            self._queued_commands -= len(ticket.items)
            if ticket.future.done():
                continue
            if ticket.expires_at < time.time():
                ticket.future.set_exception(Unavailable(ticket.items[0].id))
                continue
            answers = self._decide(batch, ticket)
            batch.answered.append((ticket, answers))
            batch.commands += len(ticket.items)
            now = time.perf_counter()
            DECISION_SECONDS.observe((now - began) / len(ticket.items))
            batch.decided_s += now - began
            began = now

    def _decide(self, batch: Batch, ticket: Ticket) -> list[Answer]:
        actor = ticket.context.actor
        repeats = [self._decider.repeat(item, actor, ticket.known) for item in ticket.items]
        if any(answer is not None for answer in repeats):
            # The items of an atomic batch were recorded together, so they come back together.
            return [
                answer or Answer(item.id, 503, 0, problem=Unavailable(item.id).problem())
                for item, answer in zip(ticket.items, repeats, strict=True)
            ]
        first = len(batch.tx.events)
        answers = self._decide_unit(batch, ticket)
        if not ticket.context.dry_run:
            self._note_ended_operations(batch, first)
            for item, answer in zip(ticket.items, answers, strict=True):
                outcome = "accepted" if answer.problem is None else answer.problem["code"]
                COMMANDS.labels(item.command.kind, outcome).inc()
        return answers

    def _decide_unit(self, batch: Batch, ticket: Ticket) -> list[Answer]:
        """All the items, or none: the one that failed with its problem, the others as aborted. All share one `at`."""
        tx, context, at = batch.tx, ticket.context, self._decider.next_at()
        if ticket.is_refused:
            return self._refuse_all(batch, ticket, at, failed=0, problem=Internal().problem())
        mark, rows = tx.mark(), len(batch.rows)
        answers: list[Answer] = []
        # A dry run of several must see each other's effects, so each is decided for real and all are undone.
        several = len(ticket.items) > 1
        decided = msgspec.structs.replace(context, dry_run=False) if several else context
        for n, item in enumerate(ticket.items):
            answer = self._decider.decide(tx, item, decided, at=at, known=ticket.known, rows=batch.rows)
            if answer.problem is not None and several:
                self._undo_to(batch, mark, rows)
                return self._refuse_all(batch, ticket, at, failed=n, problem=answer.problem)
            answers.append(answer)
        if several and context.dry_run:
            self._undo_to(batch, mark, rows)
            return [msgspec.structs.replace(answer, position=self.fleet.position, secret=None) for answer in answers]
        return answers

    def _refuse_all(
        self, batch: Batch, ticket: Ticket, at: int, *, failed: int, problem: dict[str, Any]
    ) -> list[Answer]:
        if len(ticket.items) > 1:
            problem = {**problem, "index": failed}
        aborted = Aborted(failed).problem()
        return [
            self._decider.refuse(
                batch.tx,
                item,
                ticket.context,
                at=at,
                on=item.command.on(),
                problem=problem if n == failed else aborted,
                rows=batch.rows,
            )
            for n, item in enumerate(ticket.items)
        ]

    def _undo_to(self, batch: Batch, mark: tuple[int, int, int, int], rows: int) -> None:
        self._forget_receipts(batch.tx.events[mark[1] :])
        batch.tx.undo(mark)
        del batch.rows[rows:]

    def _forget_receipts(self, events: Iterable[Recorded]) -> None:
        for recorded in events:
            if recorded.stream.startswith("command/"):
                self._decider.receipts.forget(recorded.stream)

    # ── appending and settling ──

    async def _append(self, batch: Batch) -> None:
        began = time.perf_counter()
        await self._leader.append(batch.base, batch.rows)
        APPEND_SECONDS.observe(time.perf_counter() - began)
        BATCH_SIZE.observe(batch.commands)

    async def _settle(self, batch: Batch, task: "asyncio.Task[None]", following: Batch | None) -> bool:
        """The append of `batch` has ended, somehow. Answers False if the batch that follows it was undone too."""
        try:
            try:
                task.result()
            except OutcomeUnknown as unknown:
                log.warning("append of unknown outcome", base=batch.base, events=len(batch.rows), error=str(unknown))
                await self._find_out(batch)
            self._release(batch)
            return True
        except Collision as collision:
            log.warning("append collided", base=batch.base, events=len(batch.rows), error=str(collision))
            self._take_back(batch, following)
            if collision.streams:
                # Keys that no look-up had found: they are known from here on, so the commands are repeats.
                found = await asyncio.to_thread(self._reader.existing, list(collision.streams))
                for ticket in self._queue:
                    ticket.known = {**ticket.known, **found}
            self.is_leading = False
            await self._leader.regain()
            await self._take_over()
            self.is_leading = True
        except DataRefused as refused:
            log.error("append refused for its data", base=batch.base, events=len(batch.rows), error=str(refused))
            self._take_back(batch, following)
            for ticket, _ in batch.answered:
                ticket.is_refused = ticket.is_alone
                ticket.is_alone = True
        return False

    async def _find_out(self, batch: Batch) -> None:
        """Make a batch of unknown outcome stand, whatever came of the first try. Raises Collision or DataRefused."""
        while True:
            self.is_leading = False
            await self._leader.regain()
            self.is_leading = True
            try:
                if not await self._leader.stands(batch.base, batch.rows):
                    await self._leader.append(batch.base, batch.rows)
                return
            except (OutcomeUnknown, psycopg.OperationalError) as again:
                log.warning("still unknown", base=batch.base, error=str(again))

    def _take_back(self, batch: Batch, following: Batch | None) -> None:
        """Undo both batches, the later first, and put their commands back in front of the queue, in their order."""
        tickets: list[Ticket] = []
        for undone in (following, batch):
            if undone is None:
                continue
            self._forget_receipts(undone.tx.events)
            undone.tx.undo()
            tickets = [ticket for ticket, _ in undone.answered] + tickets
        self._queue.extendleft(reversed(tickets))
        self._queued_commands += sum(len(ticket.items) for ticket in tickets)

    def _release(self, batch: Batch) -> None:
        """The batch is committed, and so is all before it: its answers may leave."""
        LOG_POSITION.set(batch.base + len(batch.rows))
        for ticket, answers in batch.answered:
            answer = answers[0]
            if len(answers) == 1 and ticket.wait_s > 0 and answer.status == 202 and not ticket.context.dry_run:
                self._wait_for_end(ticket, answer)
            elif not ticket.future.done():
                ticket.future.set_result(answers)
        for operation, end in batch.ended.items():
            for ticket, answer in self._waiting.pop(operation, ()):
                if not ticket.future.done():
                    ticket.future.set_result([ended(answer, end)])
        log.debug("batch appended", position=batch.base + len(batch.rows), commands=batch.commands)

    # ── waiting for operations ──

    def _note_ended_operations(self, batch: Batch, first: int) -> None:
        """What those who wait are told, as of the end of this very command."""
        for recorded in batch.tx.events[first:]:
            if type(recorded.event) not in ENDS or not recorded.stream.startswith("operation/"):
                continue
            entry = batch.tx.ended[recorded.stream]
            operation: Operation = entry.state
            target = batch.tx.ended.get(operation.target)
            resource, version = self._decider.view(operation.target, ended=target)
            id = recorded.stream.partition("/")[2]
            batch.ended[id] = _end_of(id, operation, resource, version, self.fleet.position)

    def _wait_for_end(self, ticket: Ticket, answer: Answer) -> None:
        assert answer.operation is not None
        # If it has ended in a batch that is not committed yet, the release of that batch finds us here.
        self._waiting.setdefault(answer.operation, []).append((ticket, answer))

        def too_late() -> None:
            waiting = self._waiting.get(answer.operation or "", [])
            if (ticket, answer) in waiting:
                waiting.remove((ticket, answer))
                if not waiting:
                    self._waiting.pop(answer.operation or "", None)
            if not ticket.future.done():
                ticket.future.set_result([answer])

        asyncio.get_running_loop().call_later(ticket.wait_s, too_late)

    async def _with_end(self, answer: Answer, wait_s: float) -> Answer:
        """A repeat whose operation has left the fleet is told from the log how that ended."""
        id = answer.operation
        if not answer.replayed or id is None or answer.status == 202 or answer.problem is not None or wait_s <= 0:
            return answer
        if answer.on == operation_stream(id):
            return answer
        rows = await asyncio.to_thread(self._reader.stream, operation_stream(id))
        past = Fleet()
        for row in rows:
            last = past.fold(decode(row))
        if not rows or last is None or not last.state.is_over:
            return answer
        end = _end_of(id, last.state, answer.resource, answer.version, answer.position)
        return msgspec.structs.replace(ended(answer, end), position=answer.position)

    # ── deadlines ──

    async def _expire_deadlines(self) -> None:
        await asyncio.sleep(self._expiry_grace_s)
        asked: set[str] = set()
        while True:
            now = now_us()
            due = [id for id, deadline in self.fleet.deadlines.items() if deadline < now]
            for id in due:
                operation = self.fleet.operation(id)
                step = operation.current if operation is not None else None
                if step is None:
                    continue
                key = f"{id}:{step.name}:{step.attempt}:expired"
                if key in asked:
                    continue
                asked.add(key)
                command = ExpireOperation(operation=id, step=step.name, attempt=step.attempt)
                item = Item(ids.uuid7(), command, command.model_dump(), key)
                self._spawn(self._submit_expiry(Envelope(BERTH, (item,), time.time() + 30.0), key, asked))
            await asyncio.sleep(EXPIRY_INTERVAL_S)

    async def _submit_expiry(self, envelope: Envelope, key: str, asked: set[str]) -> None:
        try:
            await self.submit(envelope)
        except Unavailable:
            log.warning("deadline not settled yet", key=key)
        finally:
            asked.discard(key)


def ended(answer: Answer, end: Answer) -> Answer:
    """The answer to a command whose operation has ended as `end` tells."""
    return msgspec.structs.replace(
        answer,
        status=end.status if end.problem is not None else 201 if answer.created else 200,
        position=end.position,
        resource=end.resource,
        version=end.version,
        problem=end.problem,
    )


def _end_of(id: str, operation: Operation, resource: dict[str, Any] | None, version: int, position: int) -> Answer:
    if operation.state == "succeeded":
        return Answer("", 200, position, operation.target, resource, version, id)
    broken = next((step.name for step in operation.steps if step.state == "failed"), None)
    problem = OperationFailed(id, broken, operation.reason, resource).problem()
    return Answer("", problem["status"], position, operation.target, resource, version, id, problem=problem)
