"""What one token may have under way at once, and that others are served meanwhile."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import parameters
from api.app import ENDPOINTS
from api.budget import LISTENERS, PAST, READS, SCANS, Budget, Slots, budget_of
from api.parameters import AS_OF, LIMIT, SEARCH
from api.problems import TooMuchAtOnce
from tests.api.served import Api

SMALL = Budget(what="things", of_token=2, in_all=3, waiting=2, wait_s=30.0)


async def begun(slots: Slots, token: str) -> "asyncio.Task[None]":
    """Someone who waits for a place, and keeps it."""
    task = asyncio.create_task(slots.take(token))
    await asyncio.sleep(0)
    return task


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_token_waits_when_it_has_as_many_as_it_may_and_goes_on_when_one_is_over() -> None:
    slots = Slots(SMALL)
    await slots.take("ann")
    await slots.take("ann")
    third = await begun(slots, "ann")
    assert not third.done()
    slots.give_back("ann")
    await third


async def test_what_one_token_waits_for_keeps_no_other_waiting() -> None:
    slots = Slots(SMALL)
    await slots.take("ann")
    await slots.take("ann")
    waiting = await begun(slots, "ann")
    await slots.take("bob")
    assert not waiting.done()
    waiting.cancel()


async def test_tokens_take_turns_when_all_slots_are_taken() -> None:
    """Who has many waiting comes once, and then everybody else."""
    slots = Slots(SMALL)
    for token in ("ann", "ann", "bob"):
        await slots.take(token)
    order: list[str] = []

    async def take(token: str) -> None:
        await slots.take(token)
        order.append(token)

    tasks = [asyncio.create_task(take(token)) for token in ("cyd", "cyd", "dan")]
    await settled()
    for token in ("ann", "ann", "bob"):
        slots.give_back(token)
        await settled()
    await asyncio.gather(*tasks)
    assert order == ["cyd", "dan", "cyd"]


async def test_those_beyond_the_line_are_refused_at_once() -> None:
    slots = Slots(SMALL)
    for _ in range(2):
        await slots.take("ann")
    waiting = [await begun(slots, "ann") for _ in range(2)]
    with pytest.raises(TooMuchAtOnce) as refusal:
        await slots.take("ann")
    assert (refusal.value.status, refusal.value.code) == (429, "rate_limited")
    for one in waiting:
        one.cancel()


async def test_who_waits_too_long_is_refused() -> None:
    slots = Slots(Budget(what="things", of_token=1, waiting=1, wait_s=0.01))
    await slots.take("ann")
    with pytest.raises(TooMuchAtOnce):
        await slots.take("ann")
    slots.give_back("ann")
    await slots.take("ann")  # and is out of the way then


@pytest.mark.parametrize("at_the_same_moment", [False, True])
async def test_who_goes_while_it_waits_takes_no_place_along(at_the_same_moment: bool) -> None:
    slots = Slots(Budget(what="things", of_token=1, waiting=2, wait_s=30.0))
    await slots.take("ann")
    gone, next_one = await begun(slots, "ann"), await begun(slots, "ann")
    if at_the_same_moment:
        slots.give_back("ann")
        gone.cancel()
    else:
        gone.cancel()
        await settled()
        slots.give_back("ann")
    await next_one
    assert gone.cancelled()
    slots.give_back("ann")
    assert slots.take_at_once("ann")


async def test_tokens_that_have_nothing_under_way_are_forgotten() -> None:
    slots = Slots(Budget(what="things", of_token=1))
    for n in range(100):
        await slots.take(f"t{n}")
        slots.give_back(f"t{n}")
    await slots.take("ann")
    with pytest.raises(TooMuchAtOnce):
        await slots.take("ann")
    slots.give_back("ann")
    assert not slots._by_token


def test_every_search_through_the_log_is_one_of_few() -> None:
    budgets = {one.path: one.budget for one in ENDPOINTS if one.method == "GET"}
    for path in ("/v1/events", "/v1/audit", "/v1/history/{kind}/{name:path}"):
        assert budgets[path] is SCANS
    assert budgets["/v1/events/stream"] is LISTENERS
    assert budgets["/v1/vms"] is READS


@given(
    names=st.lists(
        st.tuples(st.sampled_from(["as_of", "q", "limit"]), st.lists(st.booleans(), min_size=5, max_size=5))
    ),
    value=st.sampled_from(["=5", "=%35"]),
)
def test_however_a_name_is_written_it_counts_for_what_it_is_read_as(
    names: list[tuple[str, list[bool]]], value: str
) -> None:
    def written(name: str, encoded: list[bool]) -> str:
        return "".join(f"%{ord(c):02x}" if is_encoded else c for c, is_encoded in zip(name, encoded, strict=False))

    raw = "&".join(written(name.ljust(5)[: len(name)], encoded) + value for name, encoded in dict(names).items())
    scope = {"query_string": raw.encode(), "headers": []}
    declared = {one.name: one for one in (AS_OF, SEARCH, LIMIT)}
    expected = PAST if "as_of" in parameters.query(scope, declared) else READS
    assert budget_of(READS, scope) is expected


@pytest.mark.parametrize("accept", [b"text/csv", b" TEXT/CSV ; q=0.5", b"text/*;q=1, application/json;q=0.1"])
def test_a_table_is_one_however_it_is_asked_for(accept: bytes) -> None:
    assert budget_of(READS, {"query_string": b"", "headers": [(b"accept", accept)]}) is SCANS


def test_the_next_page_of_a_table_is_named_once_however_this_one_was(api: Api, named: str) -> None:
    for n in range(3):
        done = api.done("POST", "/v1/tenants", {"name": f"{named}-{n}"})
    first = api.shown(done, "/v1/tenants", params={"q": named, "limit": 1}).json()
    query = f"q={named}&limit=1&c%75rsor={first['next_cursor']}"
    second = api.get(f"/v1/tenants?{query}", headers={"Accept": "text/csv"})
    assert f"{named}-1" in second.text
    third = api.get(second.links["next"]["url"], headers={"Accept": "text/csv"})
    assert f"{named}-2" in third.text


@contextmanager
def a_listener(url: str, token: str) -> Iterator[int]:
    """The status of an event stream, which stays open."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        request = f"GET /v1/events/stream HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(request.encode())
        yield int(connection.recv(12)[9:12])


def test_a_token_listens_a_hundred_times_and_others_beside_it(api: Api) -> None:
    greedy, modest = api.token("viewer"), api.token("viewer")
    with ExitStack() as stack:
        listening = [stack.enter_context(a_listener(api.url, greedy)) for _ in range(LISTENERS.of_token)]
        assert set(listening) == {200}
        refused = httpx.get(f"{api.url}/v1/events/stream", headers={"Authorization": f"Bearer {greedy}"})
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 0
        assert stack.enter_context(a_listener(api.url, modest)) == 200


def test_as_many_reads_at_once_as_a_program_has_connections_are_answered(api: Api) -> None:
    """More than may be under way wait; nobody is refused for sending 60 at once."""
    viewer = api.token("viewer")

    async def read_all() -> list[int]:
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(base_url=api.url, limits=limits, timeout=60) as client:
            headers = {"Authorization": f"Bearer {viewer}"}
            answers = await asyncio.gather(*(client.get("/v1/hosts", headers=headers) for _ in range(60)))
            return [answer.status_code for answer in answers]

    assert set(asyncio.run(read_all())) == {200}
