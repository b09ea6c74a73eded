"""What anybody may ask for is made seldom, however many ask."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.brief_cache import BriefCache
from tests.api.served import Api


async def test_whoever_asks_at_once_gets_what_is_made_once() -> None:
    made = 0

    async def make() -> int:
        nonlocal made
        made += 1
        await asyncio.sleep(0)
        return made

    kept = BriefCache(make, for_s=60.0)
    assert await asyncio.gather(*(kept.get() for _ in range(100))) == [1] * 100
    assert await kept.get() == 1
    anew = BriefCache(make, for_s=0.0)
    assert [await anew.get(), await anew.get()] == [2, 3]


async def test_whoever_goes_leaves_it_to_the_others_and_a_failure_is_not_kept() -> None:
    go_on, fails = asyncio.Event(), True

    async def make() -> str:
        await go_on.wait()
        if fails:
            raise OSError("not now")
        return "made"

    kept = BriefCache(make, for_s=60.0)
    first, second = asyncio.create_task(kept.get()), asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    with pytest.raises(OSError, match="not now"):
        await second
    fails = False
    assert await kept.get() == "made"


def test_metrics_are_made_once_a_second_for_all_who_ask(api: Api) -> None:
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda _: api.get("/metrics", token=None).text, range(64)))
    # What is counted changes with each request, so that equal texts are the same text.
    assert len(set(told)) < 16
