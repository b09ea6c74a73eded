"""`python -m tests.servers DIR`: one PostgreSQL for a whole test run, which may be many processes (pytest-xdist).

It runs until nobody shares the lock on `DIR/users` any more: however the tests end, it ends after the last of them.
"""

import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import msgspec
import psycopg

from workers import embedded
from workers.nats_config import write_secret


class Cluster(msgspec.Struct, frozen=True):
    """Where the run's PostgreSQL is: connection strings with passwords, of the owner and of the service's role."""

    owner: str
    service: str
    service_password: str


def main(directory: Path) -> None:
    postgres = embedded.Postgres(directory)
    with open(directory / "postgres.log", "ab") as log:
        process = embedded.bring_up(postgres, log)
    with psycopg.connect(postgres.owner(), autocommit=True) as connection:
        # A test's database outlives no power cut, and kill -9 loses nothing that was written: 2 × faster to make.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    password = postgres.service_password_file.read_text().strip()
    cluster = Cluster(postgres.owner(), postgres.service(), password)
    write_secret(directory / "cluster.json", msgspec.json.encode(cluster).decode())
    with open(directory / "users") as users:
        while not _is_alone(users.fileno()):
            time.sleep(0.2)
    process.send_signal(signal.SIGQUIT)  # nothing in it is to be kept
    process.wait()
    shutil.rmtree(directory, ignore_errors=True)


def _is_alone(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(Path(sys.argv[1]))
