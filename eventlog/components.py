"""How each part of the platform fares, told by itself: a row an instance, beside the log, which the API reads.

    relay, dispatcher, projector, past ─► Health ─► telling ─► berth.components ─► standings ─► /readyz, /metrics

It is told through PostgreSQL, as nobody can do anything without that, while NATS may be the very thing that is wrong.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import psycopg
from eventsourcing.persistence import PersistenceError
from psycopg.sql import SQL

from eventlog.table import COMPONENTS_TABLE, CONNECT_TIMEOUT_S
from eventlog.tasks import end_tasks

INTERVAL_S = 2.0
RETRY_S = 1.0
# So long a component may be away, or in trouble: a restart, a fail-over, a lost connection.
GRACE_S = 10.0
FORGOTTEN_AFTER = "1 hour"  # instances that are gone

_TELL = SQL(
    "INSERT INTO {components} AS c (component, instance, state, reason, at, ok_at)"
    " VALUES (%(component)s, %(instance)s, %(state)s, %(reason)s, now(), CASE %(state)s WHEN 'ok' THEN now() END)"
    " ON CONFLICT (component, instance) DO UPDATE SET state = excluded.state, reason = excluded.reason, at = now(),"
    " ok_at = coalesce(excluded.ok_at, c.ok_at)"
).format(components=COMPONENTS_TABLE)
_FORGET = SQL("DELETE FROM {} WHERE at < now() - %s::interval").format(COMPONENTS_TABLE)
_READ = SQL(
    "SELECT component, state, reason, extract(epoch FROM now() - at)::float8,"
    " extract(epoch FROM now() - ok_at)::float8 FROM {}"
).format(COMPONENTS_TABLE)

State = Literal["ok", "troubled", "stopped"]
Connection = psycopg.AsyncConnection[Any]


class Health:
    """What a process of ours says of itself. Nothing is told before it has said anything.

    `troubled`: it tries again by itself, and is not ready when that lasts longer than `GRACE_S`. `stopped`: a person
    must do something. The reason is read by everybody: no addresses, nothing secret.
    """

    def __init__(self, component: str) -> None:
        self.component = component
        self.state: State | None = None
        self.reason = ""
        self._changed = asyncio.Event()

    def ok(self) -> None:
        self._now("ok", "")

    def troubled(self, reason: str) -> None:
        self._now("troubled", reason)

    def stopped(self, reason: str) -> None:
        self._now("stopped", reason)

    async def changed(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    def _now(self, state: State, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self._changed.set()


def reason_of(error: Exception) -> str:
    """What may be told to everybody of an error that is not of our own making."""
    if isinstance(error, psycopg.Error | PersistenceError):
        return "PostgreSQL is not reached, or refuses."
    if isinstance(error, OSError):
        return "A server is not reached."
    return f"NATS: {str(error) or type(error).__name__}".partition('"')[0]  # what follows names an inbox


class Told(msgspec.Struct, frozen=True):
    """What an instance told last: `age_s` ago, and that it was well `ok_s` ago, if it ever was."""

    component: str
    state: State
    reason: str
    age_s: float
    ok_s: float | None


class Standing(msgspec.Struct, frozen=True):
    """A component as a whole: as well as the best of its instances."""

    name: str
    state: Literal["ok", "troubled", "stopped", "silent"]
    reason: str = ""
    is_ready: bool = True


@asynccontextmanager
async def telling(conninfo: str, health: Health) -> AsyncIterator[Health]:
    """Tell when it changes and each `INTERVAL_S`, for as long as this is open, and once more at its end."""
    instance = f"{socket.gethostname()}:{os.getpid()}"
    task = asyncio.create_task(_tell_for_ever(conninfo, health, instance))
    try:
        yield health
    finally:
        await end_tasks(task)
        if health.state == "stopped":  # why it ends
            with contextlib.suppress(psycopg.Error, OSError):
                async with await _connect(conninfo) as connection:
                    await _tell(connection, health, instance)


def standing(component: str, told: Iterable[Told]) -> Standing:
    """How a component stands by what its instances told."""
    own = sorted((one for one in told if one.component == component), key=lambda one: one.age_s)
    if not own:
        return Standing(component, "silent", "It has never told anything: is it running?", False)
    if any(one.state == "ok" and one.age_s <= GRACE_S for one in own):
        return Standing(component, "ok")
    newest = own[0]
    was_ok_s = min((one.ok_s for one in own if one.ok_s is not None), default=None)
    is_ready = was_ok_s is not None and was_ok_s <= GRACE_S
    if newest.state == "stopped":
        return Standing(component, "stopped", newest.reason, False)
    if newest.age_s > GRACE_S:
        return Standing(component, "silent", f"It has told nothing for {newest.age_s:.0f} s: is it running?", is_ready)
    return Standing(component, "troubled", newest.reason, is_ready)


async def read(connection: Connection) -> list[Told]:
    return [Told(*row) for row in await (await connection.execute(_READ)).fetchall()]


async def _tell_for_ever(conninfo: str, health: Health, instance: str) -> None:
    while True:
        try:
            async with await _connect(conninfo) as connection:
                await connection.execute(_FORGET, (FORGOTTEN_AFTER,))
                while True:
                    if health.state is not None:
                        await _tell(connection, health, instance)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(health.changed(), INTERVAL_S)
        except (psycopg.Error, OSError):
            await asyncio.sleep(RETRY_S)


async def _tell(connection: Connection, health: Health, instance: str) -> None:
    values = {
        "component": health.component,
        "instance": instance,
        "state": health.state,
        "reason": health.reason.replace("\0", "")[:500],
    }
    await connection.execute(_TELL, values)


async def _connect(conninfo: str) -> Connection:
    return await psycopg.AsyncConnection.connect(
        conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="components"
    )
