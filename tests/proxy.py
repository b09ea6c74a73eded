"""A TCP proxy that stands between a client and a server, to lose connections at the moment that a test chooses.

    with Proxy("127.0.0.1", port) as proxy:
        … connect to 127.0.0.1:proxy.port …
        proxy.hold_answers()   # what the client sends arrives, what the server answers waits
        proxy.hold_requests()  # what the client sends waits
        proxy.release()        # what waited goes on, in order
        proxy.cut()            # every connection ends at once; what waited is lost

It runs in threads of its own, so it serves tests with and without an event loop.
"""

import contextlib
import socket
import struct
import threading
from types import TracebackType

CHUNK_BYTES = 65_536
CONNECT_TIMEOUT_S = 5
# An abortive close (RST): the peers learn of it at once, and nothing that waits in a buffer is sent any more.
ABORT = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards 127.0.0.1:`port` to `host`:`server_port`. `refusing` ends new connections as soon as they are made."""

    def __init__(self, host: str, server_port: int) -> None:
        self.refusing = False
        self._server = (host, server_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._requests_flow = threading.Event()
        self._answers_flow = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.release()

    def __enter__(self) -> "Proxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A close alone would leave the thread in its accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.release()

    def hold_requests(self) -> None:
        self._requests_flow.clear()

    def hold_answers(self) -> None:
        self._answers_flow.clear()

    def release(self) -> None:
        self._requests_flow.set()
        self._answers_flow.set()

    def cut(self) -> None:
        """End every connection on both sides; new ones are served, unless `refusing`."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for side in sockets:
            _abort(side)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refusing:
                _abort(client)
                continue
            try:
                server = socket.create_connection(self._server, timeout=CONNECT_TIMEOUT_S)
            except OSError:
                _abort(client)
                continue
            server.settimeout(None)
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            for source, target, flow in (
                (client, server, self._requests_flow),
                (server, client, self._answers_flow),
            ):
                threading.Thread(target=self._forward, args=(source, target, flow), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, flow: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                flow.wait()
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            flow.wait()
            target.shutdown(socket.SHUT_WR)


def _abort(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        # Wakes a thread that reads from it: the descriptor would stay in use until that read ends.
        side.shutdown(socket.SHUT_RD)
    side.close()
