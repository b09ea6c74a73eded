"""`python -m bench.profile [WHAT …]`: which part of the code takes the processor's time, for each command.

What a process used in all is the kernel's count; how it divides is sampled by py-spy, a hundred times a second, while
the process runs as it is. A sample belongs to the innermost of its frames that some part claims, so that what a part
calls in libraries counts as its own.
"""

import argparse
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench import berth, engine, load, over_http, projecting, relaying, servers, whole
from bench.over_http import ROOT
from bench.site import a_vm
from workers.log import log_to_stderr

PER_S = 100
HOSTS = 1_000
FRAME = re.compile(r"(?P<function>.+) \((?P<file>.+?)(:\d+)?\)$")

# (part, file, function) from the innermost frame outwards; a file ends with `/` for all below it. What no line claims
# is its caller's: domain/values.py, msgspec, psycopg, asyncio.
PARTS = (
    ("choosing the host", "domain/scheduling/", ""),
    ("the fleet: evolve, indexes, journal", "domain/fleet.py", ""),
    ("the fleet: evolve, indexes, journal", "domain/", "evolve"),
    ("decoding events", "eventlog/codec.py", "decoder.<locals>.decode"),
    ("decoding events", "eventlog/codec.py", "time_of"),
    ("encoding events", "eventlog/codec.py", ""),
    ("the append", "eventlog/append.py", ""),
    ("the append", "commands/writer/leader.py", ""),
    ("reading the log", "eventlog/", ""),
    ("reading the log", "eventsourcing/", ""),
    ("the resource in the answer", "commands/writer/deciding.py", "Decider.view"),
    ("the resource in the answer", "projections/documents.py", ""),
    ("the resource in the answer", "projections/rows.py", "resource"),
    ("making rows", "projections/rows.py", ""),
    ("making rows", "projections/changes.py", "fold"),
    ("writing rows", "projections/", ""),
    ("writing rows", "projections/changes.py", "write"),
    ("look-ups, queue, batches, receipts", "commands/writer/engine.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/queue.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/batch.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/lookups.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/receipts.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/repeats.py", ""),
    ("look-ups, queue, batches, receipts", "commands/writer/waiting.py", ""),
    ("deciding", "commands/", ""),
    ("deciding", "domain/command.py", ""),
    ("the live tail of events", "api/live.py", ""),
    ("reading and checking the body", "api/body.py", ""),
    ("reading and checking the body", "api/upload.py", ""),
    ("reading and checking the body", "api/validation.py", ""),
    ("reading and checking the body", "pydantic/", ""),
    ("log and metrics", "workers/log.py", ""),
    ("log and metrics", "structlog/", ""),
    ("log and metrics", "prometheus_client/", ""),
    ("log and metrics", "api/endpoint.py", "Path._note"),
    ("HTTP protocol", "api/connection.py", ""),
    ("request → command, answer → response", "api/", ""),
    ("HTTP protocol", "uvicorn/", ""),
    ("routing", "starlette/", ""),
    ("routing", "fastapi/", ""),
    ("making messages", "messaging/event_json.py", ""),
    ("making messages", "messaging/subjects.py", ""),
    ("commands and reports over NATS", "messaging/commands.py", ""),
    ("commands and reports over NATS", "messaging/gateway.py", ""),
    ("commands and reports over NATS", "messaging/reports.py", ""),
    ("commands and reports over NATS", "messaging/request_reply.py", ""),
    ("the relay's own", "messaging/relay.py", ""),
    ("the dispatcher's own", "messaging/dispatch.py", ""),
    ("the NATS client", "nats/", ""),
    ("the controller's own", "workers/controllers/", ""),
    ("the bench's own requests", "bench/engine.py", ""),
)
THE_REST = "event loop, sockets, threads, the rest"


class Profile(msgspec.Struct, frozen=True):
    """`used_s` of `passed_s` the process was on a processor; `samples` by part and by `file:function`."""

    name: str
    used_s: float
    passed_s: float
    commands: int
    parts: dict[str, int]
    functions: dict[str, int]


def part_of(stack: list[str]) -> tuple[str, str]:
    """The part that a stack belongs to (outermost frame first), and the function of ours that it was in."""
    for frame in reversed(stack):
        found = FRAME.match(frame)
        if found is None:
            continue
        file, function = _relative(found["file"]), found["function"]
        for part, path, name in PARTS:
            is_there = file.startswith(path) if path.endswith("/") else file == path
            if is_there and name in ("", function):
                return part, f"{file}:{function}"
    return THE_REST, stack[-1]


def _relative(file: str) -> str:
    """From the root of our sources or of the packages."""
    return file.rpartition("/site-packages/")[2].removeprefix(f"{ROOT}/")


