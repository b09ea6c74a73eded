"""Marked secrets are planted everywhere that Berth keeps or takes one; after a full run, with crashes and refusals,
they are looked for in everything that it wrote, showed or told the kernel."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from tests.conftest import endpoints_of, eventually, reachable_directory, start_supervisor, stop_supervisor
from tests.platform.client import Client, Site
from workers import embedded, nats_config

MARK = "planted-secret-"
ADMIN = f"berth_{MARK}admin"
GUESSED = f"berth_{MARK}guessed"
NOT_FOR_US = f"{MARK}bmc-password"
# Where a secret must be, and a page or two that the contract makes of them: all that the owner alone may read.
KEEPERS = ("admin.token", "endpoints.json", "passwords/", "nats/")


def plant(data: Path) -> None:
    """As if it had been made on the first start; a name each, to tell from where one got out."""
    (data / "passwords").mkdir(mode=0o700, parents=True)
    (data / "nats").mkdir(mode=0o700)
    data.chmod(0o711)
    nats_config.write_secret(data / "admin.token", ADMIN + "\n")
    for role in (embedded.OWNER, embedded.SERVICE):
        nats_config.write_secret(data / "passwords" / role, f"{MARK}{role}")
    for user in nats_config.users(["vm"]):
        credential = {"user": user, "password": f"{MARK}nats-{user}"}
        nats_config.write_secret(data / "nats" / f"{user}.json", json.dumps(credential))


class Run:
    """A platform that has lived: what it answered, and every secret that it gave away."""

    def __init__(self, data: Path, endpoints: dict[str, Any]) -> None:
        self.data = data
        self.endpoints = endpoints
        self.told: dict[str, bytes] = {}
        self.secrets = [MARK.encode()]

    def keep(self, what: str, response: httpx.Response) -> httpx.Response:
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        self.told[f"answer to {what}"] = head.encode() + response.content
        return response

    def processes(self) -> dict[str, int]:
        """Ours and their children, by a name."""
        pids = dict(json.loads((self.data / "endpoints.json").read_text())["pids"])
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(status.read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent in pids.values():
                pids.setdefault(f"child {status.parent.name}", int(status.parent.name))
        return pids


@pytest.fixture(scope="module")
def lived() -> Iterator[Run]:
    directory = reachable_directory("berth-secrets-")
    data = directory / "data"
    plant(data)
    supervisor = start_supervisor(data, BERTH_LOG_LEVEL="debug", BERTH_SIM_FAIL_RATE="0.3")
    try:
        run = Run(data, endpoints_of(data, supervisor))
        live(run)
        yield run
    finally:
        stop_supervisor(supervisor)


def live(run: Run) -> None:
    client = Client(run.endpoints["http"], ADMIN)
    site = Site(client)
    bmc = {"address": "10.0.0.9", "protocol": "redfish", "credential": "vault:bmc/h9"}
    host = {"name": "h-bmc", "group": site.group, "capacity": {"cpu": 1}}
    run.keep("a host", client.post("/v1/hosts", {**host, "bmc": bmc}))
    for n in range(5):
        run.keep(f"vm {n}", client.post("/v1/vms", site.vm(f"vm-{n}"), Prefer="wait=10"))
    for role in ("viewer", "auditor", "controller"):
        body = {"name": f"t-{role}", "role": role}
        for attempt in ("first", "again"):
            answer = client.post("/v1/tokens", body, Idempotency_Key=f"token-{role}")
            if secret := answer.json().pop("secret", None):
                assert attempt == "first"
                run.secrets.append(secret.encode())
            else:
                run.keep(f"token of {role}, {attempt}", answer)
    batch = {"commands": [{"command": "token.create", "name": "t-batch", "role": "viewer"}]}
    (made,) = client.post("/v1/commands", batch).json()["results"]
    run.secrets.append(made["secret"].encode())
    refuse(run, client, host)
    crash(run, client, site)
    read(run, client)
    client.delete("/v1/tokens/t-viewer")
    run.keep("a revoked token", bare(run, "/v1/whoami", token=run.secrets[1].decode()))


def bare(run: Run, path: str, *, token: str) -> httpx.Response:
    return httpx.get(f"{run.endpoints['http']}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=30)


def refuse(run: Run, client: Client, host: dict[str, Any]) -> None:
    """What comes in by mistake, or by malice, gets no further."""
    for where, body in (
        ("a host's password", {**host, "name": "h-2", "password": NOT_FOR_US}),
        ("a bmc's password", {**host, "name": "h-2", "bmc": {"address": "10.0.0.9", "password": NOT_FOR_US}}),
        ("a bmc's wrong type", {**host, "name": "h-2", "bmc": {"address": "a", "credential": [NOT_FOR_US]}}),
    ):
        answer = run.keep(where, client.post("/v1/hosts", body))
        assert (answer.status_code, answer.json()["code"]) == (422, "validation"), where
    token = {"name": "t-own", "role": "viewer", "secret": NOT_FOR_US}
    assert run.keep("a token with a secret of one's own", client.post("/v1/tokens", token)).status_code == 422
    for path in (f"/v1/vms?token={GUESSED}", f"/v1/whoami?access_token={ADMIN}", f"/v1/hosts?limit={NOT_FOR_US}"):
        assert run.keep("a secret in a query", client.http.get(path)).status_code == 422
    assert run.keep("a guessed token", bare(run, "/v1/whoami", token=GUESSED)).status_code == 401
    answer = httpx.get(f"{run.endpoints['http']}/v1/whoami", headers={"Authorization": f"Basic {GUESSED}"})
    assert run.keep("basic authorization", answer).status_code == 401


def crash(run: Run, client: Client, site: Site) -> None:
    """Everybody has a server to complain about, and says so in its log."""
    for name in ("postgres", "nats", "api"):
        os.kill(json.loads((run.data / "endpoints.json").read_text())["pids"][name], signal.SIGKILL)
        eventually_made(client, site, f"after-{name}")


def eventually_made(client: Client, site: Site, name: str) -> None:
    def is_made() -> bool:
        try:
            answer = client.post("/v1/vms", site.vm(name), Prefer="wait=3", Idempotency_Key=name)
        except httpx.TransportError:
            return False
        return answer.status_code in (201, 424)

    eventually(is_made, within_s=60)


def read(run: Run, client: Client) -> None:
    end = client.end()
    lists = ("tenants", "groups", "hosts", "quotas", "vms", "operations", "tokens", "events", "audit")
    for path in (*(f"/v1/{name}" for name in lists), "/v1/history/token/t-viewer", "/v1/history/host/h-bmc"):
        for accept in ("application/json", "text/csv"):
            answer = client.http.get(path, params={"limit": 1000, "min_position": end}, headers={"Accept": accept})
            assert run.keep(f"{path} as {accept}", answer).status_code == 200
    for path in ("/v1/hosts/h-bmc", "/v1/tokens/t-viewer", "/v1/whoami", "/metrics", "/openapi.json", "/readyz"):
        assert run.keep(path, client.get(path)).status_code == 200
    run.keep("verification", client.post("/v1/verify", {}))


def assert_clean(run: Run, places: dict[str, bytes]) -> None:
    assert places
    found = {place: sum(told.count(secret) for secret in run.secrets) for place, told in places.items()}
    assert {place: times for place, times in found.items() if times} == {}


def test_no_answer_tells_a_secret(lived: Run) -> None:
    # Of an answer that makes a token, only the repeats are here: the first is the one place that tells it.
    assert any("again" in what for what in lived.told)
    assert b"berth_relay_lag_events" in lived.told["answer to /metrics"]
    assert_clean(lived, lived.told)


def test_no_table_holds_a_secret(lived: Run) -> None:
    """The log, the read models, and whatever else there is; as the owner sees them."""
    password = (lived.data / "passwords" / embedded.OWNER).read_text()
    assert MARK in password
    owner = psycopg.conninfo.make_conninfo(lived.endpoints["postgres"], user=embedded.OWNER, password=password)
    rows: dict[str, bytes] = {}
    with psycopg.connect(owner) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            name = sql.Identifier(schema, table)
            text = connection.execute(sql.SQL("SELECT row_to_json(t)::text FROM {} t").format(name)).fetchall()
            rows[f"{schema}.{table}"] = "\n".join(line for (line,) in text).encode()
        states = connection.execute("SELECT events.state FROM berth.events").fetchall()
        rows["states of events"] = b"\n".join(bytes(state) for (state,) in states)
        activity = connection.execute("SELECT query FROM pg_stat_activity").fetchall()
        rows["statements under way"] = "\n".join(query or "" for (query,) in activity).encode()
    assert b"vault:bmc/h9" in rows["states of events"], "what is looked through is what was written"
    assert_clean(lived, rows)


def test_no_file_holds_a_secret_but_those_made_for_it(lived: Run) -> None:
    """Logs, the cluster with its write-ahead log, NATS' streams, what the supervisor said."""
    files = [path for path in lived.data.rglob("*") if path.is_file()]
    names = {path: str(path.relative_to(lived.data)) for path in files}
    keepers = {path for path in files if names[path].startswith(KEEPERS) and "streams" not in path.parts}
    rest = {names[path]: path.read_bytes() for path in files if path not in keepers}
    rest["the supervisor's words"] = lived.data.with_suffix(".log").read_bytes()
    assert any(name.startswith("nats/streams/") for name in rest)
    assert b"process restarted" in rest["the supervisor's words"]
    assert b"request answered" in rest["log/api.log"]
    assert_clean(lived, rest)
    for path in keepers:
        assert path.stat().st_mode & 0o077 == 0, f"{names[path]} can be read by others"


def test_no_process_shows_a_secret(lived: Run) -> None:
    """In its arguments, its title, its environment."""
    shown: dict[str, bytes] = {}
    for name, pid in lived.processes().items():
        for what in ("cmdline", "environ"):
            try:
                shown[f"{what} of {name}"] = Path(f"/proc/{pid}/{what}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # a backend that has left
    assert b"BERTH_NATS_CREDENTIALS" in shown["environ of api"]
    assert_clean(lived, shown)
