"""The engine's own look at deadlines: what it commands when one has passed, and what it makes of a refusal."""

import asyncio

import pytest

from commands.writer import deadlines
from commands.writer.gateway import Answer, Envelope
from domain.errors import Conflict, Unavailable
from domain.fleet import Fleet
from eventlog.tasks import end_tasks
from tests.commands.writer.test_standby import until
from tests.deciding import a_site, a_vm


def a_fleet_with_a_passed_deadline() -> Fleet:
    """Its times are of years ago."""
    site = a_site()
    site.report(site.given("vm.provision", **a_vm()).operation, "started")
    site.given("vm.provision", **a_vm("waits"))
    return site.fleet


class Submitted:
    """What was commanded; each is answered as told, the last as often as it comes."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = list(answers)
        self.envelopes: list[Envelope] = []

    async def submit(self, envelope: Envelope) -> list[Answer]:
        answer = self._answers[min(len(self.envelopes), len(self._answers) - 1)]
        self.envelopes.append(envelope)
        if isinstance(answer, Exception):
            raise answer
        return [answer]


REFUSED = Answer("c", 409, 7, problem=Conflict("The deadline has not passed.", "o").problem())


@pytest.mark.parametrize("first", [REFUSED, Unavailable()], ids=["refused", "not answered"])
async def test_a_deadline_that_still_stands_is_commanded_anew_and_no_repeat(
    monkeypatch: pytest.MonkeyPatch, first: Answer | Exception
) -> None:
    """A clock that was set back between the look and the decision must not keep a deadline from ever being decided."""
    monkeypatch.setattr(deadlines, "INTERVAL_S", 0.001)
    monkeypatch.setattr(deadlines, "AFTER_REFUSAL_US", 0)
    submitted = Submitted(first)
    task = asyncio.create_task(deadlines.expire(a_fleet_with_a_passed_deadline(), submitted.submit, grace_s=0.0))
    await until(lambda: len(submitted.envelopes) >= 3)
    await end_tasks(task)
    items = [envelope.items[0] for envelope in submitted.envelopes]
    assert {item.command.kind for item in items} == {"operation.expire"}
    assert len({item.command.on() for item in items}) == 1, "what waits for its controller is left alone"
    assert len({item.key for item in items}) == len(items), "a repeat would get the first answer for ever"


async def test_what_was_refused_is_not_commanded_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is recorded: a decision that fails again and again must not fill the log."""
    monkeypatch.setattr(deadlines, "INTERVAL_S", 0.001)
    looks = 0
    fleet, submitted = a_fleet_with_a_passed_deadline(), Submitted(REFUSED)
    now_us = deadlines.now_us

    def look() -> int:
        nonlocal looks
        looks += 1
        return now_us()

    monkeypatch.setattr(deadlines, "now_us", look)
    task = asyncio.create_task(deadlines.expire(fleet, submitted.submit, grace_s=0.0))
    await until(lambda: looks >= 20)
    await end_tasks(task)
    assert len(submitted.envelopes) == 1
