"""Bugs put in on purpose, each a protection taken out: the simulation must find every one of them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from commands import claims
from commands.writer import batch, engine, lookups
from commands.writer.batch import Batch, Ticket
from commands.writer.engine import Engine
from domain import operation, vm
from domain.errors import Conflict
from domain.fleet import Fleet
from domain.operation import Operation, OperationStepFailed, Step
from domain.values import kind_of
from domain.vm import Vm, VmChangeFailed
from eventlog import checkpoints
from eventlog.checkpoints import Snapshot
from eventlog.codec import decode
from messaging import relay
from projections.projector import Projector
from tests.simulation.run import run
from tests.simulation.world import World

Alter = Callable[[World], None]


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    former = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, former)


def _unchanged(world: World) -> None:
    pass


def _without_base(world: World) -> None:
    world.postgres.guards_base = False
    world.answers.is_deaf = True  # the gap is to be seen, and not what else comes of it


def _without_unique_keys(world: World) -> None:
    world.postgres.guards_key = False


def _with_rows_apart(world: World) -> None:
    world.postgres.keeps_rows_and_position_together = False


@contextmanager
def answers_before_the_commit() -> Iterator[Alter]:
    decide = Batch.decide

    def decide_and_answer(self: Batch, ticket: Ticket) -> None:
        decide(self, ticket)
        answers = self.answered[-1][1]
        if ticket.wait_s == 0 and not ticket.future.done():
            ticket.future.set_result(answers)

    with replaced(Batch, "decide", decide_and_answer):
        yield _unchanged


@contextmanager
def repeats_before_the_first_is_committed() -> Iterator[Alter]:
    """No wait for earlier batches."""
    decide = Batch.decide

    def decide_and_answer(self: Batch, ticket: Ticket) -> None:
        rows = len(self.rows)
        decide(self, ticket)
        answers = self.answered[-1][1]
        if len(self.rows) == rows and ticket.wait_s == 0 and not ticket.future.done():
            ticket.future.set_result(answers)

    with replaced(Batch, "decide", decide_and_answer):
        yield _unchanged


@contextmanager
def no_look_up() -> Iterator[Alter]:
    async def known(self: Any, envelope: Any, **_: Any) -> dict[str, Any]:
        return {}

    with replaced(lookups.LookUps, "known", known):
        yield _unchanged


@contextmanager
def no_unique_key() -> Iterator[Alter]:
    yield _without_unique_keys


@contextmanager
def no_event_of_taking_over() -> Iterator[Alter]:
    take_over = Engine._take_over

    async def fold_alone(self: Any) -> None:
        if self.fleet.position == 0:
            await take_over(self)
        while rows := await self._leader.read_after(self.fleet.position, engine.FOLD_PAGE_EVENTS):
            self._fold(rows)

    with replaced(Engine, "_take_over", fold_alone):
        yield _unchanged


@contextmanager
def lost_batches_are_taken_as_committed() -> Iterator[Alter]:
    """An unknown outcome is no success."""

    async def believe(self: Any, lost: Batch) -> None:
        self.is_leading = await self._leader.regain()

    with replaced(Engine, "_find_out", believe):
        yield _unchanged


@contextmanager
def no_guard_of_the_base() -> Iterator[Alter]:
    """The guard stands behind another protection: that no batch is sent before the outcome of the one before is known.
    Without both, the log gets a gap."""
    with lost_batches_are_taken_as_committed():
        yield _without_base


@contextmanager
def claims_return_at_the_deadline() -> Iterator[Alter]:
    def expire(found: Operation, step: Step) -> OperationStepFailed:
        return OperationStepFailed(step.name, step.attempt, "no report before its deadline")

    with replaced(operation, "expire", expire):
        yield _unchanged


@contextmanager
def failures_are_not_cleaned_up() -> Iterator[Alter]:
    def fail_step(found: Operation, step: Step, *, reason: str, **_: Any) -> OperationStepFailed:
        return OperationStepFailed(step.name, step.attempt, reason)

    with replaced(operation, "fail_step", fail_step):
        yield _unchanged


@contextmanager
def a_failed_deletion_returns_the_vm() -> Iterator[Alter]:
    """Also to a state in progress that nothing brings to its end any more."""

    def evolve(found: Vm, event: VmChangeFailed) -> Vm:
        state = found.former or found.state
        return msgspec.structs.replace(found, state=state, former=None, operation=None, claims=found.resources)

    before = vm.KIND.evolve
    changed = {VmChangeFailed: evolve}
    msgspec.structs.force_setattr(
        vm.KIND, "evolve", lambda found, event: changed.get(type(event), before)(found, event)
    )
    try:
        yield _unchanged
    finally:
        msgspec.structs.force_setattr(vm.KIND, "evolve", before)


@contextmanager
def no_check_of_the_attempt() -> Iterator[Alter]:
    def reported(found: Operation, id: str, *, step: str, attempt: int) -> Step:
        current = found.current
        if current is None or current.name != step:
            raise Conflict("It is over.", id)
        return current

    with replaced(operation, "reported", reported):
        yield _unchanged


@contextmanager
def quotas_of_ancestors_are_not_counted() -> Iterator[Alter]:
    take = claims.take

    def take_from_one(tx: Any, vm: str, *, chain: Any, **more: Any) -> None:
        take(tx, vm, chain=list(chain)[:1], **more)

    with replaced(claims, "take", take_from_one):
        yield _unchanged


@contextmanager
def receipts_of_undone_batches_are_kept() -> Iterator[Alter]:
    with replaced(Batch, "_forget_receipts", lambda self, events: None):
        yield _unchanged


@contextmanager
def undone_batches_stay_in_the_fleet() -> Iterator[Alter]:
    def take_back(self: Batch) -> list[Ticket]:
        return [ticket for ticket, _ in self.answered]

    with replaced(batch.Batch, "take_back", take_back):
        yield _unchanged


@contextmanager
def rows_and_position_apart() -> Iterator[Alter]:
    yield _with_rows_apart


@contextmanager
def pages_that_end_within_a_command() -> Iterator[Alter]:
    def cut_anywhere(self: Any, until: int | None) -> Any:
        page = [decode(row) for row in self._reader.page(self.fleet.position, 5)]
        return page, len(page) < 5

    with replaced(Projector, "_whole_commands", cut_anywhere):
        yield _unchanged


@contextmanager
def relaying_without_the_expected_sequence() -> Iterator[Alter]:
    message = relay.Relay._message

    def unchained(self: Any, row: Any) -> Any:
        body, headers = message(self, row)
        return body, {name: value for name, value in headers.items() if name != relay.EXPECTED}

    with replaced(relay.Relay, "_message", unchained):
        yield _unchanged


@contextmanager
def checkpoints_without_the_newest_entry() -> Iterator[Alter]:
    snapshot = checkpoints.snapshot

    def short(fleet: Fleet) -> Snapshot:
        taken = snapshot(fleet)
        entries = dict(taken.entries())
        newest = max(entries, key=lambda stream: entries[stream].created_at)
        kind = kind_of(newest)
        rest = {stream: entry for stream, entry in taken.living[kind].items() if stream != newest}
        return msgspec.structs.replace(taken, living={**taken.living, kind: rest})

    with replaced(checkpoints, "snapshot", short):
        yield _unchanged


class Canary(msgspec.Struct, frozen=True):
    """`put_in` puts the bug in. It must be found within `steps_max` steps; `is_quick`: mostly in a second or two."""

    put_in: Callable[[], AbstractContextManager[Alter]]
    steps_max: int = 1_000_000
    is_quick: bool = False

    @property
    def name(self) -> str:
        return self.put_in.__name__


CANARIES = (
    Canary(answers_before_the_commit, 100_000, is_quick=True),
    Canary(no_look_up, 400_000, is_quick=True),
    Canary(no_event_of_taking_over, 400_000, is_quick=True),
    Canary(claims_return_at_the_deadline, 600_000, is_quick=True),
    Canary(failures_are_not_cleaned_up, 400_000, is_quick=True),
    Canary(a_failed_deletion_returns_the_vm, 4_000_000),
    Canary(quotas_of_ancestors_are_not_counted, 100_000, is_quick=True),
    Canary(pages_that_end_within_a_command, 100_000, is_quick=True),
    Canary(lost_batches_are_taken_as_committed),
    Canary(no_guard_of_the_base),
    Canary(repeats_before_the_first_is_committed),
    Canary(no_unique_key),
    Canary(no_check_of_the_attempt),
    Canary(receipts_of_undone_batches_are_kept),
    Canary(undone_batches_stay_in_the_fleet),
    Canary(rows_and_position_apart),
    Canary(relaying_without_the_expected_sequence),
    Canary(checkpoints_without_the_newest_entry, 300_000, is_quick=True),
)
STEPS = 15_000


class Found(msgspec.Struct, frozen=True):
    """The seed that found a canary, after how many steps of all seeds that were tried, and the law that was broken."""

    seed: int
    steps: int
    law: str


def find(canary: Canary) -> Found | None:
    """Try seeds 1, 2, 3 … until one finds it, or its steps are over."""
    steps = 0
    with canary.put_in() as alter:
        for seed in itertools.count(1):
            report = run(seed, STEPS, alter=alter)
            steps += report.steps
            if report.broken:
                return Found(seed, steps, report.broken[0])
            if steps > canary.steps_max:
                return None
    raise AssertionError
