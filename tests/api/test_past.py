"""The past as its process tells it."""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.recorded import Recorded
from domain.tenant import TenantCreated
from eventlog import checkpoints
from eventlog.codec import Row, decode, encode
from eventlog.read import LogReader
from messaging.past import OfResource, OfVerification, Question
from projections.projector import catch_up
from projections.resources import resource
from tests.api.the_past import Past, answer_of
from tests.checkpointing import MARK, marked
from tests.losing import lose
from tests.projections.logs import a_site, live, write
from workers.past.folds import FOLDS_KEPT


class Counting(LogReader):
    """Knows how many rows were read by position."""

    read = 0

    def follow(self, position: int, at: int, limit: int) -> list[Row]:
        rows = super().follow(position, at, limit)
        self.read += len(rows)
        return rows


class LeavingAfter(LogReader):
    """Whoever asked goes away when so many pages were read."""

    def __init__(self, conninfo: str, *, pages: int) -> None:
        super().__init__(conninfo)
        self.pages = pages
        self.pages_read = 0
        self.leave: Callable[[], None] = lambda: None

    def follow(self, *arguments: Any, **more: Any) -> Any:
        found = super().follow(*arguments, **more)
        self.pages_read += 1
        if self.pages_read == self.pages:
            self.leave()
        return found


