"""HTTP connections as uvicorn has them, with the bounds that it lacks, and a shorter way for what is whole.

A client that does not take its answer would hold what was made for it, for ever: after a while its connection is cut.
A request's head that never ends would be kept whole, and so would trailers, chunks' extensions, and requests sent ahead
of their answers: all bytes that are not body are counted, and too many are refused. Trailers are not read otherwise: a
header of a request is one that stood in its head.
What can't be read as HTTP is answered as a problem too, after what was asked before it.
An answer that is there as a whole is written at once, and an idle connection's end is not planned anew for every
request: both were 14 of the 76 µs that a command took outside of the engine.
"""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api import problems
from api.admission import Admission
from api.problems import NotHttp, TooSlow
from api.reply import WHOLE, Reply

# What of a request is not body: its head, its trailers, and what a chunk has around it beyond its allowance.
HEAD_BYTES_MAX = 64 * 1024
CHUNK_BYTES_FREE = 16
HEADERS_MAX = 256
HEAD_S_MAX = 30.0  # from a connection's beginning, or the answer before, to the end of a head that was begun
AHEAD_MAX = 64  # requests that wait for answers to those before them
# In the scope of a request whose body came before anybody asked for it: nobody need watch how long it takes.
BODY_HAS_COME = "berth.http.body_has_come"
# A body that comes though it was answered already is read to here, so that the client sees the answer.
LEFT_OVER_BYTES_MAX = 64 * 1024 * 1024
# How long a client may leave more than the transport's high-water mark (64 KiB) untaken.
UNTAKEN_S_MAX = 20.0
# libuv takes one new connection of a listening socket a round. A round under load takes 10 ms, so that a hundred a
# second were let in, and all others waited where nobody sees them: no 503 for them, and no end of waiting.
ACCEPTED_AT_ONCE = 32

log = structlog.get_logger()


def configuration(app: Any, **options: Any) -> uvicorn.Config:
    """uvicorn's, as the API is served everywhere. Whom to believe about addresses is `api/source.py`'s matter: uvicorn
    takes any text from any process of this machine."""
    return uvicorn.Config(app, http=HttpConnection, ws="none", access_log=False, proxy_headers=False, **options)


def listening(config: uvicorn.Config) -> list[socket.socket]:
    """The socket that uvicorn would make for itself, as often as connections are accepted at once."""
    bound = config.bind_socket()
    return [bound, *(bound.dup() for _ in range(ACCEPTED_AT_ONCE - 1))]


class Exchange(RequestResponseCycle):
    """A request and its answer. What is sent is ASGI's messages, or a whole answer."""

    async def send(self, message: Any) -> None:
        if self.transport.is_closing() and not self.disconnected:
            # uvicorn tells the newest request of a connection alone that the client is gone.
            self.disconnected = True
            self.message_event.set()
        if self.disconnected:
            return
        if message["type"] != WHOLE:
            await super().send(message)
            return
        reply: Reply = message["reply"]
        if reply.status == TooSlow.status:
            self.keep_alive = False  # what it is the answer to may never end
        headers = self.default_headers if self.keep_alive else [*self.default_headers, (b"connection", b"close")]
        answer = _answer(reply.status, headers, reply.rest(with_body=self.scope["method"] != "HEAD"))
        # All answers of a round of the event loop are written after it, one upon the other: to wake whoever reads them
        # costs more than to write them, and between them it would have gone to sleep. 13 of 255 µs a command.
        await asyncio.sleep(0)
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.transport.is_closing():
            return
        self.response_started = self.response_complete = True
        self.transport.write(answer)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


def _answer(status: int, headers: Iterable[tuple[bytes, bytes]], rest: bytes) -> bytes:
    return b"".join((STATUS_LINE[status], *(b"%s: %s\r\n" % header for header in headers), rest))


