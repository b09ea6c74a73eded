"""The engine: takes whatever commands wait, decides them as one batch, appends the batch, and then answers.

    submit ─► look-ups ─► queue ─► batch being decided ─► batch in flight ─► answers
                                        └── one append at a time; the next batch is decided meanwhile

No answer leaves before everything that it was decided upon is committed. If an append loses, both batches are undone
through their journals, what stands in the log is folded, and their commands are decided again.
"""

import asyncio
import gc
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import psycopg
import structlog
from prometheus_client import Gauge, Histogram

from commands import costs
from commands.operations import ReportOperation
from commands.tokens import InstallToken
from commands.writer import deadlines, ids
from commands.writer.batch import Batch, Ticket
from commands.writer.deciding import CommandContext, Decider, ResourceOf
from commands.writer.gateway import Actor, Answer, Envelope, Item
from commands.writer.keys import batch_key
from commands.writer.leader import Leader
from commands.writer.lookups import LookUps
from commands.writer.queue import Queue, Rooms
from commands.writer.receipts import KnownRows
from commands.writer.repeats import Repeats
from commands.writer.waiting import Waiting
from domain.command import CommandAccepted, CommandRejected
from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.operation import KIND as OPERATION
from domain.recorded import LeaderTookOver, LogOpened, Recorded
from domain.token import KIND as TOKEN
from domain.values import name_of
from eventlog import checkpoints
from eventlog.append import Collision, DataRefused, OutcomeUnknown
from eventlog.codec import Row, decode, encode
from eventlog.read import LogReader, OtherHistory
from eventlog.tasks import end_tasks

FOLD_PAGE_EVENTS = 1_000  # of 256 KiB each, at the most
# The loop has others to serve, the append that is under way above all; and a batch that could be appended goes without
# those that come later.
DECIDE_S_MAX = 0.002
# How often the loop serves all others before a long unit is begun: what their sockets hold is in the queue then.
ROUNDS_BEFORE_LONG = 4
RETRY_S = 0.2
ANSWER_GRACE_S = 1.0
COLLECT_AFTER = (10_000, 20, 100)  # allocations; collections of the youngest; of the middle

log = structlog.get_logger()

