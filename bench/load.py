"""A client that costs little: the requests are written beforehand; a connection sends the next when one is answered."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import cast

import msgspec
import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "


class Answered(msgspec.Struct, frozen=True):
    per_s: float
    p50_ms: float
    p99_ms: float


def run(port: int, requests: Sequence[bytes], *, connections: int) -> Answered:
    """Send all of them; every one must be answered with a 2xx."""
    return uvloop.run(_run(port, requests, connections))


async def _run(port: int, requests: Sequence[bytes], connections: int) -> Answered:
    loop = asyncio.get_running_loop()
    left, took_s = iter(requests), list[float]()
    lines = [_Line(left, took_s, loop.create_future()) for _ in range(min(connections, len(requests)))]
    for line in lines:
        await loop.create_connection(lambda line=line: line, "127.0.0.1", port)  # type: ignore[misc]
    began = time.perf_counter()
    for line in lines:
        line.send()
    await asyncio.gather(*(line.is_done for line in lines))
    spent_s = time.perf_counter() - began
    took_s.sort()
    return Answered(
        len(took_s) / spent_s,
        took_s[len(took_s) // 2] * 1e3,
        took_s[min(len(took_s) - 1, len(took_s) * 99 // 100)] * 1e3,
    )


class _Line(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, left: Iterator[bytes], took_s: list[float], is_done: asyncio.Future[None]) -> None:
        self.is_done = is_done
        self._left = left
        self._took_s = took_s
        self._buffer = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit it

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_done.done():
            self.is_done.set_exception(error or ConnectionError("the server closed the connection"))

    def send(self) -> None:
        assert self._transport is not None
        request = next(self._left, None)
        if request is None:
            self.is_done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(HEAD_END)
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        found = head.find(LENGTH)
        length = int(head[found + len(LENGTH) :].split(b"\r\n", 1)[0])
        if len(self._buffer) < head_end + len(HEAD_END) + length:
            return
        if not head.startswith(b"http/1.1 2"):
            self.is_done.set_exception(AssertionError(self._buffer.decode(errors="replace")))
            return
        self._took_s.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self.send()
