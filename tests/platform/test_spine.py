"""From an empty platform to an active VM, durable and explained, as a client sees it."""

import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.conftest import ROOT, Platform
from tests.platform.client import Client, Site, client_of


@pytest.fixture
def client(platform: Platform) -> Client:
    return client_of(platform)


def test_a_request_that_waits_is_answered_with_the_vm_active(client: Client) -> None:
    site = Site(client)
    answer = client.post("/v1/vms", site.vm(), Prefer="wait=10", Idempotency_Key=site.tenant)
    assert answer.status_code == 201, answer.text
    assert answer.json()["resource"]["state"] == "active"
    again = client.post("/v1/vms", site.vm(), Prefer="wait=10", Idempotency_Key=site.tenant)
    assert (again.status_code, again.headers["Berth-Replayed"]) == (201, "true")
    assert again.json() == {**answer.json(), "replayed": True}

    query = {"resource": f"vm/{site.tenant}/web-1", "min_position": answer.headers["Berth-Position"]}
    entries = client.get("/v1/audit", **query).json()["items"]
    assert [entry["command"] for entry in entries] == ["vm.provision"]


def test_the_first_answer_equals_what_get_shows_at_its_position(client: Client) -> None:
    site = Site(client)
    answers = [
        client.post("/v1/racks", {"name": f"r-{site.tenant}", "region": "north", "dc": "dc1", "room": "a"}),
        client.post("/v1/tenants", {"name": f"c-{site.tenant}", "parent": site.tenant}),
        client.post("/v1/vms", site.vm(), Prefer="wait=10"),
        client.post("/v1/tokens", {"name": f"k-{site.tenant}", "role": "viewer"}),
        client.put(f"/v1/groups/{site.group}/quotas/c-{site.tenant}", {"limits": {"cpu": 4}}),
        client.post("/v1/groups", {"name": f"x-{site.tenant}", "overcommit": {"cpu": 1.5}}),
        client.post(f"/v1/hosts/{site.hosts[1]}/cordon", {}),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201), answer.text
        path = answer.headers.get("Location", f"/v1/hosts/{site.hosts[1]}")
        shown = client.get(path, as_of=answer.headers["Berth-Position"])
        assert shown.json() == answer.json()["resource"], path


def test_the_past_shows_it_from_its_own_moment_on(client: Client) -> None:
    site = Site(client)
    position = int(client.post("/v1/vms", site.vm(), Prefer="wait=10").headers["Berth-Position"])
    first = client.get(f"/v1/history/vm/{site.tenant}/web-1", min_position=position).json()["items"][0]["position"]
    path = f"/v1/vms/{site.tenant}/web-1"
    assert client.get(path, as_of=first - 1).status_code == 404
    assert client.get(path, as_of=position).json()["state"] == "active"
    for moment, expected in ((first - 1, []), (first, ["scheduled"]), (position, ["active"])):
        page = client.get("/v1/vms", as_of=moment, tenant=site.tenant, count="true").json()
        assert ([vm["state"] for vm in page["items"]], page["count"]) == (expected, len(expected))
        (used,) = client.get("/v1/capacity", by="group", group=site.group, as_of=moment).json()["items"]
        assert (used["used"]["cpu"] > 0) == bool(expected)


def test_a_refusal_says_what_is_short_and_changes_nothing(client: Client) -> None:
    site = Site(client, hosts=1, cpu=4)
    before = site.accounts()
    problem = client.post("/v1/vms", site.vm(cpu=5)).json()
    assert problem["code"] == "no_capacity"
    assert problem["nearest"] == {"host": site.hosts[0], "short": {"cpu": 1}}
    assert problem["reasons"] == [{"reason": "insufficient:cpu", "hosts": 1}]
    assert site.accounts() == before


