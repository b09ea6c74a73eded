"""A whole platform of a benchmark's own, as `berth up` runs it, and what its processes have used of the processors."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench import over_http
from workers import child

READY_S_MAX = 60.0
STOP_S_MAX = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Berth(msgspec.Struct, frozen=True):
    data: Path
    port: int
    token: str
    postgres: str
    nats: str

    def pids(self) -> dict[str, int]:
        """As `endpoints.json` tells now."""
        found: dict[str, int] = _endpoints(self.data)["pids"]
        return found


@contextmanager
def running(*, hosts: int, **variables: str) -> Iterator[Berth]:
    """With `hosts` registered; `variables` are settings of the platform."""
    directory = Path(tempfile.mkdtemp(prefix="berth-bench-"))
    directory.chmod(0o755)  # as root PostgreSQL runs as another user, who must reach it
    data = directory / "data"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    own = {"BERTH_DATA": str(data), "BERTH_PORT": "0", "BERTH_SAMPLE": "0"}
    with open(directory / "supervisor.log", "ab") as log:
        supervisor = child.spawn(
            [sys.executable, "-m", "workers", "supervisor"],
            log=log,
            signal_at_our_death=signal.SIGTERM,
            environment={**inherited, **own, **variables},
            directory=over_http.ROOT,
        )
    try:
        deadline = time.monotonic() + READY_S_MAX
        while not (data / "endpoints.json").exists():
            ended = supervisor.poll() is not None or time.monotonic() > deadline
            assert not ended, (directory / "supervisor.log").read_text()
            time.sleep(0.05)
        told = _endpoints(data)
        token = Path(told["token_file"]).read_text().strip()
        berth = Berth(data, int(told["http"].rpartition(":")[2]), token, told["postgres"], told["nats"])
        over_http.stock(berth.port, token, hosts=hosts)
        yield berth
    finally:
        supervisor.terminate()
        try:
            supervisor.wait(STOP_S_MAX)
        finally:
            supervisor.kill()
            shutil.rmtree(directory, ignore_errors=True)


def used_s(pid: int) -> float:
    """Processor time of a process."""
    return sum(int(field) for field in _stat(pid)[11:13]) / TICKS_PER_S


def used_with_children_s(pid: int) -> float:
    """PostgreSQL's, which works in a process for each connection; those that have ended count too."""
    ended_s = sum(int(field) for field in _stat(pid)[13:15]) / TICKS_PER_S
    return used_s(pid) + ended_s + sum(used_s(other) for other in _children(pid))


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _children(pid: int) -> list[int]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if int(_stat(int(directory.name))[1]) == pid:
                found.append(int(directory.name))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
    return found


def _stat(pid: int) -> list[str]:
    # The name, in parentheses, may hold anything: fields are counted from behind it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _endpoints(data: Path) -> dict[str, Any]:
    return json.loads((data / "endpoints.json").read_text())
