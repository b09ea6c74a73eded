"""uvicorn's server, but that nobody who waits here keeps the process from stopping, and all of them get an answer.

    told to stop ─► event streams end ─► what is under way is answered ─► what is left is cancelled, and answered so

uvicorn would wait for event streams until its patience is over, and then cut everything off.
"""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

ANSWERED_WITHIN_S = 1.0
CANCELLED_WITHIN_S = 1.0
LOOK_S = 0.02


class Server(uvicorn.Server):
    """`stopping` is called at the beginning of the end."""

    def __init__(self, config: uvicorn.Config, *, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        self._stopping()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._ended(within_s=ANSWERED_WITHIN_S)
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._ended(within_s=CANCELLED_WITHIN_S)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await super().shutdown(sockets)

    async def _ended(self, *, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + within_s
        while (self.server_state.tasks or self.server_state.connections) and loop.time() < ends_at:
            await asyncio.sleep(LOOK_S)
