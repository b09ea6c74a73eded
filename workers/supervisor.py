"""`berth up`: the whole platform on one machine, as children of this process, which keeps every one of them running.

    lock the data directory → end what a killed supervisor left → PostgreSQL, NATS → schema → api and the others
    → ready → sample site → endpoints.json → keep them running until SIGTERM or Ctrl-C → stop them, PostgreSQL last

One thread, woken by signals (a child's death is one): nothing here waits on anything without a limit.
"""

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec
import structlog

from workers import child, embedded, own_api
from workers.data_directory import (
    POSTGRES_STOP_S_MAX,
    STOP_S_MAX,
    CannotStart,
    end_leftovers,
    lock_directory,
    open_directory,
)
from workers.greeting import greeting
from workers.nats_config import write_secret
from workers.restarted import RestartedProcess
from workers.settings import Settings, variable_of

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "site.yaml"
ALL_READY_S_MAX = 20.0
READY_S_MAX = 60.0

log = structlog.get_logger()


class Wakeups:
    """Waits that a signal ends: that a child has ended, or that this process is to stop."""

    def __init__(self) -> None:
        self.is_stopping = False
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopping = True

    def wait(self, seconds: float | None) -> None:
        if self.is_stopping:
            return
        if select.select([self._read], [], [], seconds)[0]:
            self._read.recv(4096)


