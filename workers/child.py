"""Child processes that end with us, whatever ends us, and that can be told from strangers who got their process id.

A supervisor that is killed with -9 can clean nothing up, so the kernel does it (`PR_SET_PDEATHSIG`); what the kernel
missed is found at the next start by process id *and* start time.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

PR_SET_PDEATHSIG, PR_SET_SECUREBITS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
SECBIT_NO_SETUID_FIXUP = 4
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
LIBC = ctypes.CDLL(None, use_errno=True)
# A process that lived this long is started again at once; one that dies sooner waits, twice as long each time.
STEADY_S = 10.0
BACK_OFF_S_FIRST, BACK_OFF_S_MAX = 0.1, 2.0


class Identity(msgspec.Struct, frozen=True):
    """One run of one process: process ids are used again, start times (clock ticks since boot) are not."""

    pid: int
    started: int


class User(msgspec.Struct, frozen=True):
    """Whom a child runs as. `passes_closed_directories` lets it go through directories that root closed to others."""

    uid: int
    gid: int
    passes_closed_directories: bool = False

    @classmethod
    def named(cls, name: str) -> "User":
        entry = pwd.getpwnam(name)
        return cls(entry.pw_uid, entry.pw_gid)


def spawn(
    arguments: Sequence[str | Path],
    *,
    log: IO[bytes],
    signal_at_our_death: signal.Signals,
    user: User | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path = Path("/"),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that a Ctrl-C in the terminal reaches us alone.

    To be called in the main thread: the kernel takes the death of the *thread* that spawned for ours.
    """
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        stdin=stdin,
        stdout=log,
        stderr=log,
        cwd=directory,
        env=None if environment is None else dict(environment),
        start_new_session=True,
        preexec_fn=_before_exec(user, signal_at_our_death, os.getpid()),
    )


def _before_exec(user: User | None, at_our_death: signal.Signals, parent: int) -> Callable[[], None]:
    def prepare() -> None:
        if user is not None:
            _become(user)
        # After the change of user, which clears it.
        LIBC.prctl(PR_SET_PDEATHSIG, at_our_death, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _become(user: User) -> None:
    if user.passes_closed_directories:
        # Keeps the capabilities over setuid(), and in access(), by which initdb looks for its neighbours.
        LIBC.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(user.gid)
    os.setuid(user.uid)
    if user.passes_closed_directories:
        bit = 1 << CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        # Two 32-bit halves of effective, permitted, inheritable; ambient ones survive the exec.
        sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # positional: an array has no names
        if LIBC.capset(header, sets) or LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0):
            raise PermissionError(ctypes.get_errno(), "cannot keep the capability to pass closed directories")


def back_off_s(deaths_in_a_row: int) -> float:
    """How long to wait before one that ended is started again."""
    if deaths_in_a_row == 0:
        return 0.0
    doublings = min(deaths_in_a_row - 1, 10)
    return min(BACK_OFF_S_FIRST * (1 << doublings), BACK_OFF_S_MAX)


def identity(pid: int) -> Identity | None:
    """None if there is no such process, or if it has ended and waits to be reaped."""
    try:
        # The name, in parentheses, may hold anything: fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else Identity(pid, int(fields[19]))


def is_running(who: Identity) -> bool:
    return identity(who.pid) == who


def end(who: Identity, *, with_signal: signal.Signals, patience_s: float) -> None:
    """Ask it to stop, and after `patience_s` kill it; returns when it is gone."""
    for number, wait_s in ((with_signal, patience_s), (signal.SIGKILL, 5.0)):
        if not is_running(who):
            return
        try:
            os.kill(who.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + wait_s
        while is_running(who) and time.monotonic() < deadline:
            time.sleep(0.01)
