"""Is the platform ready? Each component by itself, as this process can see it, looked at once a second at most.

The component `api` is this process: it reaches an engine that leads, and its reads show what the log holds. `engine` is
that some engine leads, by its heartbeat; `nats` the connection of this process. The others tell of themselves
(`eventlog.components`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from eventsourcing.persistence import PersistenceError

from eventlog import components, heartbeat
from eventlog.components import GRACE_S, ComponentStatus
from eventlog.read import LogReader, OtherHistory
from eventlog.table import CONNECT_TIMEOUT_S
from projections.queries import ReadModel

LOOK_S, LOOK_AGAIN_S = 1.0, 0.1
PATIENCE_S = 5.0
LAG_EVENTS_MAX = 10_000
REPORTING = ("projector", "relay", "dispatcher", "past")
NOT_REACHED = "PostgreSQL can't be reached."


class Readiness:
    """`leads` tells whether a command of this process would reach an engine that leads, as far as it knows."""

    def __init__(
        self,
        conninfo: str,
        *,
        reader: LogReader,
        model: ReadModel,
        leads: Callable[[], bool],
        is_connected: Callable[[], bool],
    ) -> None:
        self._conninfo = conninfo
        self._reader = reader
        self._model = model
        self._leads = leads
        self._is_connected = is_connected
        self._turn = asyncio.Lock()
        self._looked_at = -LOOK_S
        self._found: list[ComponentStatus] = []
        self._beat: heartbeat.Beat | None = None
        self._was_ok_at: dict[str, float] = {}

    async def component_statuses(self) -> list[ComponentStatus]:
        """Those of all components. Strangers may ask: whoever comes within a second gets the same."""
        async with self._turn:
            # While something is missing, sooner: `berth up` waits for it.
            kept_s = LOOK_S if all(one.is_ready for one in self._found) else LOOK_AGAIN_S
            if self._looked_at <= time.monotonic() - kept_s:
                self._found = await self._look()
                self._looked_at = time.monotonic()
            return self._found

    async def _look(self) -> list[ComponentStatus]:
        found = [await self._asked("api", self._api)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
                ) as connection:
                    reports = await components.read(connection)
                    found.append(self._with_grace("engine", await self._engine(connection)))
        except (psycopg.Error, OSError):
            found += (ComponentStatus(name, "troubled", NOT_REACHED, False) for name in ("engine", *REPORTING))
        else:
            found += (components.status_of(name, reports) for name in REPORTING)
        reason = "" if self._is_connected() else "NATS can't be reached."
        return [*found, self._with_grace("nats", reason)]

    async def _asked(self, name: str, ask: Callable[[], Awaitable[str]]) -> ComponentStatus:
        try:
            async with asyncio.timeout(PATIENCE_S):
                reason = await ask()
        except (psycopg.Error, PersistenceError, OSError):
            reason = NOT_REACHED
        return ComponentStatus(name, "troubled", reason, False) if reason else ComponentStatus(name, "ok")

    async def _api(self) -> str:
        """Why this process can't decide and show what was decided; empty if it can."""
        if not self._leads():
            return "No leading engine can be reached."
        position, at = self._model.position, self._model.at
        if position == 0:
            return "The read model is not built yet."
        try:
            await asyncio.to_thread(self._reader.follow, position, at, 0)
        except OtherHistory:
            return f"The read model was built from another log: they differ at position {position}."
        behind = await asyncio.to_thread(self._reader.end) - position
        return f"The read model is {behind} events behind." if behind > LAG_EVENTS_MAX else ""

    async def _engine(self, connection: psycopg.AsyncConnection[Any]) -> str:
        """A leader changes its row each 0.3 s."""
        if self._beat is None:
            self._beat = await heartbeat.read(connection)
            await asyncio.sleep(2 * heartbeat.INTERVAL_S)
        before, self._beat = self._beat, await heartbeat.read(connection)
        return "" if self._beat is not None and self._beat != before else "No engine leads."

    def _with_grace(self, name: str, reason: str) -> ComponentStatus:
        now = time.monotonic()
        if not reason:
            self._was_ok_at[name] = now
            return ComponentStatus(name, "ok")
        is_ready = name in self._was_ok_at and now - self._was_ok_at[name] <= GRACE_S
        return ComponentStatus(name, "troubled", reason, is_ready)
