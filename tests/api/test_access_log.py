"""The access log tells every request, but a flood of those that are turned away in a line a second."""

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from api import access_log
from api.access_log import AccessLog
from tests.api.served import Api


def note(log: AccessLog, status: int, actor: str | None = None) -> None:
    log.note(method="GET", route="/v1/vms", status=status, seconds=0.001, command=None, actor=actor)


async def told(statuses: list[int], *, actor: str | None = None) -> list[dict[str, Any]]:
    with capture_logs() as lines:
        log = AccessLog()
        for status in statuses:
            note(log, status, actor)
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


async def test_every_request_of_a_known_token_is_told() -> None:
    statuses = [200, 404, 409, 200, 503, 404, 405]
    lines = await told(statuses, actor="ann")
    assert [line["status"] for line in lines] == statuses


async def test_strangers_cannot_push_others_out_of_the_log_whatever_they_are_answered() -> None:
    lines = await told([404, 405, 200] * 5_000)
    assert [(line["event"], line["status"], line.get("more")) for line in lines] == [
        *(("request answered", status, None) for status in (404, 405, 200)),
        *(("requests without a token answered", status, 4_999) for status in (404, 405, 200)),
    ]


def test_strangers_requests_are_counted_and_a_known_tokens_are_told_at_paths_that_need_none(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "TOLD_EVERY_S", 5.0)
    paths = ("/healthz", "/v1/nowhere", "/problems/none", "/v1/commands")
    token = api.token("viewer")
    name = api.get("/v1/whoami", token=token).json()["name"]
    with capture_logs() as lines:
        for path in paths * 20:
            api.get(path, token=None)
        for path in (*paths, "/v1/whoami"):
            api.get(path, token=token)

        def told(actor: str | None) -> list[int]:
            return [line["status"] for line in lines if line["event"] == "request answered" and line["actor"] == actor]

        deadline = time.monotonic() + 10
        while told(name)[-4:] != [404, 404, 405, 200] and time.monotonic() < deadline:
            time.sleep(0.01)  # it is told after it is answered
    assert told(name)[-5:] == [200, 404, 404, 405, 200]
    assert len(told(None)) <= 3 * 2  # statuses, and another 5 s that began


async def test_the_next_second_begins_anew() -> None:
    with capture_logs() as lines:
        log = AccessLog()
        for _ in range(2):
            note(log, 401)
            await asyncio.sleep(2 * access_log.TOLD_EVERY_S)
    assert [line["event"] for line in lines] == ["request answered"] * 2
