"""Nobody slows down others by asking for much: an operator's change takes at most three times as long beside it."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from commands.writer.batch import BATCH_US_MAX
from tests.conftest import ROOT, endpoints_of, reachable_directory, start_supervisor, stop_supervisor
from tests.platform.client import Client
from tests.platform.crowd import CROWDS, SENDERS, UNITS

TENANTS = 200
ROUNDS = 100  # each two events for every tenant
CHANGES = 40
GROUPS = 60
SETTLED_S = 1.5
TIMES_AS_LONG_MAX = 3.0
DECIDING_S = BATCH_US_MAX / 1e6  # a batch is decided for so long at most, and whoever comes meanwhile waits for it
TRIES = 3


class Place(msgspec.Struct):
    url: str
    operator: Client
    viewer: str
    other_operator: str


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A platform whose log has some 40,000 events."""
    directory = reachable_directory("berth-shares-")
    data = directory / "data"
    process = start_supervisor(data)
    try:
        endpoints = endpoints_of(data, process)
        admin = Client(endpoints["http"], Path(endpoints["token_file"]).read_text().strip())
        batch(admin, [{"command": "tenant.create", "name": f"t{n}"} for n in range(TENANTS)])
        for round in range(ROUNDS):
            changes = [
                {"command": "tenant.update", "tenant": f"t{n}", "description": f"{round}"} for n in range(TENANTS)
            ]
            batch(admin, changes)
        batch(admin, [{"command": "group.create", "name": "std"}])
        hosts = [
            {"command": "host.register", "name": f"h{n}", "group": "std", "capacity": {"cpu": 8}} for n in range(1_000)
        ]
        batch(admin, hosts)
        for n in range(GROUPS):
            batch(admin, [{"command": "group.create", "name": f"g{n}"}])
            hosts = [
                {"command": "host.register", "name": f"h{n}-{m}", "group": f"g{n}", "capacity": {"cpu": 64}}
                for m in range(20)
            ]
            batch(admin, hosts)
            batch(admin, [{"command": "quota.set", "group": f"g{n}", "tenant": "t0", "limits": {"cpu": 100_000}}])
        secrets = {
            name: admin.made("/v1/tokens", {"name": name, "role": role})["secret"]
            for name, role in (("operator", "operator"), ("auditor", "auditor"), ("other-operator", "operator"))
        }
        operator = Client(endpoints["http"], secrets["operator"])
        changed(operator, times=CHANGES)  # warms all up
        yield Place(endpoints["http"], operator, secrets["auditor"], secrets["other-operator"])
    finally:
        stop_supervisor(process)
        shutil.rmtree(directory, ignore_errors=True)


def batch(client: Client, commands: list[dict[str, Any]]) -> None:
    answer = client.post("/v1/commands", {"commands": commands, "atomic": False})
    assert {result["status"] for result in answer.json()["results"]} <= {200, 201}, answer.text[:500]


def changed(operator: Client, *, times: int) -> float:
    """How long a change takes: the median."""
    took_s = []
    for n in range(times):
        began = time.perf_counter()
        answer = operator.patch("/v1/tenants/t1", {"description": f"changed {n}"})
        took_s.append(time.perf_counter() - began)
        assert answer.status_code == 200, answer.text
    return statistics.median(took_s)


@contextmanager
def a_crowd(place: Place, what: str) -> Iterator[None]:
    # A viewer's large bodies are not read at all: another operator's are.
    token = place.other_operator if what in SENDERS else place.viewer
    crowd = subprocess.Popen(
        [sys.executable, "-m", "tests.platform.crowd", place.url, token, what],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(SETTLED_S)  # until its requests come
        yield
        assert crowd.poll() is None
    finally:
        crowd.kill()
        crowd.wait()


@pytest.mark.parametrize("what", [*CROWDS, *SENDERS])
def test_a_change_takes_at_most_three_times_as_long_beside_one_others(place: Place, what: str) -> None:
    tries = (measured(place, what) for _ in range(TRIES))
    assert any(beside_s <= TIMES_AS_LONG_MAX * alone_s + unit_s + DECIDING_S for alone_s, beside_s, unit_s in tries)


def measured(place: Place, what: str) -> tuple[float, float, float]:
    """How long a change takes alone and beside a crowd, and how long a unit of the crowd takes alone, if it is one that
    takes about as long as one may. What else the machine does makes it all more, never less."""
    before_s = changed(place.operator, times=CHANGES)
    unit_s = min(sent(place, what) for _ in range(3)) if what in UNITS else 0.0
    with a_crowd(place, what):
        beside_s = changed(place.operator, times=CHANGES)
    time.sleep(SETTLED_S)  # until what it sent is decided
    after_s = changed(place.operator, times=CHANGES)
    print(f"{what}: {before_s * 1e3:.1f}, {beside_s * 1e3:.1f}, {after_s * 1e3:.1f} ms; {unit_s * 1e3:.1f} ms a unit")
    return max(before_s, after_s), beside_s, unit_s


def sent(place: Place, what: str) -> float:
    """How long the sender's request takes, where nobody else asks for anything."""
    path, body, _, status = SENDERS[what]
    client = Client(place.url, place.other_operator)
    began = time.perf_counter()
    answer = client.http.post(path, content=body, headers={"Content-Type": "application/json"})
    took_s = time.perf_counter() - began
    assert answer.status_code == status, answer.text
    return took_s
