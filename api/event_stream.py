"""The log, live, as server-sent events."""

import asyncio
import contextlib
from typing import Any

import structlog

from api.awaited import disconnected
from api.endpoint import Call
from api.event_view import EventView
from api.reply import encode
from eventlog.codec import Row
from eventlog.tasks import end_tasks

COMMENT_EVERY_S = 14.0  # looked at each second, so that no 15 s pass without one
END_S_MAX = 1.0

log = structlog.get_logger()


class EventStream:
    """Events until the client goes away, its token ends, it is too slow, or the process stops.

    Each event has its position as id: a client that was dropped comes back with the last one (`Last-Event-ID`).
    """

    status = 200

    def __init__(self, call: Call, view: EventView, after: int, *, is_named: bool) -> None:
        self._call = call
        self._is_named = is_named
        self._view = view
        self._after = after
        self._written = after
        self._dropped = asyncio.Event()

    async def send(self, receive: Any, send: Any) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._call.scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.create_task(disconnected(receive))
        writing = asyncio.create_task(self._write(send))
        dropped = asyncio.create_task(self._dropped.wait())
        try:
            await asyncio.wait((gone, writing, dropped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(gone, writing, dropped)
        if not writing.cancelled() and (failed := writing.exception()) is not None and not isinstance(failed, OSError):
            raise failed
        if self._dropped.is_set() and not self._call.context.tail.is_ending:
            log.warning("slow listener dropped", actor=self._call.actor.name, position=self._written)
        with contextlib.suppress(TimeoutError):
            # A slow client gets a proper end; one that reads nothing at all is cut off.
            async with asyncio.timeout(END_S_MAX):
                await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Any) -> None:
        loop = asyncio.get_running_loop()

        async def write(text: bytes) -> None:
            await send({"type": "http.response.body", "body": text, "more_body": True})

        await write(b"retry: 1000\n: from %d\n\n" % self._after)
        commented_at = loop.time()
        context = self._call.context

        async def comment() -> None:
            nonlocal commented_at
            if loop.time() - commented_at >= COMMENT_EVERY_S:
                await write(b": still here\n\n")
                commented_at = loop.time()

        async with contextlib.aclosing(context.tail.read(self._after, dropped=self._dropped)) as portions:
            async for rows in portions:
                if not context.tokens.still_good(self._call.token):
                    return
                rest = iter(rows)
                while found := await context.tail.turns.take(rest, self._frame):
                    # Outside of the turn, as a client may be slow.
                    if frames := [frame for frame, _ in found if frame]:
                        await write(b"".join(frames))
                    self._written = found[-1][1]
                    await comment()
                await comment()

    async def _frame(self, row: Row) -> tuple[bytes, int]:
        document = await self._view.shown(row)
        return frame(row, document, is_named=self._is_named) if document is not None else b"", row.position


def frame(row: Row, document: dict[str, Any], *, is_named: bool) -> bytes:
    name = b"event: %s\n" % row.topic.encode() if is_named else b""
    return b"id: %d\n%sdata: %s\n\n" % (row.position, name, encode(document))
