"""What a platform of its own survives: controllers that always fail, a wiped NATS, a wiped read model."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import endpoints_of
from tests.platform.client import Client, Site


def a_client(endpoints: dict[str, Any]) -> Client:
    return Client(endpoints["http"], Path(endpoints["token_file"]).read_text().strip())


def test_with_controllers_that_always_fail_nothing_is_left_taken(
    data: Path, supervisors: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    endpoints = endpoints_of(data, supervisors(data, BERTH_SIM_FAIL_RATE="1"))
    client = a_client(endpoints)
    site = Site(client)
    before = [account["available"] for account in site.accounts()]
    answer = client.post("/v1/vms", site.vm(), Prefer="wait=20")
    assert answer.status_code == 424, answer.text
    assert answer.json()["code"] == "operation_failed"
    position = int(answer.headers["Berth-Position"])
    vm = client.get(f"/v1/vms/{site.tenant}/web-1", min_position=position).json()
    assert (vm["state"], vm["host"]) == ("failed", None)
    assert "simulated failure" in vm["reason"]
    assert [account["available"] for account in site.accounts()] == before


def test_a_wiped_nats_and_a_wiped_read_model_come_back_with_no_work_done_twice(
    data: Path, supervisors: Callable[..., Any], eventually: Callable[..., Any]
) -> None:
    endpoints = endpoints_of(data, supervisors(data))
    client = a_client(endpoints)
    site = Site(client)
    assert client.post("/v1/vms", site.vm(), Prefer="wait=10").status_code == 201

    os.kill(endpoints["pids"]["nats"], signal.SIGSTOP)  # else it writes anew what is being removed
    shutil.rmtree(next(path for path in (data / "nats").rglob("jetstream") if path.is_dir()))
    os.kill(endpoints["pids"]["nats"], signal.SIGKILL)
    with psycopg.connect(endpoints["postgres"], autocommit=True) as connection:
        schemas = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'read\\_%'").fetchall()
        for (schema,) in schemas:
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE')

    def works_again() -> bool:
        answer = client.post("/v1/vms", site.vm("web-2"), Prefer="wait=5", Idempotency_Key="again")
        return answer.status_code == 201

    eventually(works_again, within_s=40)
    listed = client.get("/v1/vms", tenant=site.tenant, min_position=client.end()).json()["items"]
    assert [(vm["name"], vm["state"]) for vm in listed] == [("web-1", "active"), ("web-2", "active")]
    begun = client.get("/v1/events", topic="operation.step_started.2", limit=1000).json()["items"]
    assert len(begun) == 2
    found = client.post("/v1/verify", {}).json()
    assert (found["violations"], found["differences"]) == ([], [])
    assert json.loads((data / "endpoints.json").read_text())["pids"]["nats"] != endpoints["pids"]["nats"]
