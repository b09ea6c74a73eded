"""Guessed tokens cost what few questions cost, however many they are; a good one does not wait behind them."""

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from api import token_lookups
from api.token_lookups import Lane, LookedUp, TokenLookUps
from domain.errors import Unavailable
from projections.queries import TokenRow
from tests.api.served import Api

NONE = LookedUp(None, is_current=True)


class Asked:
    """What is asked in one question, each answered when it is let go."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.may_answer = asyncio.Event()

    async def find(self, hashes: Sequence[str]) -> dict[str, LookedUp]:
        self.questions.append(list(hashes))
        await self.may_answer.wait()
        return dict.fromkeys(hashes, NONE)


async def test_all_that_wait_are_looked_up_in_one_question_after_the_one_under_way() -> None:
    asked = Asked()
    lane = Lane(asked.find, at_once=64)
    first = asyncio.create_task(lane.ask("first"))
    while not asked.questions:
        await asyncio.sleep(0)
    others = [asyncio.create_task(lane.ask(f"h{n % 50}")) for n in range(200)]
    await asyncio.sleep(0)
    asked.may_answer.set()
    assert await asyncio.gather(first, *others) == [NONE] * 201
    assert asked.questions == [["first"], [f"h{n}" for n in range(50)]]


async def test_who_comes_during_a_question_is_told_nothing_older_than_that() -> None:
    asked = Asked()
    lane = Lane(asked.find, at_once=64)
    tasks = [asyncio.create_task(lane.ask("same"))]
    while not asked.questions:
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(lane.ask("same")))
    await asyncio.sleep(0)
    asked.may_answer.set()
    await asyncio.gather(*tasks)
    assert asked.questions == [["same"], ["same"]]


async def test_as_many_turns_as_were_said_in_a_time_and_no_more() -> None:
    asked = Asked()
    asked.may_answer.set()
    lane = Lane(asked.find, at_once=10, every_s=0.02)
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(lane.ask(f"h{n}") for n in range(50)))
    assert [len(question) for question in asked.questions] == [10] * 5
    assert asyncio.get_running_loop().time() - began >= 4 * 0.02
    await lane.stop()


async def test_who_waits_too_long_or_comes_when_too_many_wait_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_lookups, "WAIT_S_MAX", 0.05)
    monkeypatch.setattr(token_lookups, "WAITING_MAX", 2)
    asked = Asked()
    lane = Lane(asked.find, at_once=1)
    answers = await asyncio.gather(*(lane.ask(f"h{n}") for n in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5
    asked.may_answer.set()
    assert await lane.ask("h9") == NONE
    await lane.stop()


async def test_who_asked_is_told_when_a_question_fails_or_the_process_stops() -> None:
    async def fail(hashes: Sequence[str]) -> dict[str, LookedUp]:
        raise OSError("the database is away")

    with pytest.raises(OSError, match="away"):
        await Lane(fail, at_once=1).ask("h")
    lane = Lane(Asked().find, at_once=1)
    tasks = [asyncio.create_task(lane.ask(f"h{n}")) for n in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await lane.stop()
    for task in tasks:
        with pytest.raises(Unavailable):
            await task


class Model:
    """A read model of one token, and a log that nothing is written to; both count what they are asked."""

    position, at = 7, 0

    def __init__(self) -> None:
        self.queries = self.ends = self.follows = 0

    async def tokens_by_hash(self, hashes: Sequence[str]) -> dict[str, TokenRow]:
        self.queries += 1
        await asyncio.sleep(0)
        return {hash: TokenRow("ann", "admin", None, hash, "active", None) for hash in hashes if hash == "good"}

    async def wait_for(self, position: int, *, timeout_s: float) -> None: ...

    def end(self) -> int:
        self.ends += 1
        return self.position

    def follow(self, position: int, at: int, limit: int) -> list[None]:
        self.follows += 1
        return []


async def test_a_good_token_that_was_not_met_yet_waits_for_no_guess() -> None:
    """After a restart: while the guesses' turns are all taken for seconds to come, it is found at once."""
    model = Model()
    look_ups = TokenLookUps(model, model, began_at=lambda: 0)  # type: ignore[arg-type]
    guesses = [asyncio.create_task(look_ups.look_up(f"h{n}", True)) for n in range(2_000)]
    await asyncio.sleep(0)
    found, is_current = await look_ups.look_up("good", False)
    assert (found is not None and found.name, is_current) == ("ann", True)
    assert sum(guess.done() for guess in guesses) <= token_lookups.AT_END_AT_ONCE
    assert model.ends <= 1
    for guess in guesses:
        guess.cancel()
    await look_ups.stop()


def test_guesses_of_many_connections_cost_few_questions(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 at once, each with tokens of its own: the log's end is asked for all of them together."""
    asked = 0
    find = TokenLookUps._find_at_end

    async def counting(self: TokenLookUps, hashes: Sequence[str]) -> dict[str, LookedUp]:
        nonlocal asked
        asked += 1
        return await find(self, hashes)

    monkeypatch.setattr(TokenLookUps, "_find_at_end", counting)

    async def guess() -> list[int]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=api.url, limits=limits, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.get("/v1/whoami", headers={"Authorization": f"Bearer guess-{n}"}) for n in range(640))
            )
            return [answer.status_code for answer in answers]

    assert asyncio.run(guess()) == [401] * 640
    assert asked < 640 / 8
