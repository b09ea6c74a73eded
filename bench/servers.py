"""Servers of a benchmark's own: PostgreSQL as durable as in production with an empty log, and NATS."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from eventlog import schema
from workers import embedded


class Servers(msgspec.Struct, frozen=True):
    data: Path
    postgres: embedded.Postgres
    nats: embedded.Nats

    @property
    def conninfo(self) -> str:
        """The service's connection string."""
        return self.postgres.service()


@contextmanager
def running() -> Iterator[Servers]:
    directory = Path(tempfile.mkdtemp(prefix="berth-bench-"))
    directory.chmod(0o755)  # as root PostgreSQL runs as another user, who must reach it
    postgres, nats = embedded.Postgres(directory), embedded.Nats(directory)
    processes = []
    try:
        for server in (postgres, nats):
            with open(directory / f"{server.name}.log", "ab") as log:
                processes.append(embedded.bring_up(server, log))
        password = postgres.service_password_file.read_text().strip()
        schema.prepare(postgres.owner(), service_role=embedded.SERVICE, service_password=password)
        yield Servers(directory, postgres, nats)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
