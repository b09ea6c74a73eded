"""Whoever looks through the log leaves their turn to those who ask for little."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.turns import Turns
from tests.api.served import ADMIN, Api, served
from tests.conftest import Database

# In a process of its own: its threads would take the turns of the server, which is in a thread of the test run.
LOAD = """
import sys, threading, urllib.request
url, token, times, paths = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]

def look(path):
    while True:
        request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read(200_000 if "stream" in path else -1)
        told.set()

told = threading.Event()
for path in paths * times:
    threading.Thread(target=look, args=(path,), daemon=True).start()
told.wait()
print("loaded", flush=True)
sys.stdin.read()
"""


@contextmanager
def load(url: str, *paths: str, times: int) -> Iterator[None]:
    command = [sys.executable, "-c", LOAD, url, ADMIN, str(times), *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as loading:
        assert loading.stdout is not None
        assert loading.stdout.readline() == b"loaded\n"
        yield
        assert loading.poll() is None, "it asks all the while"
        loading.kill()


@pytest.mark.parametrize(
    ("times", "path"),
    [(8, "/v1/events?q=nothing-of-this&count=true"), (30, "/v1/events/stream?after=0"), (16, "/metrics")],
)
def test_an_operator_is_answered_beside_those_who_look_through_the_log(
    database: Database, times: int, path: str
) -> None:
    with served(database.service) as url:
        api = Api(url, database.service)
        names = [f"t-{n:04}" for n in range(2_000)]
        for first in range(0, len(names), 1_000):
            commands = [{"command": "tenant.create", "name": name} for name in names[first : first + 1_000]]
            assert api.post("/v1/commands", {"commands": commands}).status_code == 200
        alone = changed(api, 40)
        with load(url, path, times=times):
            beside = changed(api, 40)
    # On two cores, one of them the load's: 3 to 10 times. Without turns it was 90 (words, metrics) and 1,200 times.
    assert beside < 25 * max(alone, 0.002), f"{alone * 1000:.1f} ms alone, {beside * 1000:.1f} ms beside them"


def changed(api: Api, times: int) -> float:
    """Seconds until a change is answered, the median."""
    took: list[float] = []
    for n in range(times):
        began = time.perf_counter()
        assert api.call("PATCH", "/v1/tenants/t-0000", {"description": f"{n}"}).status_code == 200
        took.append(time.perf_counter() - began)
    return statistics.median(took)


async def test_a_turn_makes_one_at_least_and_ends_in_time() -> None:
    async def slow(number: int) -> int:
        time.sleep(0.001)
        return number

    async def fast(number: int) -> int:
        return number

    turns, rest = Turns(), iter(range(3))
    assert [await turns.take(rest, slow) for _ in range(4)] == [[0], [1], [2], []]
    assert await turns.take(iter(range(10)), fast) == list(range(10))
