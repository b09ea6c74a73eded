"""Readiness by component, with the reason: what is only away for a moment is ready, what stays away is told."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import endpoints_of
from tests.platform.client import Client


def test_what_stands_still_is_told_and_all_is_well_again_by_itself(
    data: Path, supervisors: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    endpoints = endpoints_of(data, supervisors(data))
    url = endpoints["http"]

    def component(name: str) -> tuple[int, str]:
        answer = httpx.get(f"{url}/readyz/{name}")
        (found,) = answer.json()["components"]
        return answer.status_code, found["state"]

    def of(name: str) -> int:
        return int(json.loads((data / "endpoints.json").read_text())["pids"][name])

    ready = httpx.get(f"{url}/readyz")
    assert ready.status_code == 200, ready.text
    names = {one["name"] for one in ready.json()["components"]}
    assert names == {"api", "engine", "nats", "projector", "relay", "dispatcher", "past"}
    assert httpx.get(f"{url}/readyz/nobody").status_code == 404

    os.kill(of("relay"), signal.SIGSTOP)
    eventually(lambda: component("relay") == (503, "silent"), within_s=40)
    assert "relay: silent" in httpx.get(f"{url}/readyz").json()["detail"]
    assert component("api") == (200, "ok")
    assert httpx.get(f"{url}/healthz").status_code == 200
    os.kill(of("relay"), signal.SIGCONT)
    eventually(lambda: component("relay") == (200, "ok"))

    file = data / "nats" / "dispatcher.json"
    right = file.read_text()
    file.write_text(json.dumps({"user": "dispatcher", "password": "wrong"}))
    os.kill(of("dispatcher"), signal.SIGKILL)
    eventually(lambda: component("dispatcher") == (503, "troubled"), within_s=40)
    detail = httpx.get(f"{url}/readyz").json()["detail"]
    assert "Authorization Violation" in detail
    assert "127.0.0.1" not in detail
    file.write_text(right)
    os.kill(of("dispatcher"), signal.SIGKILL)
    eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200, within_s=40)

    client = Client(url, Path(endpoints["token_file"]).read_text().strip())
    assert client.post("/v1/tenants", {"name": "acme"}).status_code == 201
