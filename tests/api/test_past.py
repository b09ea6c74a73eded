"""The past as its process tells it."""

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.recorded import Recorded
from domain.tenant import TenantCreated
from eventlog import checkpoints
from eventlog.codec import Row, decode, encode
from eventlog.read import LogReader
from projections.projector import catch_up
from projections.rows import resource
from tests.checkpointing import MARK, marked
from tests.losing import lose
from tests.projections.logs import a_site, live, write
from workers.past import FOLDS_KEPT, PastService


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
async def test_it_is_as_it_was_in_whatever_order_one_asks(
    database: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr("workers.past.FOLDS_KEPT", kept)
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
    past = PastService(database.service, reader)
    for position in [*ends[::-7], *ends[::5], *ends[::-11]]:
        for stream, expected in zip(("host/h1", "group/std"), told[position], strict=True):
            answer = await past.answer({"do": "resource", "stream": stream, "as_of": position})
            assert answer["resource"] == expected
    reader.close()


async def test_a_moment_is_folded_from_the_last_checkpoint_before_it(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.past.PAGE_EVENTS", 10)
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
    past = PastService(database.service, reader)

    async def asked(position: int) -> tuple[int, bool]:
        """How many rows were read for it, and whether it comes from a checkpoint."""
        before = reader.read
        answer = await past.answer({"do": "resource", "stream": "group/std", "as_of": position})
        assert answer["resource"] == told[position]
        mark = await past.answer({"do": "resource", "stream": MARK, "as_of": position})
        return reader.read - before, mark["resource"] is not None

    assert await asked(ends[10]) == (ends[10], False)
    assert await asked(ends[-3]) == (ends[-3] - kept[1], True)
    # Neither the fold before it nor the one behind it is near.
    assert await asked(kept[0] + 3) == (3, True)
    # Some steps further it is the fold itself that is near.
    assert await asked(kept[0] + 30) == (27, True)
    reader.close()


async def test_a_moment_before_and_a_moment_after_cost_one_fold_each(database: Any) -> None:
    site = a_site()
    live(site, seed=4, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    past = PastService(database.service, reader)
    for position in range(40, site.fleet.position, 10):
        for moment in (position, position - 5):
            await past.answer({"do": "resource", "stream": "host/h1", "as_of": moment})
    assert reader.read <= 2 * site.fleet.position
    reader.close()


async def test_folds_that_are_left_are_freed(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever earlier positions, each of which begins a fold of its own."""
    made: weakref.WeakSet[Fleet] = weakref.WeakSet()

    class Noted(Fleet):
        def __init__(self) -> None:
            super().__init__()
            made.add(self)

    monkeypatch.setattr("workers.past.Fleet", Noted)
    monkeypatch.setattr("workers.past.IDLE_S", 0.05)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    past = PastService(database.service, reader)
    for position in range(site.fleet.position, 20, -5):
        await past.answer({"do": "resource", "stream": "host/h1", "as_of": position})
        assert len(made) <= FOLDS_KEPT
    async with asyncio.timeout(10):
        while made:
            await asyncio.sleep(0.02)
    answer = await past.answer({"do": "resource", "stream": "tenant/acme", "as_of": site.fleet.position})
    assert answer["resource"] is not None
    reader.close()


@pytest.mark.parametrize("question", [{"do": "verify"}, {"do": "resource", "stream": "host/h1", "as_of": 200}])
async def test_a_question_is_given_up_while_it_is_worked_on(
    database: Any, monkeypatch: pytest.MonkeyPatch, question: dict[str, Any]
) -> None:
    monkeypatch.setattr("workers.past.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = LeavingAfter(database.service, pages=3)
    past = PastService(database.service, reader)
    reader.leave = lambda: past.give_up("mine")
    with pytest.raises(Unavailable):
        await past.answer({**question, "id": "mine"})
    assert reader.pages_read == 3
    answer = await past.answer({"do": "resource", "stream": "host/h1", "as_of": 40, "id": "another"})
    assert answer["position"] == 40
    reader.close()


async def test_nothing_is_folded_for_those_who_stopped_waiting(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.past.PAGE_EVENTS", 10)
    site = a_site()
    live(site, seed=6, commands=60)
    write(database.service, site.rows)
    reader = Counting(database.service)
    past = PastService(database.service, reader)
    question = {"do": "resource", "stream": "host/h1", "as_of": site.fleet.position}
    for _ in range(400):
        with pytest.raises(Unavailable):
            await past.answer({**question, "ends_at": time.time() - 1})
    assert reader.read == 0
    # One whose end comes while it is folded for ends there.
    clock = iter([0.0, 0.0, 0.0])
    monkeypatch.setattr("workers.past.time.time", lambda: next(clock, 10.0))
    with pytest.raises(Unavailable):
        await past.answer({**question, "ends_at": 5.0})
    assert reader.read == 20
    monkeypatch.undo()
    answer = await past.answer({**question, "ends_at": time.time() + 60})
    assert answer["resource"] == resource(site.fleet, "host/h1")
    reader.close()


async def test_a_log_that_lost_its_end_is_folded_anew(database: Any) -> None:
    """The folds that are kept hold what never was, at the very positions that others have now."""
    site = a_site()
    live(site, seed=2, commands=60)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    past = PastService(database.service, reader)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    await past.answer({"do": "resource", "stream": "host/h1", "as_of": ends[-1]})
    lose(database.owner, after=ends[-9])
    fleet = Fleet()
    for row in site.rows[: ends[-9]]:
        fleet.fold(decode(row))
    for n in range(ends[-9] + 1, ends[-1] + 1):
        row = encode(
            Recorded(f"tenant/new-{n}", n, n, fleet.at + n, "ann", f"c-{n}", TenantCreated(f"u-{n}", f"new-{n}"))
        )
        write(database.service, [row])
    answer = await past.answer({"do": "resource", "stream": f"tenant/new-{ends[-1]}", "as_of": ends[-1]})
    assert answer["resource"] is not None
    reader.close()


async def test_a_read_model_beyond_the_logs_end_is_a_difference_and_no_503(database: Any) -> None:
    site = a_site()
    live(site, seed=2, commands=20)
    write(database.service, site.rows)
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    lose(database.owner, after=ends[-2])
    found = await PastService(database.service, reader).answer({"do": "verify"})
    (difference,) = found["differences"]
    assert f"stands at {ends[-1]}, but the log ends at {ends[-2]}" in difference
    await asyncio.to_thread(catch_up, database.service, reader)
    found = await PastService(database.service, reader).answer({"do": "verify"})
    assert (found["violations"], found["differences"]) == ([], [])
    reader.close()
