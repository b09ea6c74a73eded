"""Real servers: one PostgreSQL a run with a database for each test, a NATS for each test, a platform for a session."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.servers import Cluster
from workers import child, embedded
from workers.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
START_S_MAX = 60.0


class Database(msgspec.Struct, frozen=True):
    """A database of a test's own, with Berth's schema: connection strings of its owner and of the service's role."""

    owner: str
    service: str


class NatsServer(msgspec.Struct, frozen=True):
    """A nats-server of a test's own: its URL, and each user's credentials file."""

    url: str
    credentials: dict[str, Path]

    def options(self, user: str) -> dict[str, Any]:
        """Keyword arguments for `nats.connect` as `user`, such as `relay`, `controller-vm` or `reader`."""
        return Settings(nats=self.url, nats_credentials=self.credentials[user]).nats_options()


class Platform(msgspec.Struct, frozen=True):
    """A running platform: its data directory, what stands in `endpoints.json`, the first admin's token."""

    data: Path
    endpoints: dict[str, Any]
    token: str

    @property
    def url(self) -> str:
        return str(self.endpoints["http"])


def eventually(condition: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        time.sleep(0.02)
    return result


def reachable_directory(prefix: str) -> Path:
    """A new directory that everybody may pass: as root, PostgreSQL runs as another user, who must reach it."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)
    return directory


@pytest.fixture(name="eventually", scope="session")
def eventually_fixture() -> Callable[..., Any]:
    return eventually


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory of a test's own; it does not exist yet."""
    directory = reachable_directory("berth-data-")
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The run's PostgreSQL, shared by all of its processes."""
    run = getattr(request.config, "workerinput", {}).get("testrunuid", str(os.getpid()))
    directory = Path(tempfile.gettempdir()) / f"berth-tests-{run}"
    directory.mkdir(mode=0o755, exist_ok=True)
    with open(directory / "users", "a") as users, open(directory / "starting", "a") as starting:
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        file = directory / "cluster.json"
        if not file.exists():
            _start_servers(directory)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield msgspec.json.decode(file.read_bytes(), type=Cluster)


def _start_servers(directory: Path) -> None:
    with open(directory / "servers.log", "ab") as log:
        # Not our child in any way that matters: it outlives us if another of the run's processes needs it longer.
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.servers", str(directory)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def is_up() -> bool:
        assert server.poll() is None, (directory / "servers.log").read_text()
        return (directory / "cluster.json").exists()

    eventually(is_up, within_s=START_S_MAX)


@contextmanager
def making_roles(postgres: Cluster) -> Iterator[None]:
    """Roles belong to the whole cluster: two tests must not make or change them at once."""
    with psycopg.connect(postgres.owner) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(1)")
        yield


@pytest.fixture
def database(postgres: Cluster) -> Iterator[Database]:
    """An empty log in a database of the test's own."""
    from eventlog import schema

    name = f"test_{uuid.uuid4().hex}"
    owned = Database(make_conninfo(postgres.owner, dbname=name), make_conninfo(postgres.service, dbname=name))
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with making_roles(postgres):
            schema.prepare(owned.owner, service_role=embedded.SERVICE, service_password=postgres.service_password)
        yield owned
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def nats_server(data: Path) -> Iterator[NatsServer]:
    """A NATS of the test's own, without streams: starting it takes less than emptying one."""
    data.mkdir()
    server = embedded.Nats(data, controllers=("vm",))
    with open(data / "nats.log", "ab") as log:
        process = embedded.bring_up(server, log)
    yield NatsServer(server.url, server.credentials)
    process.kill()
    process.wait()


@pytest.fixture
def supervisors(eventually: Callable[..., Any]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts supervisors, and ends those that are left when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def start(data: Path, **variables: str) -> subprocess.Popen[bytes]:
        process = start_supervisor(data, **variables)
        started.append(process)
        return process

    yield start
    for process in started:
        stop_supervisor(process)


def start_supervisor(data: Path, *, code: Path = ROOT, **variables: str) -> subprocess.Popen[bytes]:
    """`python -m workers supervisor` on a free port, without the sample; its output goes to `<data>.log`. `code` is
    where the packages are that it runs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    defaults = {"BERTH_DATA": str(data), "BERTH_PORT": "0", "BERTH_SAMPLE": "0"}
    with open(data.with_suffix(".log"), "ab") as log:
        return child.spawn(
            [sys.executable, "-m", "workers", "supervisor"],
            log=log,
            signal_at_our_death=signal.SIGTERM,
            environment={**inherited, **defaults, **variables},
            directory=code,
        )


def stop_supervisor(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def endpoints_of(data: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What the supervisor wrote when it was ready."""
    file = data / "endpoints.json"

    def is_ready() -> bool:
        assert process.poll() is None, data.with_suffix(".log").read_text()
        return file.exists()

    eventually(is_ready, within_s=START_S_MAX)
    return dict(json.loads(file.read_text()))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The whole platform, as `berth up` runs it, empty; shared by the tests of a session, so use names of your own."""
    directory = reachable_directory("berth-platform-")
    data = directory / "data"
    process = start_supervisor(data)
    try:
        endpoints = endpoints_of(data, process)
        yield Platform(data, endpoints, Path(endpoints["token_file"]).read_text().strip())
    finally:
        stop_supervisor(process)
        shutil.rmtree(directory, ignore_errors=True)
