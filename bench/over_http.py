"""`POST /v1/vms` with the engine in the API's one process, beside a FastAPI no-op POST; and with it in a process of its
own, as `berth up` runs it, beside the former: same client, same run.

No other process of Berth runs meanwhile: controllers' reports and the projector are part of the whole system's figure.
"""

import http.client
import os
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench import engine, load
from bench.load import Answered
from bench.row import Row
from bench.servers import Servers
from bench.servers import running as servers_running
from bench.site import a_vm
from eventlog.read import LogReader
from projections import projector
from workers import child
from workers.embedded import LOOPBACK, free_port
from workers.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 32
HOSTS = 1_000
BATCH, BATCH_CONNECTIONS = 100, 4
TARGET_RATIO, TARGET_P99_MS = 0.65, 50.0
TARGET_APART_RATIO = 0.9
START_S_MAX = 30.0
ITEMS_MAX = 1_000

Pair = tuple[Answered, Answered]  # ours, the no-op's; or with the engine apart, and not


def measure(servers: Servers, *, is_short: bool) -> list[Row]:
    """With 32 connections, with one, and by batches: each in turn with the no-op, so that all meet the same machine."""
    rounds, requests = (1, 200) if is_short else (5, 2_000)
    many, one, batched = list[Pair](), list[Pair](), list[float]()
    many_apart, one_apart = list[Pair](), list[Pair]()
    with (
        an_api(servers) as (port, token, _),
        servers_running() as others,
        an_api(others, has_engine=False) as (apart_port, apart_token, _),
        a_noop(servers) as noop_port,
    ):
        for at, by in ((port, token), (apart_port, apart_token)):
            stock(at, by, hosts=100 if is_short else HOSTS)
        numbers = iter(range(10**9))
        for round in range(rounds + 1):
            for pairs, pairs_apart, connections, count in (
                (many, many_apart, CONNECTIONS, requests),
                (one, one_apart, 1, requests // 4),
            ):
                vms = [a_vm(next(numbers)) for _ in range(count)]
                noop, berth, apart = (
                    load.run(at, [post(vm, by) for vm in vms], connections=connections)
                    for at, by in ((noop_port, token), (port, token), (apart_port, apart_token))
                )
                if round:  # the first warms all up
                    pairs.append((berth, noop))
                    pairs_apart.append((apart, berth))
            sent = [batch([next(numbers) for _ in range(BATCH)], token) for _ in range(max(4, requests // BATCH))]
            answered = load.run(port, sent, connections=BATCH_CONNECTIONS)
            if round:
                batched.append(answered.per_s * BATCH)
        submit(port, token, [{"command": "vm.provision", **a_vm(next(numbers))}])  # there was room until the end
    figure, baseline = (_median([pair[n] for pair in many]) for n in (0, 1))
    ratio, per_s = _ratio(many), statistics.median(batched)
    alone, noop_alone = (_median([pair[n] for pair in one]) for n in (0, 1))
    name, p99_ms = f"POST /v1/vms, {CONNECTIONS} connections", figure.p99_ms
    is_fast, is_quick = ratio >= TARGET_RATIO, p99_ms < TARGET_P99_MS
    p99_ratio = p99_ms / baseline.p99_ms
    return [
        Row(name, figure.per_s, "/s", f"≥ {TARGET_RATIO} × no-op POST", is_fast, baseline.per_s, ratio),
        Row(f"{name}, p99", p99_ms, "ms", f"< {TARGET_P99_MS:g} ms", is_quick, baseline.p99_ms, p99_ratio),
        Row("POST /v1/vms, 1 connection", alone.per_s, "/s", "none", True, noop_alone.per_s, _ratio(one)),
        *_rows_apart(many_apart, one_apart),
        Row(f"POST /v1/commands by {BATCH}, commands", per_s, "/s", "none", True, figure.per_s, per_s / figure.per_s),
    ]


def _rows_apart(many: list[Pair], one: list[Pair]) -> list[Row]:
    """What it costs a command that the engine is a process of its own."""
    figure, baseline = (_median([pair[n] for pair in many]) for n in (0, 1))
    alone, alone_baseline = (_median([pair[n] for pair in one]) for n in (0, 1))
    name, ratio = "POST /v1/vms, engine in a process of its own", _ratio(many)
    target, is_cheap = f"≥ {TARGET_APART_RATIO} × in the API's process", ratio >= TARGET_APART_RATIO
    p99_ratio = figure.p99_ms / baseline.p99_ms
    return [
        Row(name, figure.per_s, "/s", target, is_cheap, baseline.per_s, ratio),
        Row(f"{name}, p99", figure.p99_ms, "ms", "none", True, baseline.p99_ms, p99_ratio),
        Row(f"{name}, 1 connection", alone.per_s, "/s", "none", True, alone_baseline.per_s, _ratio(one)),
    ]


@contextmanager
def an_api(servers: Servers, *, has_engine: bool = True) -> Iterator[tuple[int, str, int]]:
    """One API process with the engine in it, or beside it: its port, the admin's token, which it already knows, and its
    id."""
    port, token = free_port(), f"berth_{secrets.token_urlsafe(32)}"
    token_file = servers.data / "admin.token"
    token_file.write_text(token)
    settings = Settings(
        data=servers.data,
        port=port,
        postgres=servers.postgres.service_without_password(),
        postgres_password_file=servers.postgres.service_password_file,
        nats=servers.nats.url,
        nats_credentials=servers.nats.credentials["api"],
        admin_token_file=token_file,
        engine="local" if has_engine else "remote",
        engine_sockets=() if has_engine else (servers.data / "engine.sock",),
    )
    with ExitStack() as stack:
        if not has_engine:
            of_engine = msgspec.structs.replace(settings, nats_credentials=servers.nats.credentials["engine"])
            stack.enter_context(_worker("engine", of_engine))
        pid = stack.enter_context(_worker("api", settings))
        _await(port, "/healthz", token)
        # Tokens are looked up in the read model once; from then on the process has them in memory.
        project(servers)
        _await(port, "/v1/whoami", token)
        yield port, token, pid


def project(servers: Servers) -> None:
    """Bring the read model to the log's end."""
    reader = LogReader(servers.conninfo)
    try:
        projector.catch_up(servers.conninfo, reader)
    finally:
        reader.close()


@contextmanager
def a_noop(servers: Servers) -> Iterator[int]:
    port = free_port()
    with _process(["-m", "bench.noop", str(port)], servers.data / "noop.log"):
        _await(port, "/openapi.json", "")
        yield port


def _worker(name: str, settings: Settings) -> AbstractContextManager[int]:
    return _process(["-m", "workers", name], settings.data / f"{name}.log", **settings.environment())


@contextmanager
def _process(arguments: list[str], log: Path, **variables: str) -> Iterator[int]:
    with open(log, "ab") as output:
        process = child.spawn(
            [sys.executable, *arguments],
            log=output,
            signal_at_our_death=signal.SIGTERM,
            environment={**os.environ, **variables},
            directory=ROOT,
        )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _await(port: int, path: str, token: str) -> None:
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            if ask(port, "GET", path, token)[0] == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no answer from {path} within {START_S_MAX} s"
        time.sleep(0.05)


def ask(port: int, method: str, path: str, token: str, body: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=START_S_MAX)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else msgspec.json.encode(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def stock(port: int, token: str, *, hosts: int, racks: int = 0) -> None:
    submit(port, token, [{"command": kind, **body} for kind, body in engine.site(hosts, racks=racks)])


def submit(port: int, token: str, commands: list[dict[str, Any]]) -> None:
    """All of them, each of which must be accepted."""
    for start in range(0, len(commands), ITEMS_MAX):
        body = {"commands": commands[start : start + ITEMS_MAX], "atomic": False}
        status, content = ask(port, "POST", "/v1/commands", token, body)
        assert status == 200, content
        refused = [result for result in msgspec.json.decode(content)["results"] if result["status"] >= 400]
        assert not refused, refused[0]


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def post(body: dict[str, Any], token: str, *, path: str = "/v1/vms") -> bytes:
    content = msgspec.json.encode(body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


def batch(numbers: list[int], token: str) -> bytes:
    commands = [{"command": "vm.provision", **a_vm(n)} for n in numbers]
    return post({"commands": commands, "atomic": False}, token, path="/v1/commands")


def _median(rounds: list[Answered]) -> Answered:
    return sorted(rounds, key=lambda answered: answered.per_s)[len(rounds) // 2]


def _ratio(pairs: list[Pair]) -> float:
    """The median of the rounds' own ratios: a round's two figures are of the same seconds."""
    return statistics.median(figure.per_s / baseline.per_s for figure, baseline in pairs)