class Platform:
    """The running children and the files that tell others about them."""

    def __init__(self, settings: Settings, *, wakeups: Wakeups) -> None:
        self.settings = settings
        self.data = settings.data
        self.wakeups = wakeups
        self.processes: dict[str, RestartedProcess] = {}
        self.is_announced = False

    def start(self) -> None:
        """Bring everything up; returns early when asked to stop.

        Raises:
            CannotStart, embedded.EmbeddedFailed: with what a person can do about it.
        """
        print(f"Starting PostgreSQL, NATS and Berth in {self.data} …", flush=True)
        self.postgres = embedded.Postgres(self.data)
        self.nats = embedded.Nats(self.data, controllers=self.settings.controllers)
        for server in (self.postgres, self.nats):
            self._bring_up(server)
        self._prepare_schema()
        self._make_admin_token()
        for name, overrides in self._variables_of_processes().items():
            self._keep(name, overrides)
        self._await_ready()
        if self.settings.sample and not self.wakeups.is_stopping:
            self._load_sample()
        if not self.wakeups.is_stopping:
            text = greeting(self.settings, url=self.url)
            self.is_announced = True
            self._write_files()
            print(text, flush=True)

    def keep_running(self) -> None:
        while not self.wakeups.is_stopping:
            self._revive()
            for server in (self.postgres, self.nats):
                self.processes[server.name].cut_log()
            self.wakeups.wait(
                min((due for process in self.processes.values() if (due := process.due_in_s) is not None), default=5.0)
            )

    def stop(self) -> None:
        """The api first, so that nothing new comes in; PostgreSQL last, as all the others use it."""
        (self.data / "endpoints.json").unlink(missing_ok=True)
        servers = ("nats", "postgres")
        others = [name for name in self.processes if name not in ("api", *servers)]
        for names in (["api"], others, ["nats"], ["postgres"]):
            leaving = [self.processes[name] for name in names if name in self.processes]
            for process in leaving:
                process.ask_to_stop()
            deadline = time.monotonic() + (POSTGRES_STOP_S_MAX if names == ["postgres"] else STOP_S_MAX)
            for process in leaving:
                process.await_end(deadline)
        (self.data / "pids.json").unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"

    def _bring_up(self, server: embedded.Server) -> None:
        process = RestartedProcess(
            server.name, server.launch, log_file=self._log_file(server.name), stop_signal=server.stop_signal
        )
        self.processes[server.name] = process
        with open(process.log_file, "ab") as stream:
            process.adopt(embedded.bring_up(server, stream))
        self._write_files()

    def _prepare_schema(self) -> None:
        from eventlog import schema

        schema.prepare(
            self.postgres.owner(),
            service_role=embedded.SERVICE,
            service_password=self.postgres.service_password_file.read_text().strip(),
        )

    def _make_admin_token(self) -> None:
        """Only for a new log: one that has events has an administrator, and a missing file was removed on purpose."""
        file = self.data / "admin.token"
        if file.exists():
            return
        from eventlog.read import LogReader

        with closing(LogReader(self.postgres.owner())) as reader:
            if reader.end() == 0:
                write_secret(file, f"berth_{secrets.token_urlsafe(32)}\n")

    def _variables_of_processes(self) -> dict[str, dict[str, str]]:
        """The processes beside PostgreSQL and NATS, each with the environment variables that it alone has."""
        controllers = self.settings.controllers
        engines = self._engines()
        sockets = {name: self.data / f"{name}.sock" for name in engines}
        return {
            **{name: {**self._as("engine"), **_sockets(sockets[name])} for name in engines},
            "api": {**self._as("api"), **_sockets(*sockets.values())},
            "projector": {},
            "relay": self._as("relay"),
            "dispatcher": self._as("dispatcher"),
            **{
                "controller" if len(controllers) == 1 else f"controller-{name}": {
                    **self._as(f"controller-{name}"),
                    variable_of("controllers"): name,
                }
                for name in controllers
            },
            "past": self._as("past"),
        }

    def _engines(self) -> tuple[str, ...]:
        if self.settings.standby:
            return "engine", "engine-standby"
        return () if self.settings.engine == "local" else ("engine",)

    def _as(self, user: str) -> dict[str, str]:
        return {variable_of("nats_credentials"): str(self.nats.credentials[user])}

    def _keep(self, name: str, overrides: Mapping[str, str]) -> None:
        settings = msgspec.structs.replace(
            self.settings,
            engine="remote" if self._engines() else "local",
            postgres=self.postgres.service_without_password(),
            postgres_password_file=self.postgres.service_password_file,
            nats=self.nats.url,
            admin_token_file=self.data / "admin.token",
            log_file=self._log_file(name),
        )
        inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("BERTH_")}
        environment = {**inherited, **settings.environment(), **overrides}

        def launch(stream: IO[bytes]) -> subprocess.Popen[bytes]:
            return child.spawn(
                [sys.executable, "-m", "workers", name.partition("-")[0]],
                log=stream,
                signal_at_our_death=signal.SIGTERM,
                environment=environment,
                directory=ROOT,
            )

        self.processes[name] = RestartedProcess(name, launch, log_file=self._log_file(name))
        self.processes[name].launch()
        self._write_files()

    def _log_file(self, name: str) -> Path:
        return self.data / "log" / f"{name}.log"

    def _await_ready(self) -> None:
        """Wait for the API, then briefly for all others: one that needs an operator (`berth relay rebuild`) must not
        keep the platform from starting."""
        self._await("/readyz/api", within_s=READY_S_MAX)
        if self.wakeups.is_stopping:
            return
        if not self._is_so("/readyz/api"):
            api = self.processes["api"].log_file
            reason = f"Berth was not ready within {READY_S_MAX:.0f} s. The end of {api}:"
            raise CannotStart(f"{reason}\n{embedded.last_lines(api)}")
        self._await("/readyz", within_s=ALL_READY_S_MAX)
        if not self.wakeups.is_stopping and not self._is_so("/readyz"):
            print(f"Some component is not ready: {self.url}/readyz says which, and why.", flush=True)

    def _await(self, path: str, *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not self.wakeups.is_stopping and time.monotonic() < deadline and not self._is_so(path):
            self._revive()
            self.wakeups.wait(0.05)

    def _is_so(self, path: str) -> bool:
        return own_api.answers(self.settings.host, self.settings.port, path)

    def _revive(self) -> None:
        revived = [process for process in self.processes.values() if process.revive()]
        if revived:
            self._write_files()

    def _load_sample(self) -> None:
        """What `berth apply -f examples/site.yaml` does, as the first admin, if nothing is there yet."""
        token_file = self.data / "admin.token"
        if not token_file.exists():  # then the log is not new
            return
        token = token_file.read_text().strip()
        if not SAMPLE.exists() or not own_api.has_no_tenants(self.settings.host, self.settings.port, token=token):
            return
        print("Loading the sample site …", flush=True)
        with open(self._log_file("sample"), "ab") as stream:
            loading = child.spawn(
                [sys.executable, "-m", "cli.main", "apply", "-f", SAMPLE, "--token-file", token_file],
                log=stream,
                signal_at_our_death=signal.SIGTERM,
                environment={**os.environ, "BERTH_URL": self.url},
                directory=ROOT,
            )
        while loading.poll() is None and not self.wakeups.is_stopping:
            self._revive()
            self.wakeups.wait(1.0)
        if loading.poll() is None:
            loading.terminate()
            loading.wait()
        elif loading.returncode:
            lines = embedded.last_lines(self.data / "log" / "sample.log")
            log.error("sample site not loaded", exit=loading.returncode, last_lines=lines)

    def _write_files(self) -> None:
        pids = {name: process.pid for name, process in self.processes.items() if process.pid is not None}
        identities = {name: who for name, pid in pids.items() if (who := child.identity(pid)) is not None}
        write_secret(self.data / "pids.json", msgspec.json.encode(identities).decode())
        if not self.is_announced:
            return
        endpoints = {
            "http": self.url,
            "postgres": self.postgres.service_url(),
            "nats": self.nats.url,
            "nats_credentials": str(self.nats.credentials["reader"]),
            "token_file": str(self.data / "admin.token"),
            "pids": {"supervisor": os.getpid(), **pids},
        }
        write_secret(self.data / "endpoints.json", json.dumps(endpoints, indent=1) + "\n")


def _sockets(*paths: Path) -> dict[str, str]:
    return {variable_of("engine_sockets"): ",".join(map(str, paths))}


def run(settings: Settings) -> int:
    """Run the platform until it is told to stop; the exit code."""
    try:
        data = open_directory(settings.data)
        lock = lock_directory(data)
        with lock:
            end_leftovers(data)
            settings = msgspec.structs.replace(settings, data=data, port=_port(settings))
            return _run_locked(settings)
    except (CannotStart, embedded.EmbeddedFailed) as reason:
        print(reason, file=sys.stderr)
        return 1


def _run_locked(settings: Settings) -> int:
    (settings.data / "log").mkdir(mode=0o700, exist_ok=True)
    platform = Platform(settings, wakeups=Wakeups())
    try:
        platform.start()
        platform.keep_running()
    finally:
        platform.stop()
    print("Berth has stopped.", flush=True)
    return 0


def _port(settings: Settings) -> int:
    if settings.port == 0:
        return embedded.free_port(settings.host)
    if not embedded.is_free(settings.port, settings.host):
        raise CannotStart(
            f"Port {settings.port} of {settings.host} is taken by another program. "
            "Set BERTH_PORT to another one, or to 0 for any that is free."
        )
    return settings.port
