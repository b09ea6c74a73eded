"""HTTP connections as uvicorn has them, with the two bounds that it lacks.

A client that does not take its answer would hold what was made for it, for ever: after a while its connection is cut.
A request's head that never ends would be kept whole: it is refused.
"""

import asyncio

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX = 64 * 1024
# How long a client may leave more than the transport's high-water mark (64 KiB) untaken.
UNTAKEN_S_MAX = 20.0

log = structlog.get_logger()


class Connection(HttpToolsProtocol):
    """One connection. `http=Connection` in uvicorn's configuration."""

    _untaken: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _is_head_over = False

    def data_received(self, data: bytes) -> None:
        # Counted afterwards and by what arrives at once, not by the byte: in the same data a body may follow.
        was_in_head, self._is_head_over = self._is_in_head, False
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if was_in_head and not self._is_head_over else 0
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(f"The request's head has more than {HEAD_BYTES_MAX} bytes.")

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_head_over = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._untaken = self.loop.call_later(UNTAKEN_S_MAX, self.cut)

    def resume_writing(self) -> None:
        self._forget_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _forget_timer(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def cut(self) -> None:
        log.warning("answer not taken, connection cut", client=self.client, after_s=UNTAKEN_S_MAX)
        self.transport.abort()