@pytest.mark.parametrize("kept", [1, 3])
def test_it_is_as_it_was_in_whatever_order_one_asks(database: Any, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr("workers.past.folds.FOLDS_KEPT", kept)
    site = a_site()
    live(site, seed=2, commands=60)
    write(database.service, site.rows)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    told: dict[int, list[dict[str, Any] | None]] = {}
    fleet = Fleet()
    for row in site.rows:
        fleet.fold(decode(row))
        if row.position in ends:
            told[row.position] = [resource(fleet, "host/h1"), resource(fleet, "group/std")]
    reader = LogReader(database.service)
    past = Past(database.service, reader)
    for position in [*ends[::-7], *ends[::5], *ends[::-11]]:
        for stream, expected in zip(("host/h1", "group/std"), told[position], strict=True):
            assert past.resource(stream, position) == expected
    reader.close()


def test_a_moment_is_folded_from_the_last_checkpoint_before_it(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.past.folds.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=4, commands=400)
    write(database.service, site.rows)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    kept = ends[len(ends) // 3], ends[-5]
    fleet = Fleet()
    told = {}
    for row in site.rows:
        fleet.fold(decode(row))
        told[row.position] = resource(fleet, "group/std")
        if row.position in kept:
            checkpoints.write(database.service, marked(fleet))
    reader = Counting(database.service)
    past = Past(database.service, reader)

    def asked(position: int) -> tuple[int, bool]:
        """How many rows were read for it, and whether it comes from a checkpoint."""
        before = reader.read
        assert past.resource("group/std", position) == told[position]
        return reader.read - before, past.resource(MARK, position) is not None

    assert asked(ends[10]) == (ends[10], False)
    assert asked(ends[-3]) == (ends[-3] - kept[1], True)
    # Neither the fold before it nor the one behind it is near.
    assert asked(kept[0] + 3) == (3, True)
    # Some steps further it is the fold itself that is near.
    assert asked(kept[0] + 30) == (27, True)
    reader.close()


def test_a_moment_before_and_a_moment_after_cost_one_fold_each(database: Any) -> None:
    site = a_site()
    live(site, seed=4, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    past = Past(database.service, reader)
    for position in range(40, site.fleet.position, 10):
        for moment in (position, position - 5):
            past.resource("host/h1", moment)
    assert reader.read <= 2 * site.fleet.position
    reader.close()


def test_folds_that_are_left_are_freed(
    database: Any, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    """Ever earlier positions, each of which begins a fold of its own."""
    made: weakref.WeakSet[Fleet] = weakref.WeakSet()

    class Noted(Fleet):
        def __init__(self) -> None:
            super().__init__()
            made.add(self)

    monkeypatch.setattr("workers.past.folds.Fleet", Noted)
    monkeypatch.setattr("workers.past.questions.IDLE_S", 0.05)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    past = Past(database.service, reader)
    for position in range(site.fleet.position, 20, -5):
        past.resource("host/h1", position)
        assert len(made) <= FOLDS_KEPT
    eventually(lambda: not list(past.questions.step()) and not made)
    assert past.resource("tenant/acme", site.fleet.position) is not None
    reader.close()


@pytest.mark.parametrize("question", [OfVerification(id="mine"), OfResource(id="mine", stream="host/h1", as_of=200)])
def test_a_question_is_given_up_while_it_is_worked_on(
    database: Any, monkeypatch: pytest.MonkeyPatch, question: Question
) -> None:
    monkeypatch.setattr("workers.past.folds.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LeavingAfter(database.service, pages=3)
    past = Past(database.service, reader)
    gone: list[str] = []
    reader.leave = lambda: gone.append("mine")
    past.questions.ask(question)
    while past.questions.open:
        assert not list(past.questions.step())
        for id in gone:
            past.questions.give_up(id)
    assert reader.pages_read == 3
    assert past.resource("host/h1", 40) is not None
    reader.close()


def test_nothing_is_folded_for_those_who_stopped_waiting(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.past.folds.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    past = Past(database.service, reader)
    question = OfResource(stream="host/h1", as_of=site.fleet.position)
    for _ in range(400):
        with pytest.raises(Unavailable):
            past.answer(replace(question, ends_at=time.time() - 1))
    assert reader.read == 0
    # One whose end comes while it is folded for ends there.
    monkeypatch.setattr("workers.past.questions.time.time", lambda: 10.0 if reader.read >= 20 else 0.0)
    with pytest.raises(Unavailable):
        past.answer(replace(question, ends_at=5.0))
    assert reader.read == 20
    monkeypatch.undo()
    answer = past.answer(replace(question, ends_at=time.time() + 60))
    assert answer["resource"] == resource(site.fleet, "host/h1")
    reader.close()


def test_a_long_fold_keeps_no_quick_answer_waiting(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.past.folds.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    questions = Past(database.service, reader).questions
    end = site.fleet.position
    for position in (60, 40):
        answer_of(questions, OfResource(stream="host/h1", as_of=position))
    questions.ask(OfResource(id="long", stream="host/h1", as_of=end))
    questions.ask(OfResource(id="as long", stream="host/h1", as_of=end))
    list(questions.step())
    questions.ask(OfResource(id="quick", stream="host/h1", as_of=40))
    assert [one.id for one in questions.step()] == ["quick"]
    before = reader.read
    left = []
    while questions.open:
        left += [one.id for one in questions.step()]
    # Both want the same fold: it is made once.
    assert left == ["long", "as long"]
    assert reader.read - before <= end
    reader.close()


def test_a_checkpoint_that_is_long_restored_keeps_no_quick_answer_waiting(
    database: Any, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    questions = Past(database.service, reader).questions
    answer_of(questions, OfResource(stream="host/h1", as_of=60))
    begun, go_on, restore = threading.Event(), threading.Event(), checkpoints.restore

    def held(*arguments: Any, **more: Any) -> bool:
        begun.set()
        go_on.wait(30)
        return restore(*arguments, **more)

    monkeypatch.setattr(checkpoints, "restore", held)
    questions.ask(OfResource(id="long", stream="host/h1", as_of=40))
    assert not list(questions.step())
    assert begun.wait(30)
    assert answer_of(questions, OfResource(id="quick", stream="host/h1", as_of=60))["resource"] is not None
    assert "long" in questions.open
    questions.give_up("long")
    # What is restored for nobody counts as kept: two more moments have to share the other place.
    for n, position in enumerate((35, 30)):
        questions.ask(OfResource(id=f"{n}", stream="host/h1", as_of=position))
    list(questions.step())
    assert len(questions.folds) == FOLDS_KEPT
    go_on.set()
    answered = set()
    while questions.open:
        answered |= {one.id for one in questions.step() if one.answer is not None}
    assert answered == {"0", "1"}
    reader.close()


def test_a_checkpoint_that_can_not_be_read_now_is_asked_for_again(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = a_site()
    write(database.service, site.rows)
    reader = LogReader(database.service)
    past = Past(database.service, reader)

    def away(*arguments: Any, **more: Any) -> bool:
        raise psycopg.OperationalError("the server is away")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "restore", away)
        with pytest.raises(Unavailable):
            past.resource("host/h1", site.fleet.position)
    assert past.resource("host/h1", site.fleet.position) == resource(site.fleet, "host/h1")
    reader.close()


def test_questions_at_many_moments_at_once_take_no_more_memory(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: weakref.WeakSet[Fleet] = weakref.WeakSet()

    class Noted(Fleet):
        def __init__(self) -> None:
            super().__init__()
            made.add(self)

    monkeypatch.setattr("workers.past.folds.Fleet", Noted)
    monkeypatch.setattr("workers.past.folds.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    questions = Past(database.service, reader).questions
    moments = range(site.fleet.position, 30, -35)
    for position in moments:
        questions.ask(OfResource(id=f"{position}", stream="host/h1", as_of=position))
    answered = set()
    while questions.open:
        answered |= {one.id for one in questions.step() if one.answer is not None}
        assert len(made) <= FOLDS_KEPT
    assert answered == {f"{position}" for position in moments}
    reader.close()


def test_a_log_that_lost_its_end_is_folded_anew(database: Any) -> None:
    """The folds that are kept hold what never was, at the very positions that others have now."""
    site = a_site()
    live(site, seed=2, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    past = Past(database.service, reader)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    past.resource("host/h1", ends[-1])
    lose(database.owner, after=ends[-9])
    fleet = Fleet()
    for row in site.rows[: ends[-9]]:
        fleet.fold(decode(row))
    for n in range(ends[-9] + 1, ends[-1] + 1):
        row = encode(
            Recorded(f"tenant/new-{n}", n, n, fleet.at + n, "ann", f"c-{n}", TenantCreated(f"u-{n}", f"new-{n}"))
        )
        write(database.service, [row])
    assert past.resource(f"tenant/new-{ends[-1]}", ends[-1]) is not None
    reader.close()


def test_a_read_model_beyond_the_logs_end_is_a_difference_and_no_503(database: Any) -> None:
    site = a_site()
    live(site, seed=2, commands=20)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    lose(database.owner, after=ends[-2])
    found = Past(database.service, reader).verify()
    (difference,) = found["differences"]
    assert f"is at position {ends[-1]}, but the log ends at {ends[-2]}" in difference
    catch_up(database.service, reader)
    found = Past(database.service, reader).verify()
    assert (found["violations"], found["differences"]) == ([], [])
    reader.close()
