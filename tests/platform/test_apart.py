"""Engine and API as processes of their own, reached over NATS, with two API processes beside each other."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import ROOT, Database, NatsServer
from tests.platform.client import Client, Site
from workers import child, embedded

TOKEN = "berth_a-token-of-this-test-alone"  # the test makes the file from which the engine takes its hash


@pytest.fixture
def start(database: Database, nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[..., None]]:
    given = conninfo_to_dict(database.service)
    password = tmp_path / "password"
    password.write_text(str(given.pop("password")))
    token = tmp_path / "admin.token"
    token.write_text(TOKEN)
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, user: str | None, **variables: str) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("BERTH_")}
        settings = {
            "BERTH_POSTGRES": make_conninfo("", **given),
            "BERTH_POSTGRES_PASSWORD_FILE": str(password),
            "BERTH_NATS": nats_server.url,
            "BERTH_ENGINE": "remote",
            "BERTH_ADMIN_TOKEN_FILE": str(token),
            **({"BERTH_NATS_CREDENTIALS": str(nats_server.credentials[user])} if user else {}),
        }
        with open(tmp_path / f"{name}.log", "ab") as log:
            started.append(
                child.spawn(
                    [sys.executable, "-m", "workers", name],
                    log=log,
                    signal_at_our_death=signal.SIGTERM,
                    environment={**inherited, **settings, **variables},
                    directory=ROOT,
                )
            )

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(15)


def test_two_apis_and_one_engine_answer_as_one(start: Callable[..., None], eventually: Callable[..., Any]) -> None:
    ports = [embedded.free_port() for _ in range(2)]
    start("engine", "engine")
    for port in ports:
        start("api", "api", BERTH_PORT=str(port))
    for name, user in (("projector", None), ("dispatcher", "dispatcher"), ("controller", "controller-vm")):
        start(name, user)

    def is_ready(port: int) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    for port in ports:
        eventually(lambda port=port: is_ready(port), within_s=60)
    one, other = (Client(f"http://127.0.0.1:{port}", TOKEN) for port in ports)
    site = Site(one)
    first = one.post("/v1/vms", site.vm(), Prefer="wait=20", Idempotency_Key="k-1")
    assert (first.status_code, first.json()["resource"]["state"]) == (201, "active")
    again = other.post("/v1/vms", site.vm(), Prefer="wait=20", Idempotency_Key="k-1")
    assert (again.json()["replayed"], again.json()["command"]) == (True, first.json()["command"])
    shown = other.get(f"/v1/vms/{site.tenant}/web-1", min_position=int(first.headers["Berth-Position"]))
    assert shown.json() == first.json()["resource"]
