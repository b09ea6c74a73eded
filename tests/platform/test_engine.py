"""The engine as a process of its own, as `berth up` runs it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import endpoints_of
from tests.platform.client import Client, Site

Start = Callable[..., "subprocess.Popen[bytes]"]
VMS = 120
SENDERS = 8


def test_an_engine_that_is_killed_leaves_the_api_and_a_definite_answer_to_every_command(
    data: Path, supervisors: Start, eventually: Callable[..., Any]
) -> None:
    process = supervisors(data)
    endpoints = endpoints_of(data, process)
    client = Client(endpoints["http"], Path(endpoints["token_file"]).read_text().strip())
    site = Site(client, hosts=1, cpu=10_000, quota_cpu=10_000)

    def pids() -> dict[str, int]:
        return dict(json.loads((data / "endpoints.json").read_text())["pids"])

    def provision(n: int) -> httpx.Response:
        if n == VMS // 4:  # while the others' are under way
            os.kill(before["engine"], signal.SIGKILL)
        return client.post("/v1/vms", site.vm(f"vm-{n}"))

    before = pids()
    with ThreadPoolExecutor(SENDERS) as crowd:
        answers = list(crowd.map(provision, range(VMS)))
    assert {answer.status_code for answer in answers} <= {202, 503}
    assert pids()["api"] == before["api"]
    assert pids()["engine"] != before["engine"]

    made = set()
    for n, answer in enumerate(answers):
        found = answer.status_code
        if found == 503:
            found = client.get(f"/v1/commands/{answer.json()['command']}").status_code
            assert found in (200, 404)
        if found != 404:
            made.add(f"vm-{n}")
    page = client.get("/v1/vms", tenant=site.tenant, limit=1000, min_position=client.end()).json()
    listed = {vm["name"] for vm in page["items"]}
    assert listed == made

    text = httpx.get(f"{endpoints['http']}/metrics").text
    assert text.count("# TYPE berth_log_position gauge") == 1
    (position,) = (line for line in text.splitlines() if line.startswith("berth_log_position "))
    assert float(position.split(" ")[1]) > 0
    assert 'berth_commands_total{command="vm.provision",outcome="accepted"} ' in text