def test_a_deletion_gives_everything_back(client: Client) -> None:
    site = Site(client)
    before = site.accounts()
    assert client.post("/v1/vms", site.vm(), Prefer="wait=10").status_code == 201
    gone = client.delete(f"/v1/vms/{site.tenant}/web-1", Prefer="wait=10")
    assert gone.status_code == 200, gone.text
    at = int(gone.headers["Berth-Position"])
    assert client.get(f"/v1/vms/{site.tenant}/web-1", min_position=at).status_code == 404
    after = site.accounts()
    assert [account["available"] for account in after] == [account["available"] for account in before]


@pytest.mark.parametrize(
    ("hosts", "cpu", "quota_cpu", "account"),
    [
        pytest.param(4, 64, 20, "/v1/groups/{0.group}/quotas/{0.tenant}", id="quota"),
        pytest.param(1, 20, 1000, "/v1/hosts/{0.hosts[0]}", id="host"),
    ],
)
def test_64_clients_race_for_the_last_of_it(
    client: Client, platform: Platform, hosts: int, cpu: int, quota_cpu: int, account: str
) -> None:
    site = Site(client, hosts=hosts, cpu=cpu, quota_cpu=quota_cpu)

    def provision(n: int) -> int:
        return client_of(platform).post("/v1/vms", site.vm(f"vm-{n}")).status_code

    with ThreadPoolExecutor(64) as clients:
        statuses = list(clients.map(provision, range(64)))
    assert statuses.count(202) == 20
    assert statuses.count(409) == 44
    shown = client.get(account.format(site), min_position=client.end()).json()
    assert (shown["used"]["cpu"], shown["available"]["cpu"]) == (20, 0)


def test_nats_has_every_event_in_order_at_its_position(client: Client, platform: Platform) -> None:
    site = Site(client)
    answer = client.post("/v1/vms", site.vm(), Prefer="wait=10")
    position = int(answer.headers["Berth-Position"])
    events, commands = asyncio.run(_read_streams(platform, until=position))
    assert [event["position"] for event in events] == list(range(1, position + 1))
    audited = {command["data"]["id"] for command in commands}
    assert answer.json()["command"] in audited


def test_streams_that_are_made_anew_are_filled_from_the_log(client: Client, platform: Platform) -> None:
    answer = client.post("/v1/vms", Site(client).vm(), Prefer="wait=10")
    command = ["-m", "cli.main", "relay", "rebuild", "--yes", "--data", str(platform.data)]
    made = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert made.returncode == 0, made.stderr
    position = int(answer.headers["Berth-Position"])
    events, commands = asyncio.run(_read_streams(platform, until=position))
    assert [event["position"] for event in events] == list(range(1, position + 1))
    assert answer.json()["command"] in {command["data"]["id"] for command in commands}


def test_verification_finds_nothing(client: Client) -> None:
    found = client.post("/v1/verify", {}).json()
    assert (found["violations"], found["differences"]) == ([], [])
    assert found["events"] == found["position"]


async def _read_streams(platform: Platform, *, until: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """As the reader, whose credentials the endpoints name: all of BERTH_EVENTS up to a position, and BERTH_AUDIT."""
    given = json.loads(Path(platform.endpoints["nats_credentials"]).read_text())
    reader = await nats.connect(platform.endpoints["nats"], user=given["user"], password=given["password"])
    stream = reader.jetstream()
    deadline = time.monotonic() + 10
    while (await stream.stream_info("BERTH_EVENTS")).state.last_seq < until:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    events = []
    for sequence in range(1, until + 1):
        message = await stream.get_msg("BERTH_EVENTS", seq=sequence)
        assert message.seq == sequence
        events.append(json.loads(message.data or b""))
    wanted = sum(event["topic"].startswith("command.") for event in events)
    while (await stream.stream_info("BERTH_AUDIT")).state.messages < wanted:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    commands = [json.loads((await stream.get_msg("BERTH_AUDIT", seq=n)).data or b"") for n in range(1, wanted + 1)]
    await reader.close()
    return events, commands
