"""Engine and API as processes of their own, reached over NATS, with two API processes beside each other."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import ROOT, Database, NatsServer
from tests.platform.client import Client, Site
from workers import child, embedded

Start = Callable[..., "subprocess.Popen[bytes]"]

TOKEN = "berth_a-token-of-this-test-alone"  # the test makes the file from which the engine takes its hash


@pytest.fixture
def start(database: Database, nats_server: NatsServer, tmp_path: Path) -> Iterator[Start]:
    given = conninfo_to_dict(database.service)
    password = tmp_path / "password"
    password.write_text(str(given.pop("password")))
    token = tmp_path / "admin.token"
    token.write_text(TOKEN)
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, user: str | None, **variables: str) -> subprocess.Popen[bytes]:
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
        return started[-1]

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.terminate()
    for process in started:
        process.wait(15)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz/api").status_code == 200
    except httpx.TransportError:
        return False


def test_two_apis_and_one_engine_answer_as_one(start: Start, eventually: Callable[..., Any]) -> None:
    ports = [embedded.free_port() for _ in range(2)]
    start("engine", "engine")
    for port in ports:
        start("api", "api", BERTH_PORT=str(port))
    for name, user in (("projector", None), ("dispatcher", "dispatcher"), ("controller", "controller-vm")):
        start(name, user)

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


def test_those_who_come_at_once_are_all_let_in(start: Start, eventually: Callable[..., Any]) -> None:
    """An API process does not know how much room an engine elsewhere has, so it keeps nobody out."""
    port = embedded.free_port()
    start("engine", "engine")
    start("api", "api", BERTH_PORT=str(port))
    start("projector", None)
    eventually(lambda: is_ready(port), within_s=60)
    client = Client(f"http://127.0.0.1:{port}", TOKEN)
    with ThreadPoolExecutor(16) as crowd:
        made = crowd.map(lambda n: client.post("/v1/tenants", {"name": f"t{n}"}).status_code, range(160))
        assert set(made) == {201}


def test_a_standby_takes_over_from_a_killed_and_from_a_paused_leader(
    start: Start, eventually: Callable[..., Any], database: Database
) -> None:
    port = embedded.free_port()
    first = start("engine", "engine")
    start("api", "api", BERTH_PORT=str(port))
    start("projector", None)
    eventually(lambda: is_ready(port), within_s=60)
    client = Client(f"http://127.0.0.1:{port}", TOKEN)
    site = Site(client, hosts=1, cpu=10_000, quota_cpu=10_000)
    metrics = embedded.free_port()
    second = start("engine", "engine", BERTH_METRICS_PORT=str(metrics))
    eventually(lambda: _connections(database) == 2, within_s=60)

    acknowledged: list[str] = []
    for n, disturb in enumerate(
        (lambda: first.kill(), lambda: start("engine", "engine"), lambda: second.send_signal(signal.SIGSTOP))
    ):
        disturb()
        if n == 1:
            eventually(lambda: _connections(database) == 2, within_s=60)
            continue
        for m in range(20):
            # No key, and no second try: the API itself finds the one that leads.
            answer = client.post("/v1/vms", site.vm(f"vm-{n}-{m}"))
            assert answer.status_code == 202, answer.text
            acknowledged.append(answer.json()["resource"]["name"])
    second.send_signal(signal.SIGCONT)
    assert (
        'berth_commands_total{command="vm.provision",outcome="accepted"} '
        in httpx.get(f"http://127.0.0.1:{metrics}/metrics").text
    )
    assert client.post("/v1/vms", site.vm("last")).status_code == 202
    with psycopg.connect(database.service) as connection:
        rows = connection.execute(
            "SELECT notification_id, topic, originator_id FROM berth.events ORDER BY notification_id"
        ).fetchall()
    assert [position for position, _, _ in rows] == list(range(1, len(rows) + 1))
    scheduled = [stream.rpartition("/")[2] for _, topic, stream in rows if topic == "vm.scheduled"]
    assert scheduled == [*acknowledged, "last"]
    assert [topic for _, topic, _ in rows].count("leader.took_over") == 2


def _connections(database: Database) -> int:
    """How many writers lead or stand by."""
    with psycopg.connect(database.owner) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'berth log' AND datname = current_database()"
        ).fetchone()
    return int(found[0]) if found else 0
