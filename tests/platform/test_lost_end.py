"""A log that lost what was committed: noticed everywhere, told, and healed without a word that is not the log's."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import ROOT, endpoints_of
from tests.losing import lose_last_command
from tests.platform.client import Client
from workers import embedded


def components(url: str) -> dict[str, Any]:
    found: dict[str, Any] = {one["name"]: one for one in httpx.get(f"{url}/readyz").json()["components"]}
    return found


@pytest.mark.parametrize("written_on", [False, True])
def test_a_log_that_lost_its_last_command_is_noticed_and_healed(
    data: Path, supervisors: Callable[..., Any], eventually: Callable[..., Any], written_on: bool
) -> None:
    endpoints = endpoints_of(data, supervisors(data))
    url = endpoints["http"]
    client = Client(url, Path(endpoints["token_file"]).read_text().strip())
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert httpx.get(f"{url}/readyz/relay").status_code == 200
    for n in range(3):
        assert client.post("/v1/tenants", {"name": f"t-{n}"}).status_code == 201
    end = client.end()
    eventually(lambda: lag_of(url, "relay") == 0)

    if written_on:  # before the relay has looked
        os.kill(endpoints["pids"]["relay"], signal.SIGSTOP)
    password = (data / "passwords" / embedded.OWNER).read_text().strip()
    owner = make_conninfo(endpoints["postgres"], user=embedded.OWNER, password=password)
    assert lose_last_command(owner) < end

    def writes_again() -> bool:
        with suppress(httpx.HTTPError):
            return client.post("/v1/tenants", {"name": "t-new"}, Idempotency_Key="new").status_code == 201
        return False

    if written_on:
        eventually(writes_again, within_s=30)
        while client.end() < end:
            client.post("/v1/tenants", {"name": f"t-{client.end()}"})
        os.kill(endpoints["pids"]["relay"], signal.SIGCONT)

    eventually(lambda: "relay rebuild" in components(url)["relay"]["reason"], within_s=20)
    refused = httpx.get(f"{url}/readyz")
    assert refused.status_code == 503
    assert refused.json()["code"] == "unavailable"
    assert "relay: stopped" in refused.json()["detail"]
    assert httpx.get(f"{url}/readyz/relay").status_code == 503
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert 'berth_component_ready{component="relay"} 0.0' in httpx.get(f"{url}/metrics").text

    if not written_on:
        eventually(writes_again, within_s=30)
    eventually(lambda: client.post("/v1/verify", {}).status_code == 200, within_s=20)
    found = client.post("/v1/verify", {}).json()
    assert (found["violations"], found["differences"]) == ([], [])
    names = [one["name"] for one in client.get("/v1/tenants", min_position=client.end()).json()["items"]]
    assert "t-2" not in names
    assert "t-new" in names

    rebuild = [sys.executable, "-m", "cli.main", "relay", "rebuild", "--yes", "--data", str(data)]
    subprocess.run(rebuild, cwd=ROOT, check=True, timeout=60)
    eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, within_s=20)
    assert lag_of(url, "relay") == 0
    assert json.loads((data / "endpoints.json").read_text())["http"] == url


def lag_of(url: str, of: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"berth_{of}_lag_events "))
