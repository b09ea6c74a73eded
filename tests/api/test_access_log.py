"""The access log tells every request, but a flood of those that are turned away in a line a second."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from api import access_log
from api.access_log import AccessLog


def note(log: AccessLog, status: int) -> None:
    log.note(method="GET", route="/v1/vms", status=status, seconds=0.001, command=None, actor=None)


async def told(statuses: list[int]) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        log = AccessLog()
        for status in statuses:
            note(log, status)
        await asyncio.sleep(2 * access_log.TOLD_EVERY_S)
    return [dict(line) for line in lines]


@pytest.fixture(autouse=True)
def _short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "TOLD_EVERY_S", 0.02)


async def test_those_who_are_turned_away_are_told_once_a_second_with_their_number() -> None:
    lines = await told([401] * 500 + [429] * 3)
    assert [(line["event"], line["status"], line.get("more")) for line in lines] == [
        ("request answered", 401, None),
        ("request answered", 429, None),
        ("requests turned away", 401, 499),
        ("requests turned away", 429, 2),
    ]


async def test_every_request_that_was_let_in_is_told() -> None:
    lines = await told([200, 404, 409, 401, 200, 503])
    assert [line["status"] for line in lines] == [200, 404, 409, 401, 200, 503]


async def test_the_next_second_begins_anew() -> None:
    with capture_logs() as lines:
        log = AccessLog()
        for _ in range(2):
            note(log, 401)
            await asyncio.sleep(2 * access_log.TOLD_EVERY_S)
    assert [line["event"] for line in lines] == ["request answered"] * 2