class HttpConnection(HttpToolsProtocol):
    """One connection, as `configuration` has it made."""

    _untaken: asyncio.TimerHandle | None = None
    _outside_bytes = 0  # of what came, those that are no body of the message that is being read
    _left_over_bytes = 0
    _is_in_head = True
    _is_refused = False
    _has_host = False
    _unreadable = ""  # why nothing is read any more
    _idle_since: float | None = None
    _idle_s = HEAD_S_MAX
    _idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._be_idle(HEAD_S_MAX)

    def data_received(self, data: bytes) -> None:
        if self._unreadable:
            return
        if self._idle_since is not None:
            self._idle_s = HEAD_S_MAX
        # What the callbacks find to be body, or the end of a message, they take off again.
        self._outside_bytes += len(data)
        why = ""
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._feed_rest(data, upgrade)
        except httptools.HttpParserError as error:
            why = self._unreadable or f"This can't be read as HTTP/1.1: {error}."
        else:
            if self._outside_bytes < 0:
                self._outside_bytes = 0
            elif self._outside_bytes > HEAD_BYTES_MAX:
                why = f"The request has more than {HEAD_BYTES_MAX} bytes that are not its body."
        if why and not self.transport.is_closing():
            self._refuse_the_rest(why)

    def _feed_rest(self, data: bytes, upgrade: httptools.HttpParserUpgrade) -> None:
        """Nobody is given another protocol, so what follows is in this one."""
        while data := data[upgrade.args[0] :]:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as another:
                upgrade = another
            else:
                return

    def _refuse_the_rest(self, why: str) -> None:
        """Read no more. What was asked before is answered first, or its answer would be taken to be this one."""
        self._unreadable = why
        self.flow.pause_reading()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not (cycle.more_body and not self.pipeline):
            if cycle.more_body:
                self.pipeline.popleft()  # it waits for its turn, but its body will never be whole
            return
        self._end_unreadable()

    def _end_unreadable(self) -> None:
        admission: Admission | None = self.app_state.get("admission")
        if admission is not None:
            admission.note_unreadable(self._unreadable)
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            headers = [*self.server_state.default_headers, (b"connection", b"close")]
            self.transport.write(_answer(400, headers, problems.refusal(NotHttp(self._unreadable)).rest()))
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return
        if len(self.headers) == HEADERS_MAX:
            self._unreadable = f"The request has more than {HEADERS_MAX} headers."
            raise httptools.HttpParserError
        name = name.lower()
        if name == b"host":
            self._has_host = True
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_chunk_header(self) -> None:
        # The end's, too, so that a body of single bytes in chunks is not refused for what is around them.
        self._outside_bytes -= CHUNK_BYTES_FREE

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._idle_since = None
        self._left_over_bytes = 0
        if len(self.pipeline) == AHEAD_MAX:
            self._unreadable = f"More than {AHEAD_MAX} requests came before the answers to those before them."
            raise httptools.HttpParserError
        parser = self.parser
        has_host, self._has_host = self._has_host, False
        if not has_host and parser.get_http_version() == "1.1":
            self._unreadable = "A request of HTTP/1.1 has a Host header (RFC 9112, section 3.2)."
            raise httptools.HttpParserError
        is_under_way = self.cycle is not None and not self.cycle.response_complete
        keeps_alive = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        # What is not plain (an answer still under way, a client that waits before it sends the body or does not read)
        # goes the long way, to the same answer.
        is_plain = keeps_alive and not (is_under_way or self.expect_100_continue or self.flow.write_paused)
        self._is_refused = is_plain and self._refuse()
        if self._is_refused:
            return
        self._describe()
        cycle = self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keeps_alive,
            on_response=self.on_response_complete,
        )
        if is_under_way:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _describe(self) -> None:
        scope = self.scope
        try:
            url = httptools.parse_url(self.url)
            raw_path, query = url.path or b"/", url.query or b""
        except httptools.HttpParserInvalidURLError:  # `*`, or what CONNECT names: no path of ours
            raw_path, query = self.url, b""
        path = raw_path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = self.parser.get_http_version()
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = query

    def on_body(self, body: bytes) -> None:
        self._outside_bytes -= len(body)
        if self._is_refused or self.cycle.response_complete:
            self._left_over_bytes += len(body)
            if self._left_over_bytes > LEFT_OVER_BYTES_MAX:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._outside_bytes = 0
        if not self._is_refused:
            super().on_message_complete()
            self.scope[BODY_HAS_COME] = True  # type: ignore[literal-required]  # none of ASGI's keys
        # What was answered before its body had come is over now.
        if (self._is_refused or self.cycle.response_complete) and not self.transport.is_closing():
            self._be_idle(self.timeout_keep_alive)

    def _refuse(self) -> bool:
        """Answer at once if the request is not admitted."""
        admission: Admission | None = self.app_state.get("admission")
        if admission is None:
            return False
        refusal = admission.refusal(self.parser.get_method(), self.url, self.headers)
        if refusal is None:
            return False
        self.transport.write(_answer(503, self.server_state.default_headers, refusal))
        self.server_state.total_requests += 1
        return True

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            # Nothing more is read meanwhile: each answer would let in hundreds of requests.
            self._start_asgi_task(*self.pipeline.pop())
        elif self._unreadable:
            self._end_unreadable()
        else:
            self.flow.resume_reading()
            self._be_idle(self.timeout_keep_alive)

    def _be_idle(self, most_s: float) -> None:
        self._idle_since, self._idle_s = self.loop.time(), most_s
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        """One timer for all that comes in its time: setting and cancelling one costs 3 µs."""
        self._idle = None
        if self._idle_since is None:  # when it is again, there will be another timer
            return
        left_s = self._idle_since + self._idle_s - self.loop.time()
        if left_s > 0:
            self._idle = self.loop.call_later(min(left_s, self.timeout_keep_alive), self._end_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._untaken = self.loop.call_later(UNTAKEN_S_MAX, self.cut)

    def resume_writing(self) -> None:
        self._forget_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

    def _forget_timer(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def cut(self) -> None:
        log.warning("answer not taken, connection cut", client=self.client, after_s=UNTAKEN_S_MAX)
        self.transport.abort()
