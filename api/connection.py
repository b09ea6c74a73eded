"""HTTP connections as uvicorn has them, with the bounds that it lacks.

A client that does not take its answer would hold what was made for it, for ever: after a while its connection is cut.
A request's head that never ends would be kept whole: it is refused.
"""

import asyncio
import socket

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.door import Door

HEAD_BYTES_MAX = 64 * 1024
# How long a client may leave more than the transport's high-water mark (64 KiB) untaken.
UNTAKEN_S_MAX = 20.0
# libuv takes one new connection of a listening socket a round. A round under load takes 10 ms, so that a hundred a
# second were let in, and all others waited where nobody sees them: no 503 for them, and no end of waiting.
ACCEPTED_AT_ONCE = 32

log = structlog.get_logger()


def listening(config: uvicorn.Config) -> list[socket.socket]:
    """The socket that uvicorn would make for itself, as often as connections are accepted at once."""
    bound = config.bind_socket()
    return [bound, *(bound.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


class Connection(HttpToolsProtocol):
    """One connection. `http=Connection` in uvicorn's configuration."""

    _untaken: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _is_head_over = False
    _is_refused = False

    def data_received(self, data: bytes) -> None:
        # Counted afterwards and by what arrives at once, not by the byte: in the same data a body may follow.
        was_in_head, self._is_head_over = self._is_in_head, False
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if was_in_head and not self._is_head_over else 0
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(f"The request's head has more than {HEAD_BYTES_MAX} bytes.")

    def on_headers_complete(self) -> None:
        self._is_in_head, self._is_head_over = False, True
        self._is_refused = self._refuse()
        if not self._is_refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_head = True
        if not self._is_refused:
            super().on_message_complete()
        elif not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _refuse(self) -> bool:
        """Answer at once, if the door says so. What is not plain (an answer still under way, a client that waits before
        it sends the body or does not read) goes the long way, to the same answer."""
        door: Door | None = self.app_state.get("door")
        is_under_way = self.cycle is not None and not self.cycle.response_complete
        if door is None or is_under_way or self.expect_100_continue or self.flow.write_paused:
            return False
        if self.parser.get_http_version() != "1.1" or not self.parser.should_keep_alive():
            return False
        refusal = door.refusal(self.parser.get_method(), self.url, self.headers)
        if refusal is None:
            return False
        head = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\n" + head + refusal)
        self.server_state.total_requests += 1
        return True

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
