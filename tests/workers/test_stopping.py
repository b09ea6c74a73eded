"""Ctrl-C while somebody is served: whoever waits gets an end, and every process its time."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, endpoints_of
from tests.platform.client import Client, Site

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., Any]


@pytest.mark.parametrize("engine", ["remote", "local"])
def test_a_stop_ends_open_streams_and_answers_whoever_waits(
    data: Path, supervisors: Start, eventually: Eventually, engine: str
) -> None:
    process = supervisors(data, BERTH_SIM_DELAY_MS="60000", BERTH_ENGINE=engine)
    endpoints = endpoints_of(data, process)
    client = Client(endpoints["http"], Path(endpoints["token_file"]).read_text().strip())
    site = Site(client)
    listening: list[str] = []

    def listen() -> str:
        with client.http.stream("GET", "/v1/events/stream", params={"after": 0}) as stream:
            for line in stream.iter_lines():
                listening.append(line)
        return "ended"  # a stream that is cut off raises

    with ThreadPoolExecutor(3) as crowd:
        streams = [crowd.submit(listen) for _ in range(2)]
        waiting = crowd.submit(client.post, "/v1/vms", site.vm(), Prefer="wait=60")
        eventually(lambda: listening.count("event: vm.scheduled") == 2)
        process.terminate()
        assert process.wait(30) == 0
        assert [stream.result(10) for stream in streams] == ["ended", "ended"]
        answer = waiting.result(10)
    assert answer.status_code == 202, answer.text
    assert not answer.json()["replayed"] and "berth-replayed" not in answer.headers
    assert answer.json()["operation"]
    assert "process killed" not in data.with_suffix(".log").read_text()
    logs = {file.name: file.read_text() for file in (data / "log").iterdir()}
    assert [name for name, text in logs.items() if "Traceback" in text] == []


def test_a_stop_waits_for_no_thread(eventually: Eventually, tmp_path: Path) -> None:
    """As when the past replays a long log for somebody."""
    ready = tmp_path / "ready"
    program = f"""
import asyncio, pathlib, time
from workers import processes

async def work():
    pathlib.Path({str(ready)!r}).touch()
    await asyncio.to_thread(time.sleep, 60)

asyncio.run(processes._until_told_to_stop(work()))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        eventually(ready.exists)
        process.terminate()
        assert process.wait(30) == 0  # half of what the thread takes
    finally:
        process.kill()
