"""The health of each part of the platform, as it reports it: a row an instance, beside the log, which the API reads.

    relay, dispatcher, projector, past ─► Health ─► reporting ─► berth.components ─► status_of ─► /readyz, /metrics

It goes through PostgreSQL, without which nothing works anyway, while NATS may be the very thing that is wrong.
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

_REPORT = SQL(
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
    """What a process says of itself. Nothing is reported before it has said anything.

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
    """What anybody may read about an error that PostgreSQL, NATS or the network caused."""
    if isinstance(error, psycopg.Error | PersistenceError):
        return "PostgreSQL can't be reached, or refuses."
    if isinstance(error, OSError):
        return "A server can't be reached."
    return f"NATS: {str(error) or type(error).__name__}".partition('"')[0]  # what follows names an inbox


class InstanceReport(msgspec.Struct, frozen=True):
    """The last report of an instance, `age_s` old; it was last healthy `ok_s` ago, if it ever was."""

    component: str
    state: State
    reason: str
    age_s: float
    ok_s: float | None


class ComponentStatus(msgspec.Struct, frozen=True):
    """A component as a whole: as well as the best of its instances."""

    name: str
    state: Literal["ok", "troubled", "stopped", "silent"]
    reason: str = ""
    is_ready: bool = True


@asynccontextmanager
async def reporting(conninfo: str, health: Health) -> AsyncIterator[Health]:
    """Report each change, and every `INTERVAL_S`, while this is open; and once more at its end."""
    instance = f"{socket.gethostname()}:{os.getpid()}"
    task = asyncio.create_task(_report_for_ever(conninfo, health, instance))
    try:
        yield health
    finally:
        await end_tasks(task)
        if health.state == "stopped":  # why it ends
            with contextlib.suppress(psycopg.Error, OSError):
                async with await _connect(conninfo) as connection:
                    await _report(connection, health, instance)


def status_of(component: str, reports: Iterable[InstanceReport]) -> ComponentStatus:
    """The status of a component by what its instances reported."""
    own = sorted((one for one in reports if one.component == component), key=lambda one: one.age_s)
    if not own:
        return ComponentStatus(component, "silent", "It has never reported: is it running?", False)
    if any(one.state == "ok" and one.age_s <= GRACE_S for one in own):
        return ComponentStatus(component, "ok")
    newest = own[0]
    was_ok_s = min((one.ok_s for one in own if one.ok_s is not None), default=None)
    is_ready = was_ok_s is not None and was_ok_s <= GRACE_S
    if newest.state == "stopped":
        return ComponentStatus(component, "stopped", newest.reason, False)
    if newest.age_s > GRACE_S:
        return ComponentStatus(
            component, "silent", f"It has not reported for {newest.age_s:.0f} s: is it running?", is_ready
        )
    return ComponentStatus(component, "troubled", newest.reason, is_ready)


async def read(connection: Connection) -> list[InstanceReport]:
    return [InstanceReport(*row) for row in await (await connection.execute(_READ)).fetchall()]


async def _report_for_ever(conninfo: str, health: Health, instance: str) -> None:
    while True:
        try:
            async with await _connect(conninfo) as connection:
                await connection.execute(_FORGET, (FORGOTTEN_AFTER,))
                while True:
                    if health.state is not None:
                        await _report(connection, health, instance)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(health.changed(), INTERVAL_S)
        except (psycopg.Error, OSError):
            await asyncio.sleep(RETRY_S)


async def _report(connection: Connection, health: Health, instance: str) -> None:
    values = {
        "component": health.component,
        "instance": instance,
        "state": health.state,
        "reason": health.reason.replace("\0", "")[:500],
    }
    await connection.execute(_REPORT, values)


async def _connect(conninfo: str) -> Connection:
    return await psycopg.AsyncConnection.connect(
        conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="components"
    )
