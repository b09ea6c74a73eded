"""A platform that is made to suffer: its processes, its addresses, its journal of what controllers really did."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.conftest import endpoints_of, reachable_directory, start_supervisor, stop_supervisor
from tests.platform.client import Client

READY_S_MAX = 60.0


class Place:
    """`with Place() as place`: a platform of its own with a site that takes whatever is asked."""

    def __init__(self, **variables: str) -> None:
        self.directory = reachable_directory("berth-survival-")
        self.data = self.directory / "data"
        self.journal = self.directory / "journal.jsonl"
        self.variables = {
            "BERTH_SIM_JOURNAL": str(self.journal),
            "BERTH_SIM_DELAY_MS": "30",
            "BERTH_CHECKPOINT_EVENTS": "200",  # so that whatever is killed starts from one
            **variables,
        }
        self.endpoints: dict[str, Any] = {}
        self._supervisor: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Place":
        self.start()
        client = self.client()
        client.made("/v1/tenants", {"name": "acme"})
        client.made("/v1/groups", {"name": "std"})
        for n in range(4):
            client.made("/v1/hosts", {"name": f"h{n}", "group": "std", "capacity": {"cpu": 100_000}})
        assert client.put("/v1/groups/std/quotas/acme", {"limits": {"cpu": 400_000}}).status_code == 201
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        self._supervisor = start_supervisor(self.data, **self.variables)
        self.endpoints = endpoints_of(self.data, self._supervisor)
        # The same address after a restart, so that clients find it again.
        self.variables["BERTH_PORT"] = self.endpoints["http"].rpartition(":")[2]

    def stop(self) -> None:
        if self._supervisor is not None:
            stop_supervisor(self._supervisor)
            self._supervisor = None

    def client(self) -> Client:
        return Client(self.endpoints["http"], Path(self.endpoints["token_file"]).read_text().strip())

    def pid(self, name: str) -> int:
        return int(self.pids()[name])

    def pids(self) -> dict[str, int]:
        """As `endpoints.json` tells now."""
        pids: dict[str, int] = json.loads((self.data / "endpoints.json").read_text())["pids"]
        return pids

    def kill(self, name: str) -> int:
        """kill -9, and the process id that it had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def await_restart(self, name: str, pid: int) -> None:
        wait_until(lambda: self.pids().get(name, pid) != pid)

    def leading_engine(self) -> str:
        """The name of the engine's process that leads; with one engine, in the API's process, that."""
        names = [name for name in self.pids() if name.startswith("engine")]
        told = {name: _last(self.data / "log" / f"{name}.log", "leading") for name in names}
        return max(names, key=lambda name: told[name]) if names else "api"

    def did(self) -> list[dict[str, Any]]:
        """What controllers did, in their order."""
        lines = self.journal.read_bytes().splitlines() if self.journal.exists() else []
        return [msgspec.json.decode(line) for line in lines]


def wait_until(condition: Callable[[], Any], *, within_s: float = READY_S_MAX) -> Any:
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        time.sleep(0.02)
    return result


def _last(file: Path, event: str) -> str:
    """When a log last told an event."""
    lines = [json.loads(line) for line in file.read_text().splitlines() if f'"{event}"' in line and line[:1] == "{"]
    return max((line["timestamp"] for line in lines if line.get("event") == event), default="")
