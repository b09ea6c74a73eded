"""Reads show a token its own writes, without being asked to; others' reads wait for nothing."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from api.own_writes import TOKENS_MAX, OwnWrites
from commands.writer.gateway import Answer
from domain.errors import Conflict, OperationFailed
from projections.definitions import SCHEMA
from tests.api.served import Api


@contextlib.contextmanager
def nothing_projected(api: Api) -> Iterator[Callable[[], None]]:
    """The projector can't commit, until it is let go on."""
    with psycopg.connect(api.conninfo) as held:
        held.execute(SQL("LOCK TABLE {}.progress IN EXCLUSIVE MODE").format(Identifier(SCHEMA)))
        yield held.rollback


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def reads(named: str, done: dict[str, Any]) -> dict[str, Callable[[httpx.Response], bool]]:
    """Every way to read of a tenant that was made, and whether the answer shows it."""
    return {
        f"/v1/tenants/{named}": lambda answer: answer.status_code == 200,
        f"/v1/tenants?q={named}": lambda answer: len(answer.json()["items"]) == 1,
        f"/v1/tenants?q={named}&count=true": lambda answer: answer.json()["count"] == 1,
        f"/v1/audit?resource=tenant/{named}": lambda answer: len(answer.json()["items"]) == 1,
        f"/v1/commands/{done['command']}": lambda answer: answer.json()["resource"]["name"] == named,
        f"/v1/history/tenant/{named}": lambda answer: len(answer.json()["items"]) == 1,
        f"/v1/events?stream=tenant/{named}": lambda answer: len(answer.json()["items"]) == 1,
        "/v1/capacity?by=tenant": lambda answer: answer.json()["position"] >= done["position"],
        "/v1/quotas": lambda answer: answer.json()["position"] >= done["position"],
    }


@pytest.mark.parametrize("way", ["alone", "batch", "waited for"])
def test_a_write_is_shown_to_who_wrote(api: Api, pool: ThreadPoolExecutor, named: str, way: str) -> None:
    token, other = api.token("admin"), api.token("admin")
    api.get("/v1/whoami", token=token), api.get("/v1/tenants", token=other)
    with nothing_projected(api) as go_on:
        if way == "batch":
            batch = {"commands": [{"command": "tenant.create", "name": named}]}
            done = api.done("POST", "/v1/commands", batch, token=token)["results"][0]
        else:
            headers = {"Prefer": "wait=5"} if way == "waited for" else {}
            done = api.done("POST", "/v1/tenants", {"name": named}, token=token, headers=headers)
        shown = reads(named, done)
        asked: dict[str, Future[httpx.Response]] = {path: pool.submit(api.get, path, token=token) for path in shown}
        assert api.get(f"/v1/tenants/{named}", token=other).status_code == 404, "others do not wait"
        go_on()
        for path, is_shown in shown.items():
            assert is_shown(asked[path].result()), path


def test_what_is_not_shown_in_time_is_read_as_it_is(api: Api, named: str) -> None:
    token = api.token("operator")
    api.get("/v1/whoami", token=token)
    with nothing_projected(api):
        done = api.done("POST", "/v1/tenants", {"name": named}, token=token)
        late = api.get(f"/v1/tenants/{named}", token=token)
        assert (late.status_code, late.json()["code"]) == (404, "not_found")
        assert 0 < int(late.headers["Berth-Position"]) < done["position"], "it is not there yet, and says so"
        assert api.get("/v1/tenants", token=token).status_code == 200


def test_a_dry_run_a_refusal_and_the_past_wait_for_nothing(api: Api, named: str) -> None:
    token = api.token("operator")
    done = api.done("POST", "/v1/tenants", {"name": named}, token=token)
    api.shown(done, "/v1/tenants", token=token)
    with nothing_projected(api):
        api.done("POST", "/v1/tenants", {"name": f"{named}-dry"}, token=token, params={"dry_run": "true"})
        refused = api.post("/v1/tenants", {"name": named}, token=token)
        # Had they to wait for these, they would have to wait for the whole time that is allowed.
        before = api.get("/v1/tenants", token=token).json()["position"]
        assert done["position"] <= before < int(refused.headers["Berth-Position"])
        path = f"/v1/tenants/{named}"
        assert api.get(path, token=token, params={"as_of": done["position"]}).status_code == 200


def an_answer(position: int, problem: Any = None) -> Answer:
    return Answer("id", 200, position, problem=problem)


class _Shown:
    """What `wait_until_shown` asks of a read model."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.waited_for: list[int] = []

    async def wait_for(self, position: int, *, timeout_s: float) -> None:
        self.waited_for.append(position)
        self.position = max(self.position, position)


async def test_only_what_was_done_and_is_not_shown_is_waited_for() -> None:
    own, model = OwnWrites(), _Shown(5)
    refused, failed = Conflict("no", "x").problem(), OperationFailed("op", "vm.create", "no").problem()
    own.note("ann", [an_answer(9), an_answer(7), an_answer(12, refused)], shown=5)
    own.note("bob", [an_answer(11, failed)], shown=5)
    own.note("eve", [an_answer(4)], shown=5)
    for token in ("ann", "bob", "eve", "ann"):
        await own.wait_until_shown(token, model)  # type: ignore[arg-type]
    assert model.waited_for == [9, 11]


def test_tokens_that_wrote_are_remembered_within_a_bound() -> None:
    own = OwnWrites()
    for n in range(TOKENS_MAX + 50):
        own.note(f"t{n}", [an_answer(n + 1)], shown=0)
    assert len(own._newest) == TOKENS_MAX