BATCH_SIZE = Histogram("berth_batch_size", "Commands in one append", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
APPEND_SECONDS = Histogram(
    "berth_append_seconds",
    "Time for one append to be durable",
    buckets=(5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 2.5),
)
LOG_POSITION = Gauge("berth_log_position", "Position of the last event that is committed")


class Progress(Protocol):
    """Where what controllers tell of work under way is kept, beside the log. Neither method waits."""

    def note(self, report: ReportOperation) -> None: ...

    def forget(self, operations: Iterable[str]) -> None:
        """These are over."""
        ...

    def keep_only(self, operations: Iterable[str]) -> None:
        """All others are over."""
        ...


class Deposed(Exception):
    """Another writer leads. Everything of ours is settled: what stands is answered, the rest is undone."""


class LogLost(Exception):
    """The log lacks what this process knows to have been committed: it was replaced by an older one."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the log no longer has position {position}, which was committed; begin anew with what it has")


class Engine:
    """The writer; implements `Gateway`. Everything runs on one event loop; the fleet belongs to it alone.

    `resource` gives the JSON of a resource; `progress` keeps a controller's progress (never an event), and may be
    None; `controllers` are the names of those that there are.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        resource: ResourceOf,
        progress: Progress | None = None,
        controllers: Iterable[str] = (),
        admin_token_hash: str | None = None,
        step_timeout_s: int = 600,
        expiry_grace_s: float = deadlines.GRACE_S,
    ) -> None:
        self.fleet = Fleet()
        self.is_leading = False
        self.failure: BaseException | None = None
        self._conninfo = conninfo
        self._leader = Leader(conninfo, on_displaced=self._note_displaced)
        self._reader = LogReader(conninfo)
        self._decider = Decider(
            self.fleet,
            resource=resource,
            step_timeout_s=step_timeout_s,
            controllers=controllers,
            report_progress=progress.note if progress is not None else None,
        )
        self._look_ups = LookUps(self._reader, self.fleet, self._decider.receipts, spawn=self._spawn)
        self._waiting = Waiting(self._decider.sees)
        self._repeats = Repeats(self._reader, self._decider)
        self._progress = progress
        self._admin_token_hash = admin_token_hash
        self._expiry_grace_s = expiry_grace_s
        self._queue = Queue()
        self._wake = asyncio.Event()
        self._is_displaced = False
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # ── life ──

    async def start(self) -> None:
        """Begin to lead in the background; `ready` waits until commands are decided."""
        self._spawn(self._run())

    async def ready(self) -> None:
        await self._ready.wait()

    async def ended(self) -> None:
        """Wait until the engine has stopped by itself, which it does only for a fault of ours, and raise that."""
        await self._ended.wait()
        assert self.failure is not None
        raise self.failure

    async def stop(self) -> None:
        """Stop deciding. What is in flight is settled by whoever reads the log next; callers get Unavailable."""
        self.is_leading = False
        await end_tasks(*self._tasks)
        await self._leader.close()
        await asyncio.to_thread(self._reader.close)

    async def _run(self) -> None:
        try:
            await self._restore()
            while True:
                try:
                    await self._leader.stand_by(self._fold, self.fleet.position, self.fleet.at)
                    await self._take_over()
                    await self._lead()
                except OtherHistory as other:
                    raise LogLost(other.position) from other
                except Deposed as deposed:
                    log.warning("deposed", position=self.fleet.position, reason=str(deposed))
                finally:
                    self._step_down()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("engine stopped", position=self.fleet.position)
            self.failure = error
            self.is_leading = False
            self._ready.set()
            self._ended.set()

    async def _restore(self) -> None:
        """Begin with the newest checkpoint, if there is one; the rest is folded by whoever stands by or takes over."""
        while True:
            try:
                if await asyncio.to_thread(checkpoints.restore, self._conninfo, self.fleet):
                    self._decider.receipts.begin_after(self.fleet.at)
                return
            except psycopg.Error as error:
                log.warning("database not reached", error=str(error).strip())
                await asyncio.sleep(RETRY_S)

    async def _lead(self) -> None:
        # The fleet lives as long as the process: the collector need not walk it again and again. Nor what waits to be
        # decided: with Python's own thresholds that was a fifth of all time when the queue is full (docs/limits.md).
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        self.is_leading, self._is_displaced = True, False
        if self._progress is not None:
            self._progress.keep_only(map(name_of, self.fleet.streams(OPERATION)))
        if self._admin_token_hash is not None:
            self._spawn(self._begin_with(self._admin_token_hash))
        else:
            self._ready.set()
        expiring = asyncio.create_task(deadlines.expire(self.fleet, self.submit, grace_s=self._expiry_grace_s))
        try:
            await self._decide_for_ever()
        finally:
            await end_tasks(expiring)

    def _step_down(self) -> None:
        """What is still queued is undecided for certain; what waits for an operation's end gets its first answer."""
        self.is_leading = False
        for ticket in self._queue.take_all():
            if not ticket.future.done():
                ticket.future.set_exception(Unavailable(ticket.items[0].id))
        self._waiting.give_up()

    def _note_displaced(self) -> None:
        self._is_displaced = True
        self._wake.set()

    async def _take_over(self) -> None:
        """Fold to the log's end, and append the event from which on every earlier writer collides.

        Raises:
            Deposed: another was faster.
            LogLost: the log is not the one that was folded.
        """
        while True:
            try:
                while rows := await self._leader.follow(self.fleet.position, self.fleet.at, FOLD_PAGE_EVENTS):
                    self._fold(rows)
                    await asyncio.sleep(0)
                fleet = self.fleet
                event = LogOpened(ids.uuid7()) if fleet.position == 0 else LeaderTookOver(ids.uuid7())
                position, at = fleet.position + 1, self._decider.next_at()
                recorded = Recorded(
                    stream="log",
                    version=position,
                    position=position,
                    at=at,
                    actor=deadlines.BERTH.name,
                    command=ids.uuid7(),
                    event=event,
                )
                await self._leader.append(fleet.position, [encode(recorded)])
            except (Collision, OutcomeUnknown, psycopg.Error) as lost:
                if isinstance(lost, Collision) and lost.reason == "base":
                    raise LogLost(self.fleet.position) from lost
                log.warning("taking over again", error=str(lost).strip())
                await self._regain()
            else:
                fleet.fold(recorded)
                LOG_POSITION.set(position)
                log.info("leading", position=position, log=fleet.log)
                return

    async def _regain(self) -> None:
        if not await self._leader.regain():
            raise Deposed("another writer leads")

    def _fold(self, rows: list[Row]) -> int:
        for row in rows:
            recorded = decode(row)
            self.fleet.fold(recorded)
            if isinstance(recorded.event, CommandAccepted | CommandRejected):
                self._decider.receipts.remember(recorded)
        return self.fleet.position

    async def _begin_with(self, admin_token_hash: str) -> None:
        await self.install_admin_token(admin_token_hash)
        self._ready.set()

    async def install_admin_token(self, hash: str) -> None:
        """Let in whoever holds the secret of this hash, as the administrator, unless it was replaced by a later one.

        An engine that stands by leaves that to the one that leads.
        """
        while self.is_leading:
            admin = self.fleet.get(TOKEN, "admin")
            if admin is not None and admin.knows(hash):
                return  # as at most starts: what changes nothing is no command
            item = Item(id := ids.uuid7(), InstallToken(name="admin", hash=hash), {"name": "admin"}, id)
            try:
                await self.submit(Envelope(deadlines.BERTH, (item,), time.time() + 30))
                return
            except Unavailable as refusal:
                log.warning("admin token not installed yet", error=str(refusal))
                await asyncio.sleep(RETRY_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ── taking in ──

    @property
    def rooms(self) -> Rooms:
        return self._queue.rooms

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor `submit` would take now: asked before work is spent on them."""
        return self._queue.room_for(actor)

    async def submit(self, envelope: Envelope) -> list[Answer]:
        first = envelope.items[0]
        if not self.is_leading:
            raise Unavailable()
        patience_s = envelope.expires_at - time.time() + envelope.wait_s + ANSWER_GRACE_S
        actor = self._decider.authenticated(envelope.actor)
        if actor is not None and actor is not envelope.actor:
            envelope = msgspec.structs.replace(envelope, actor=actor)
        self._queue.admit(envelope)
        try:
            # Whose token is not good is refused in turn, with all that this was decided upon, but nothing is looked up.
            known = await self._look_ups.known(envelope, patience_s=patience_s) if actor is not None else {}
            if not self.is_leading:
                # What was queued has been answered meanwhile, and this would wait there in vain.
                raise Unavailable(first.id)
        except BaseException:
            self._queue.let_go(envelope)
            raise
        tickets = _tickets(envelope, known, self.fleet)
        self._queue.put(tickets)
        self._wake.set()
        # asyncio.timeout takes four times as long
        too_late = asyncio.get_running_loop().call_later(patience_s, _give_up, tickets)
        answers: list[Answer] = []
        try:
            for ticket in tickets:
                answers += await ticket.future
        except BaseException:
            for ticket in tickets:  # what the others are told, nobody reads
                ticket.future.add_done_callback(lambda future: future.cancelled() or future.exception())
            raise
        finally:
            too_late.cancel()
            if (batch := tickets[0].batch) is not None:
                for ticket in tickets:
                    ticket.future.cancel()  # of those that nobody waits for now, none is decided
                self._decider.keys.let_go(batch)
        if not any(answer.replayed for answer in answers):
            return answers
        return [
            await self._repeats.complete(answer, actor=envelope.actor, wait_s=envelope.wait_s) for answer in answers
        ]

    # ── deciding ──

    async def _decide_for_ever(self) -> None:
        in_flight: tuple[Batch, asyncio.Task[None]] | None = None
        batch: Batch | None = None
        try:
            while True:
                if self._may_decide(batch, in_flight[0] if in_flight is not None else None):
                    if self._queue.first().is_long:
                        for _ in range(ROUNDS_BEFORE_LONG):
                            await asyncio.sleep(0)
                    batch = batch or Batch(self._decider)
                    self._decide_into(batch)
                    if not batch.answered:  # all had expired; what is empty keeps nobody waiting
                        batch = None
                if in_flight is not None and in_flight[1].done():
                    if not await self._settle(*in_flight, batch):
                        batch = None
                    # Each answer's memory goes with the answer, while the processor's cache still holds it.
                    in_flight = None
                if in_flight is None and batch is not None and batch.answered:
                    if batch.rows:
                        task = asyncio.create_task(self._append(batch))
                        task.add_done_callback(lambda _: self._wake.set())
                        in_flight = batch, task
                        del task
                    else:
                        self._release(batch)
                    batch = None
                if self._is_displaced and in_flight is None and batch is None:
                    # Another was seen to lead. If that is so, nothing of ours is undecided or undone here.
                    self._is_displaced = False
                    await self._regain()
                if self._may_decide(batch, in_flight[0] if in_flight is not None else None):
                    await asyncio.sleep(0)
                    continue
                await self._wake.wait()
                self._wake.clear()
        finally:
            # Stopped or deposed: nobody will hear of these from here any more.
            for left in (in_flight[0] if in_flight is not None else None, batch):
                if left is not None:
                    left.give_up()

    def _may_decide(self, batch: Batch | None, in_flight: Batch | None) -> bool:
        """An append takes several rounds of the loop, and in each of them something more may be decided meanwhile. So
        what takes long is begun when all before it are answered, and what is dear when all others' are."""
        if not self._queue:
            return False
        first = self._queue.first()
        if in_flight is not None and first.is_dear:
            others = in_flight.actors | (batch.actors if batch is not None else set())
            if first.is_long or others - {first.context.actor.name}:
                return False
        return batch is None or batch.takes(first)

    def _decide_into(self, batch: Batch) -> None:
        now, until = time.time(), time.perf_counter() + DECIDE_S_MAX
        while self._queue and batch.takes(self._queue.first()) and time.perf_counter() < until:
            ticket = self._queue.take()
            if ticket.future.done():  # nobody waits any more
                continue
            if ticket.expires_at < now:
                ticket.future.set_exception(Unavailable(ticket.items[0].id))
                continue
            self._queue.charge(ticket, batch.decide(ticket))

    # ── appending and settling ──

    async def _append(self, batch: Batch) -> None:
        began = time.perf_counter()
        await self._leader.append(batch.base, batch.rows)
        APPEND_SECONDS.observe(time.perf_counter() - began)
        BATCH_SIZE.observe(batch.commands)

    async def _settle(self, batch: Batch, task: "asyncio.Task[None]", following: Batch | None) -> bool:
        """The append of `batch` has ended, somehow. Answers False if the batch that follows it was undone too.

        Raises:
            Deposed: another leads; both batches are settled.
        """
        try:
            try:
                task.result()
            except OutcomeUnknown as unknown:
                log.warning("append of unknown outcome", base=batch.base, events=len(batch.rows), error=str(unknown))
                await self._find_out(batch)
            self._release(batch)
            if not self._leader.leads:
                self._take_back(None, following)
                raise Deposed("another writer leads; the last batch stands")
            return True
        except Collision as collision:
            log.warning("append collided", base=batch.base, events=len(batch.rows), error=str(collision))
            self.is_leading = False
            self._take_back(batch, following)
            await self._make_known(collision.streams)
            await self._regain()
            await self._take_over()
            self.is_leading = True
        except DataRefused as refused:
            log.error("append refused for its data", base=batch.base, events=len(batch.rows), error=str(refused))
            self._take_back(batch, following)
            for ticket, _ in batch.answered:
                ticket.is_refused = ticket.is_alone
                ticket.is_alone = True
        return False

    async def _make_known(self, streams: Sequence[str]) -> None:
        """Keys that no look-up had found: those that stand are known from here on, so their commands are repeats. Those
        that don't had come twice: once the first of them stands, the second collides with it, and is a repeat."""
        found = await self._look_ups.existing(streams)
        twice = set(streams) - found.keys()
        for ticket in self._queue:
            ticket.known = {**ticket.known, **found}
            if twice and not twice.isdisjoint(ticket.streams):
                ticket.is_alone = True

    async def _find_out(self, batch: Batch) -> None:
        """Make a batch of unknown outcome stand, whatever came of the first try, or learn that another leads and it
        stands all the same. Raises Collision or DataRefused."""
        while True:
            self.is_leading = False
            self.is_leading = await self._leader.regain()
            try:
                if await self._leader.stands(batch.base, batch.rows):
                    return
                if self.is_leading:
                    await self._leader.append(batch.base, batch.rows)
                    return
                # Another holds the lock and has not begun: what it writes first tells, or we hold it again.
            except (OutcomeUnknown, psycopg.Error) as again:
                log.warning("still unknown", base=batch.base, error=str(again).strip())
            await asyncio.sleep(RETRY_S)

    def _take_back(self, batch: Batch | None, following: Batch | None) -> None:
        """Undo both batches, the later first, and put their commands back in front of the queue, in their order."""
        tickets: list[Ticket] = []
        for undone in (following, batch):
            if undone is not None:
                tickets = undone.take_back() + tickets
        self._queue.put_back(tickets)

    def _release(self, batch: Batch) -> None:
        """The batch is committed, and so is all before it: its answers may leave."""
        LOG_POSITION.set(batch.base + len(batch.rows))
        for ticket, answers in batch.answered:
            answer = answers[0]
            if len(answers) == 1 and ticket.wait_s > 0 and answer.status == 202 and not ticket.context.dry_run:
                self._waiting.add(ticket, answer)
            elif not ticket.future.done():
                ticket.future.set_result(answers)
        self._waiting.tell(batch.ended)
        if batch.ended and self._progress is not None:
            self._progress.forget(batch.ended)
        log.debug("batch appended", position=batch.base + len(batch.rows), commands=batch.commands)


def _tickets(envelope: Envelope, known: KnownRows, fleet: Fleet) -> list[Ticket]:
    """What is decided by itself: each command, or all of them."""
    items, actor = envelope.items, envelope.actor
    context = CommandContext(actor, envelope.reason, envelope.batch, envelope.dry_run)
    batch = batch_key(actor.name, items, envelope.batch) if envelope.batch and items[0].fingerprint else None
    loop = asyncio.get_running_loop()
    return [
        Ticket(
            items=unit,
            context=context,
            expires_at=envelope.expires_at,
            wait_s=envelope.wait_s,
            future=loop.create_future(),
            known=known,
            batch=batch,
            us=costs.price_us([item.command for item in unit], fleet),
        )
        for unit in ([items] if envelope.atomic else [(item,) for item in items])
    ]


def _give_up(tickets: Sequence[Ticket]) -> None:
    """No more patience: of tickets that are waited for in turn, the one whose turn it is tells."""
    undecided = [ticket.future for ticket in tickets if not ticket.future.done()]
    for future in undecided[1:]:
        future.cancel()
    if undecided:
        undecided[0].set_exception(Unavailable(tickets[0].items[0].id))
