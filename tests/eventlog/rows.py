"""Builders of rows for the tests of the log: the values that matter are named, the rest is made up."""

from collections.abc import Sequence
from typing import Any

from domain.command import CommandAccepted
from domain.host import HostCordoned
from domain.recorded import LogOpened, Recorded
from eventlog import codec
from eventlog.append import LogConnection
from eventlog.codec import Row


def a_row(position: int, stream: str = "host/r1-h1", *, at: int | None = None, event: Any = None) -> Row:
    version = 1 if stream.startswith("command/") else position
    time = position if at is None else at
    return codec.encode(Recorded(stream, version, position, time, "ann", "c-1", event or HostCordoned()))


def rows_after(base: int, count: int) -> list[Row]:
    return [a_row(base + n) for n in range(1, count + 1)]


def a_command_row(position: int, key: str, *, at: int | None = None) -> Row:
    accepted = CommandAccepted(id="c-1", command="host.cordon", role="operator", request={})
    return a_row(position, f"command/ann/{key}", at=at, event=accepted)


def the_first_row(*, at: int = 1) -> Row:
    return a_row(1, "log", at=at, event=LogOpened("5f0c"))


async def a_leader(conninfo: str) -> LogConnection:
    connection = await LogConnection.connect(conninfo)
    assert await connection.try_lock()
    return connection


async def an_open_log(conninfo: str, rows: Sequence[Row] = ()) -> LogConnection:
    """A leader's connection to a log that holds its first row, and `rows` after it."""
    leader = await a_leader(conninfo)
    await leader.append(0, [the_first_row(), *rows])
    return leader
