"""How long nothing is answered when the leading engine is killed, or stopped without a word, and a standby takes over.

Clients ask all the time, each for a VM of its own; what counts is the time from the signal to the first answer to a
request that was sent after it. Of several turns the worst is told.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import berth
from bench.berth import Berth
from bench.over_http import ask
from bench.row import Row
from bench.site import a_vm

TURNS = 3
ASK_EVERY_S = 0.05
GIVE_UP_S = 20.0
TARGETS_S = {signal.SIGKILL: ("kill -9", 1.0), signal.SIGSTOP: ("SIGSTOP", 3.0)}


def measure(*, is_short: bool) -> list[Row]:
    rows = []
    with berth.running(hosts=100, BERTH_STANDBY="1") as platform:
        numbers = iter(range(10**9))
        for number, (name, target_s) in list(TARGETS_S.items())[: 1 if is_short else None]:
            worst_s = max(_silent_s(platform, number, numbers) for _ in range(1 if is_short else TURNS))
            rows.append(Row(f"take-over after {name}", worst_s, "s", f"< {target_s:g} s", worst_s < target_s))
    return rows


def _silent_s(platform: Berth, number: signal.Signals, numbers: Iterator[int]) -> float:
    """Do that to the leader, and leave the platform as it was: with one that leads and one that stands by."""
    leader = _leader(platform)
    pid = platform.pids()[leader]
    answered: list[float] = []
    os.kill(pid, number)
    began = time.monotonic()
    asking: list[threading.Thread] = []
    while not answered and time.monotonic() < began + GIVE_UP_S:
        asking.append(threading.Thread(target=_ask, args=(platform, next(numbers), answered), daemon=True))
        asking[-1].start()
        time.sleep(ASK_EVERY_S)
    assert answered, f"nobody took over within {GIVE_UP_S} s"
    silent_s = min(answered) - began
    if number == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    for thread in asking:
        thread.join()
    _await_standby(platform, leader)
    return silent_s


def _ask(platform: Berth, n: int, answered: list[float]) -> None:
    try:
        status, _ = ask(platform.port, "POST", "/v1/vms", platform.token, a_vm(n))
    except OSError:
        return
    if status == 202:
        answered.append(time.monotonic())


def _leader(platform: Berth) -> str:
    """Who said last that it leads."""
    engines = [name for name in platform.pids() if name.startswith("engine")]
    return max(engines, key=lambda name: _last(platform.data / "log" / f"{name}.log", "leading"))


def _await_standby(platform: Berth, former: str) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    file = platform.data / "log" / f"{former}.log"
    while _last(file, "standing by") <= _last(file, "leading"):
        assert time.monotonic() < deadline, f"{former} does not stand by again"
        time.sleep(0.05)


def _last(file: Path, event: str) -> str:
    """When a log last told an event."""
    told = [json.loads(line) for line in file.read_text().splitlines() if f'"{event}"' in line and line[:1] == "{"]
    return max((line["timestamp"] for line in told if line.get("event") == event), default="")
