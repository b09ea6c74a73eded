"""The data directory of a platform: made, held by one supervisor at a time, and cleared of what a killed one left."""

import fcntl
import os
import signal
from pathlib import Path
from typing import IO

import msgspec

from workers import child

STOP_S_MAX = 4.0
POSTGRES_STOP_S_MAX = 10.0


class CannotStart(Exception):
    """The platform cannot be started; the message tells the operator why."""


def open_directory(data: Path) -> Path:
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


def lock_directory(data: Path) -> IO[str]:
    """Hold the directory while the file is open: the kernel releases the lock however this process ends."""
    # Only for its owner: anybody who can open the file could lock it and so keep the supervisor from starting.
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    file = open(descriptor, "a+")  # noqa: SIM115 – it stays open, and so locked, until the process ends
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


def end_leftovers(data: Path) -> None:
    """The kernel told the children of a killed supervisor to stop: wait for them, and kill those that do not."""
    (data / "endpoints.json").unlink(missing_ok=True)
    file = data / "pids.json"
    if not file.exists():
        return
    try:
        left = msgspec.json.decode(file.read_bytes(), type=dict[str, child.Identity])
    except msgspec.DecodeError:
        left = {}
    # In the order in which they are stopped, which is the reverse of that in which they were started.
    for name, who in reversed(left.items()):
        is_postgres = name == "postgres"
        with_signal = signal.SIGINT if is_postgres else signal.SIGTERM
        child.end(who, with_signal=with_signal, patience_s=POSTGRES_STOP_S_MAX if is_postgres else STOP_S_MAX)
    file.unlink()