@contextlib.contextmanager
def sampled(pids: dict[str, int], commands: Callable[[], int]) -> Iterator[list[Profile]]:
    """Profiles of these processes over the block; `commands` are those that were done in it, asked at its end."""
    profiles: list[Profile] = []
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / str(pid) for name, pid in pids.items()}
        samplers = [_sampler(pid, files[name]) for name, pid in pids.items()]
        time.sleep(1.0)  # until they have found their way about
        used, began = {name: berth.used_s(pid) for name, pid in pids.items()}, time.perf_counter()
        yield profiles
        passed_s = time.perf_counter() - began
        spent = {name: berth.used_s(pid) - used[name] for name, pid in pids.items()}
        for sampler in samplers:
            sampler.send_signal(signal.SIGINT)
            output, _ = sampler.communicate()
            assert sampler.returncode == 0, f"py-spy can't look into another process here: {output.decode()}"
        for name, file in files.items():
            parts, functions = Counter[str](), Counter[str]()
            for line in file.read_text().splitlines():
                stack, _, samples = line.rpartition(" ")
                if not samples.isdigit():  # read while the process went on, a name is now and then no name
                    continue
                part, function = part_of(stack.split(";"))
                parts[part] += int(samples)
                functions[function] += int(samples)
            profiles.append(Profile(name, spent[name], passed_s, commands(), dict(parts), dict(functions)))


def _sampler(pid: int, file: Path) -> "subprocess.Popen[bytes]":
    program = Path(sys.executable).with_name("py-spy")
    options = ["--rate", str(PER_S), "--duration", "unlimited", "--format", "raw", "--full-filenames", "--nonblocking"]
    return subprocess.Popen(
        [program, "record", "--pid", str(pid), *options, "--output", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


# ── what is profiled ──


def engine_alone() -> list[Profile]:
    """The engine in this process, 1,024 requests under way."""
    with servers.running() as running:
        return uvloop.run(_engine_alone(running.conninfo))


async def _engine_alone(conninfo: str) -> list[Profile]:
    count = 20_000
    async with engine.stocked(conninfo, hosts=HOSTS) as stocked:
        await engine.provision(stocked, range(1_000))
        with sampled({"engine": os.getpid()}, lambda: count) as profiles:
            await engine.provision(stocked, range(1_000, 1_000 + count))
    return profiles


def http() -> list[Profile]:
    """One API process with the engine in it, 32 connections."""
    count = 10_000
    with servers.running() as running, over_http.an_api(running) as (port, token, pid):
        over_http.stock(port, token, hosts=HOSTS)
        load.run(port, [over_http.post(a_vm(n), token) for n in range(1_000)], connections=32)
        requests = [over_http.post(a_vm(n), token) for n in range(1_000, 1_000 + count)]
        with sampled({"api with engine, POST /v1/vms": pid}, lambda: count) as profiles:
            load.run(port, requests, connections=32)
    return profiles


def catching_up() -> list[Profile]:
    """Projector and relay, each from the log's beginning, in this process."""
    with servers.running() as running:
        projecting.write(running.conninfo, hosts=HOSTS, provisionings=20_000)
        profiles = []
        for name, run in (("projector", projecting.projected), ("relay", relaying.relayed)):
            with sampled({f"{name}, catching up": os.getpid()}, lambda: 20_000) as found:
                run(running)
            profiles += found
        return profiles


def system(per_s: float) -> list[Profile]:
    """Every process of a whole platform, at a steady rate of provisionings to `active`."""
    seconds = 15.0
    with berth.running(hosts=HOSTS) as platform:
        requests = (over_http.post(a_vm(n), platform.token) for n in itertools.count())
        whole.step(platform, requests, per_s=per_s, seconds=3.0)
        pids = platform.pids()
        ours = ("api", "engine", "projector", "relay", "dispatcher", "controller")
        with sampled({name: pids[name] for name in ours}, lambda: int(per_s * seconds)) as profiles:
            held = whole.step(platform, requests, per_s=per_s, seconds=seconds)
    show_processes(held)
    return profiles


WHAT: dict[str, Callable[[float], list[Profile]]] = {
    "engine": lambda _: engine_alone(),
    "http": lambda _: http(),
    "catching-up": lambda _: catching_up(),
    "system": system,
}


def show(profile: Profile, *, functions: int) -> None:
    each_us = profile.used_s / profile.commands * 1e6
    title = (
        f"{profile.name}: {each_us:,.0f} µs of processor time a provisioning,"
        f" {profile.used_s / profile.passed_s:.2f} of a core, {profile.commands / profile.passed_s:,.0f}/s"
    )
    table = Table()
    for heading in ("part", "µs", "%"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for counted, most in ((profile.parts, len(profile.parts)), (profile.functions, functions)):
        total = sum(profile.parts.values())
        for name, samples in Counter(counted).most_common(most):
            share = samples / total
            table.add_row(name, f"{each_us * share:,.1f}", f"{share * 100:.1f}")
        table.add_section()
    _print(title, table)


def show_processes(held: whole.Step) -> None:
    table = Table()
    for heading in ("process", "µs a provisioning", "cores"):
        table.add_column(heading, justify="left" if heading == "process" else "right")
    for name, cores in (*Counter(held.cores).most_common(), ("all", sum(held.cores.values()))):
        table.add_row(name, f"{cores / held.answered_per_s * 1e6:,.0f}", f"{cores:.2f}")
    _print(f"whole system at {held.per_s:,.0f} provisionings/s to active", table)


def _print(title: str, table: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    console.print(f"\n{title}")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], help="all of them, if none is named")
    parser.add_argument("--rate", type=float, default=200.0, help="provisionings a second for `system` (default 200)")
    parser.add_argument("--functions", type=int, default=0, help="also the functions that take most, so many of them")
    told = parser.parse_args()
    log_to_stderr("warning")
    for name in told.what or WHAT:
        for profile in WHAT[name](told.rate):
            show(profile, functions=told.functions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
