"""A client that costs little: the requests are written beforehand; a connection sends the next when one is answered."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import msgspec
import uvloop

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "
TICK_S = 0.002
ANSWER_S_MAX = 60.0


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
        end = _end_of_answer(self._buffer)
        if not end or len(self._buffer) < end:
            return
        if not self._buffer.startswith(b"HTTP/1.1 2"):
            self.is_done.set_exception(AssertionError(self._buffer.decode(errors="replace")))
            return
        self._took_s.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self.send()


class Steady(msgspec.Struct, frozen=True):
    """What came of requests that were sent at a steady rate; times are from when each was due."""

    asked: int
    refused: int
    per_s: float
    p50_ms: float
    p99_ms: float


async def steady(port: int, requests: Iterator[bytes], *, per_s: float, seconds: float) -> Steady:
    """Ask at a rate, whether or not those before were answered, and wait for all answers."""
    loop = asyncio.get_running_loop()
    free, took_s, refused = list[_Lent](), list[float](), list[float]()
    under_way = 0
    answered = asyncio.Event()

    def done(line: "_Lent", status: int, spent_s: float) -> None:
        nonlocal under_way
        under_way -= 1
        (took_s if status < 300 else refused).append(spent_s)
        free.append(line)
        answered.set()

    async def on_a_new_line(request: bytes, due: float) -> None:
        _, line = await loop.create_connection(lambda: _Lent(done), "127.0.0.1", port)
        line.send(request, due)

    began, asked = time.perf_counter(), 0
    opening: set[asyncio.Task[None]] = set()
    while asked < int(per_s * seconds):
        passed_s = time.perf_counter() - began
        while asked < min(int(passed_s * per_s) + 1, int(per_s * seconds)):
            due = began + asked / per_s
            asked, under_way = asked + 1, under_way + 1
            while free and free[-1].is_lost:  # kept alive for seconds only
                free.pop()
            if free:
                free.pop().send(next(requests), due)
            else:
                task = asyncio.create_task(on_a_new_line(next(requests), due))
                opening.add(task)
                task.add_done_callback(opening.discard)
        await asyncio.sleep(TICK_S)
    while under_way:
        answered.clear()
        await asyncio.wait_for(answered.wait(), ANSWER_S_MAX)
    spent_s = time.perf_counter() - began
    for line in free:
        line.close()
    took_s.sort()
    return Steady(asked, len(refused), len(took_s) / spent_s, at(took_s, 0.5) * 1e3, at(took_s, 0.99) * 1e3)


def at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


class _Lent(asyncio.Protocol):
    """One kept-alive connection, lent to one request at a time."""

    def __init__(self, done: "Callable[[_Lent, int, float], None]") -> None:
        self._done = done
        self._buffer = b""
        self._due = 0.0
        self._is_busy = False
        self.is_lost = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        if self._is_busy:
            self._answered(599)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due, self._is_busy = due, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (end := _end_of_answer(self._buffer)) and len(self._buffer) >= end:
            status, self._buffer = int(self._buffer[9:12]), b""
            self._answered(status)

    def _answered(self, status: int) -> None:
        self._is_busy = False
        self._done(self, status, time.perf_counter() - self._due)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _end_of_answer(buffer: bytes) -> int:
    """How long the answer is, 0 while its head is not there."""
    head_end = buffer.find(HEAD_END)
    if head_end < 0:
        return 0
    head = buffer[:head_end].lower()
    found = head.find(LENGTH)
    return head_end + len(HEAD_END) + int(head[found + len(LENGTH) :].split(b"\r\n", 1)[0])
