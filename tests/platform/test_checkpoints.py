"""A platform whose processes start from checkpoints, also when they were killed while one was being written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.conftest import ROOT, endpoints_of
from tests.platform.client import Client, Site

WRITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'checkpoints' AND wait_event_type = 'Lock'"
    " AND datname = current_database()"
)


def verify_in_full(endpoints: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """As an operator does: what the command ends with, and what it says."""
    variables = {"BERTH_URL": endpoints["http"], "BERTH_TOKEN": Path(endpoints["token_file"]).read_text().strip()}
    command = [sys.executable, "-m", "cli", "verify", "--full", "-o", "json"]
    environment = {**os.environ, **variables}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return ended.returncode, json.loads(ended.stdout)


def test_killed_while_writing_one_and_started_from_another_nothing_is_lost_or_done_twice(
    data: Path, supervisors: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    # The least: one whenever as many events have passed as the fleet has members.
    endpoints = endpoints_of(data, supervisors(data, BERTH_CHECKPOINT_EVENTS="1"))
    client = Client(endpoints["http"], Path(endpoints["token_file"]).read_text().strip())
    site = Site(client)

    def kill(name: str) -> None:
        os.kill(json.loads((data / "endpoints.json").read_text())["pids"][name], signal.SIGKILL)

    def newest() -> int:
        with psycopg.connect(endpoints["postgres"]) as connection:
            found = connection.execute("SELECT coalesce(max(position), 0) FROM berth.checkpoints").fetchone()
            return int(found[0]) if found is not None else 0

    def provision(name: str) -> httpx.Response:
        return client.post("/v1/vms", site.vm(name), Prefer="wait=10", Idempotency_Key=f"{site.tenant}-{name}")

    first = provision("web-0")
    assert first.status_code == 201
    eventually(newest)

    with psycopg.connect(endpoints["postgres"]) as connection:
        connection.execute("LOCK TABLE berth.checkpoints IN EXCLUSIVE MODE")
        for n in range(1, 6):
            assert provision(f"web-{n}").status_code == 201
        eventually(lambda: connection.execute(WRITING).fetchone() == (1,))
        kill("projector")
    stood = newest()
    assert provision("web-6").status_code == 201
    assert provision("web-7").status_code == 201
    eventually(lambda: newest() > max(stood, int(first.headers["Berth-Position"])))
    assert verify_in_full(endpoints)[0] == 0

    kill("engine")

    def again() -> httpx.Response | None:
        try:
            answer = provision("web-0")
        except httpx.TransportError:
            return None
        return answer if answer.status_code == 201 else None

    answer = eventually(again, within_s=30)
    assert (answer.headers["Berth-Replayed"], answer.json()["position"]) == ("true", first.json()["position"])
    assert "checkpoint restored" in (data / "log" / "engine.log").read_text()
    assert provision("web-8").status_code == 201
    listed = client.get("/v1/vms", tenant=site.tenant, min_position=client.end()).json()["items"]
    assert [(vm["name"], vm["state"]) for vm in listed] == [(f"web-{n}", "active") for n in range(9)]
    ended, found = verify_in_full(endpoints)
    assert (ended, found["violations"], found["differences"]) == (0, [], [])

    with psycopg.connect(endpoints["postgres"]) as connection:
        connection.execute(
            "DELETE FROM berth.checkpoints WHERE position < (SELECT max(position) FROM berth.checkpoints)"
        )
        connection.execute(
            "WITH taken AS (DELETE FROM berth.checkpoints RETURNING *) INSERT INTO berth.checkpoints"
            " SELECT definition, log, position, at, entries, part, parts, digest, 'x', made_at FROM taken"
        )
    ended, found = verify_in_full(endpoints)
    (difference,) = found["differences"]
    assert ended == 1
    assert "is damaged" in difference
