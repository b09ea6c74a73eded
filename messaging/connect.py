"""A connection to NATS that is made again for ever, whatever becomes of the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import structlog
from nats.aio.client import Client

from eventlog.components import Health, reason_of

CONNECT_S = 2
RECONNECT_S = 0.2

log = structlog.get_logger()


class _Trouble:
    """Says what is wrong once, however often it is tried again, and once more when that is over."""

    def __init__(self, health: Health | None) -> None:
        self._told = ""
        self._health = health

    async def note(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if self._health is not None:
            self._health.troubled(reason_of(error))
        kind = said.partition('"')[0]  # what follows names an inbox, another one each time
        if kind != self._told:
            self._told = kind
            log.warning("NATS in trouble", error=said)

    async def over(self) -> None:
        self._told = ""
        log.info("NATS reached again")


@asynccontextmanager
async def connected(health: Health | None = None, **options: Any) -> AsyncIterator[Client]:
    """`options` say where and who, as `nats.connect` takes them. Waits for as long as there is no server.

    `health` is told of trouble; that it is over is for the one to say who has got something done.
    """
    trouble = _Trouble(health)
    client = await nats.connect(
        **options,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_S,
        connect_timeout=CONNECT_S,
        error_cb=trouble.note,
        reconnected_cb=trouble.over,
    )
    try:
        yield client
    finally:
        await client.close()


async def settled(client: Client) -> None:
    """Wait until the server has all that was published and subscribed to.

    One flush proves nothing: nats-py writes its ping before what still waits to be written.
    """
    await client.flush()
    await client.flush()
