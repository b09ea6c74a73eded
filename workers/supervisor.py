"""`berth up`: the whole platform on one machine, as children of this process, which keeps every one of them running.

    lock the data directory → end what a killed supervisor left → PostgreSQL, NATS → schema → api and the others
    → ready → sample site → endpoints.json → keep them running until SIGTERM or Ctrl-C → stop them, PostgreSQL last

One thread, woken by signals (a child's death is one): nothing here waits on anything without a limit.
"""

import fcntl
import http.client
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec
import structlog

from workers import child, embedded
from workers.log import FILE_BYTES_MAX
from workers.nats_config import write_secret
from workers.settings import Settings, variable_of

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "site.yaml"
ALL_READY_S_MAX = 20.0
READY_S_MAX = 60.0
STOP_S_MAX = 4.0
POSTGRES_STOP_S_MAX = 10.0

log = structlog.get_logger()


class CannotStart(Exception):
    """The platform cannot be brought up; the message is for the person who asked for it."""


class Kept:
    """A child that is started again whenever it ends."""

    def __init__(
        self,
        name: str,
        launch: Callable[[IO[bytes]], subprocess.Popen[bytes]],
        *,
        log_file: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self.stop_signal = stop_signal
        self._launch = launch
        self._deaths_in_a_row = 0
        self._launched_at = 0.0
        self._due_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with open(self.log_file, "ab") as stream:
            self.adopt(self._launch(stream))

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self._launched_at = process, time.monotonic()

    def revive(self) -> bool:
        """Start it again if it ended and its back-off is over; whether it was started."""
        now = time.monotonic()
        if self.process is not None:
            if (exit_code := self.process.poll()) is None:
                return False
            self.process = None
            self._deaths_in_a_row = 0 if now - self._launched_at >= child.STEADY_S else self._deaths_in_a_row + 1
            self._due_at = now + child.back_off_s(self._deaths_in_a_row)
            last_lines = embedded.last_lines(self.log_file)
            log.warning("process ended", process=self.name, exit=exit_code, last_lines=last_lines)
        if now < self._due_at:
            return False
        try:
            self.launch()
        except (OSError, subprocess.SubprocessError, embedded.EmbeddedFailed) as failure:
            log.error("process not started", process=self.name, reason=str(failure))
            self._due_at = now + child.BACK_OFF_S_MAX
            return False
        log.info("process restarted", process=self.name, pid=self.pid)
        return True

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    @property
    def due_in_s(self) -> float | None:
        """How long until it is to be started again; None while it runs."""
        return None if self.process is not None else max(0.0, self._due_at - time.monotonic())

    def cut_log(self) -> None:
        """Of one that can't put its own file aside. The last one is kept; lines that come in between are lost."""
        if self.log_file.stat().st_size > FILE_BYTES_MAX:
            shutil.copyfile(self.log_file, self.log_file.with_suffix(".log.1"))
            os.truncate(self.log_file, 0)

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def await_end(self, deadline: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process killed", process=self.name, reason="it did not stop in time")
            self.process.kill()
            self.process.wait()


class Wakeups:
    """Waiting that ends when a signal comes: a child ended, or somebody wants us to stop."""

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
        self.kept: dict[str, Kept] = {}
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
        for name, overrides in self._processes().items():
            self._keep(name, overrides)
        self._await_ready()
        if self.settings.sample and not self.wakeups.is_stopping:
            self._load_sample()
        if not self.wakeups.is_stopping:
            greeting = self._greeting()
            self.is_announced = True
            self._write_files()
            print(greeting, flush=True)

    def keep_running(self) -> None:
        while not self.wakeups.is_stopping:
            self._revive()
            for server in (self.postgres, self.nats):
                self.kept[server.name].cut_log()
            self.wakeups.wait(
                min((due for kept in self.kept.values() if (due := kept.due_in_s) is not None), default=5.0)
            )

    def stop(self) -> None:
        """The api first, so that nothing new comes in; PostgreSQL last, as all the others use it."""
        (self.data / "endpoints.json").unlink(missing_ok=True)
        servers = ("nats", "postgres")
        others = [name for name in self.kept if name not in ("api", *servers)]
        for names in (["api"], others, ["nats"], ["postgres"]):
            leaving = [self.kept[name] for name in names if name in self.kept]
            for kept in leaving:
                kept.ask_to_stop()
            deadline = time.monotonic() + (POSTGRES_STOP_S_MAX if names == ["postgres"] else STOP_S_MAX)
            for kept in leaving:
                kept.await_end(deadline)
        (self.data / "pids.json").unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.settings.port}"

    def _bring_up(self, server: embedded.Server) -> None:
        kept = Kept(server.name, server.launch, log_file=self._log_file(server.name), stop_signal=server.stop_signal)
        self.kept[server.name] = kept
        with open(kept.log_file, "ab") as stream:
            kept.adopt(embedded.bring_up(server, stream))
        self._write_files()

    def _prepare_schema(self) -> None:
        from eventlog import schema

        schema.prepare(
            self.postgres.owner(),
            service_role=embedded.SERVICE,
            service_password=self.postgres.service_password_file.read_text().strip(),
        )

    def _make_admin_token(self) -> None:
        """For a new log alone: beside one that has its administrator, a file that is missing was taken away."""
        file = self.data / "admin.token"
        if file.exists():
            return
        from eventlog.read import LogReader

        with closing(LogReader(self.postgres.owner())) as reader:
            if reader.end() == 0:
                write_secret(file, f"berth_{secrets.token_urlsafe(32)}\n")

    def _processes(self) -> dict[str, dict[str, str]]:
        """What runs beside the servers, with the variables that are this process' own."""
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

        self.kept[name] = Kept(name, launch, log_file=self._log_file(name))
        self.kept[name].launch()
        self._write_files()

    def _log_file(self, name: str) -> Path:
        return self.data / "log" / f"{name}.log"

    def _await_ready(self) -> None:
        """Until the API decides and reads. All others come up meanwhile; one that needs a person (`berth relay
        rebuild`) gets the person only when all else runs, so it is waited for a moment, not for good."""
        self._await("/readyz/api", within_s=READY_S_MAX)
        if self.wakeups.is_stopping:
            return
        if not self._is_so("/readyz/api"):
            api = self.kept["api"].log_file
            reason = f"Berth was not ready within {READY_S_MAX:.0f} s. The end of {api}:"
            raise CannotStart(f"{reason}\n{embedded.last_lines(api)}")
        self._await("/readyz", within_s=ALL_READY_S_MAX)
        if not self.wakeups.is_stopping and not self._is_so("/readyz"):
            print(f"Some part is not as it should be: {self.url}/readyz says which, and why.", flush=True)

    def _await(self, path: str, *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not self.wakeups.is_stopping and time.monotonic() < deadline and not self._is_so(path):
            self._revive()
            self.wakeups.wait(0.05)

    def _is_so(self, path: str) -> bool:
        return _answers(self.settings.host, self.settings.port, path)

    def _revive(self) -> None:
        revived = [kept for kept in self.kept.values() if kept.revive()]
        if revived:
            self._write_files()

    def _load_sample(self) -> None:
        """What `berth apply -f examples/site.yaml` does, as the first admin, if nothing is there yet."""
        token_file = self.data / "admin.token"
        if not token_file.exists():  # so the log is not new
            return
        token = token_file.read_text().strip()
        if not SAMPLE.exists() or not _is_empty(self.settings.host, self.settings.port, token):
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
        pids = {name: kept.pid for name, kept in self.kept.items() if kept.pid is not None}
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

    def _greeting(self) -> str:
        file = self.data / "admin.token"
        berth = _as_typed(Path(sys.executable).parent / "berth")
        if file.exists():
            told = f"The admin token is in {file}\n{self._suggestions(berth, file)}"
        else:
            remedy = f"`{berth} token reset admin --data {self.data}`"
            told = f"The file {file} is not there; {remedy} makes a new token."
        return f"Berth is ready at {self.url}\n{told}\nCtrl-C stops it."

    def _suggestions(self, berth: str, token_file: Path) -> str:
        """What works on the site as it is: where the sample's is not, a VM would need a tenant and a group first."""
        path, body, kind = "tenants", '{"name":"payments"}', "tenants"
        if self._is_there("/v1/groups/std/quotas/payments", token_file.read_text().strip()):
            body = '{"tenant":"payments","name":"web-1","group":"std","resources":{"cpu":4,"memory_mib":8192}}'
            path, kind = "vms", "hosts"
        return (
            "Three things to try:\n"
            f"  export BERTH_URL={self.url} BERTH_TOKEN=$(cat {token_file})\n"
            f"  1. curl -i $BERTH_URL/v1/{path} -H \"Authorization: Bearer $BERTH_TOKEN\" -H 'Prefer: wait=10' "
            f"-H 'Content-Type: application/json' -d '{body}'\n"
            f"  2. {berth} get {kind}\n"
            f"  3. open {self.url}/docs"
        )

    def _is_there(self, path: str, token: str) -> bool:
        headers = {"Authorization": f"Bearer {token}"}
        return _get(self.settings.host, self.settings.port, path, headers=headers)[0] == http.client.OK


def _sockets(*paths: Path) -> dict[str, str]:
    return {variable_of("engine_sockets"): ",".join(map(str, paths))}


def run(settings: Settings) -> int:
    """Run the platform until it is told to stop; the exit code."""
    try:
        data = _open_directory(settings.data)
        lock = _lock(data)
        with lock:
            _end_leftovers(data)
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


def _open_directory(data: Path) -> Path:
    # As root, PostgreSQL's user must pass through; it can read nothing in it but its own cluster.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    try:
        data = data.absolute()
        data.parent.mkdir(parents=True, exist_ok=True)
        data.mkdir(mode=mode, exist_ok=True)
        probe = data / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise CannotStart(
            f"The data directory {data} cannot be used: {reason}. Set BERTH_DATA to another one."
        ) from None
    return data


def _lock(data: Path) -> IO[str]:
    """Hold the directory for as long as the file is open: the kernel lets go of it however we end."""
    # Its owner's alone: whoever may open it may hold it, and so keep us from starting.
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    file = open(descriptor, "a+")  # noqa: SIM115 – it is held, and so open, until the end
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise CannotStart(f"The data directory {data} is held by the supervisor with process id {holder}.") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _end_leftovers(data: Path) -> None:
    """The kernel told the children of a killed supervisor to stop: wait for them, and kill who does not."""
    (data / "endpoints.json").unlink(missing_ok=True)
    file = data / "pids.json"
    if not file.exists():
        return
    try:
        left = msgspec.json.decode(file.read_bytes(), type=dict[str, child.Identity])
    except msgspec.DecodeError:
        left = {}
    # In the order in which they are stopped: servers were started first.
    for name, who in reversed(left.items()):
        is_postgres = name == "postgres"
        with_signal = signal.SIGINT if is_postgres else signal.SIGTERM
        child.end(who, with_signal=with_signal, patience_s=POSTGRES_STOP_S_MAX if is_postgres else STOP_S_MAX)
    file.unlink()


def _port(settings: Settings) -> int:
    if settings.port == 0:
        return embedded.free_port(settings.host)
    if not embedded.is_free(settings.port, settings.host):
        raise CannotStart(
            f"Port {settings.port} of {settings.host} is taken by another program. "
            "Set BERTH_PORT to another one, or to 0 for any that is free."
        )
    return settings.port


def _as_typed(program: Path) -> str:
    """As a person who stands where we were started would type it."""
    if shutil.which("berth") == str(program):
        return "berth"
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)


def _answers(host: str, port: int, path: str) -> bool:
    return _get(host, port, path, headers={})[0] == http.client.OK


def _is_empty(host: str, port: int, token: str) -> bool:
    status, body = _get(host, port, "/v1/tenants?limit=1", headers={"Authorization": f"Bearer {token}"})
    return status == http.client.OK and not json.loads(body)["items"]


def _get(host: str, port: int, path: str, *, headers: Mapping[str, str]) -> tuple[int | None, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
