"""Commands over a Unix socket, between an API process and the engines of its own machine.

    submit ─► all of one round of the event loop: one frame ─► engine ─► Answers ─► all answers of a round: one frame

Each engine listens on a socket of its own and says whether it leads; the API is connected to all of them and hands its
commands to the one that said so last. A frame is a length and JSON. Nothing is lost on a connection that stands, so
nothing is sent again but to another leader, or over another connection.
"""

import asyncio
import os
import struct
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import structlog

from commands.writer.gateway import Actor, Answer, Envelope
from commands.writer.metrics import exposition
from commands.writer.queue import Rooms, is_of_reports
from domain.errors import Unavailable
from eventlog.tasks import end_tasks
from messaging.wire import Answers, EngineGateway, WireEnvelope, WireReply, to_wire

ANSWER_GRACE_S = 2.0
NO_LEADER_PATIENCE_S = 5.0  # an engine that is restarted leads within it
RECONNECT_S = 0.05
LOOK_S = 0.02  # how often a serving engine is asked whether it leads
ROOM_FRESH_S = 0.1
METRICS_PATIENCE_S = 2.0
LEADERS_MAX = 2

log = structlog.get_logger()


class _ToEngine(msgspec.Struct, frozen=True, array_like=True):
    """An envelope; without one, the engine's metrics are asked for."""

    number: int
    envelope: WireEnvelope | None


class _FromEngine(msgspec.Struct, frozen=True, array_like=True):
    """What an engine says: its name while it leads, the last number that it has seen on this connection, how many
    commands it would take then, and replies by number (None: it no longer leads, another is to decide). `metrics` if
    they were asked for."""

    leader: str
    seen: int
    rooms: Rooms
    replies: list[tuple[int, WireReply | None]]
    metrics: str = ""


_encode = msgspec.json.Encoder().encode
_decode_to_engine = msgspec.json.Decoder(list[_ToEngine]).decode
_decode_from_engine = msgspec.json.Decoder(_FromEngine).decode

LENGTH = struct.Struct("<I")


class LocalEngine(EngineGateway, Protocol):
    """One of this process, which can tell what room there is for everybody at once."""

    @property
    def rooms(self) -> Rooms: ...


class _Frames(asyncio.Protocol, ABC):
    """One connection: whole frames in both directions."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @abstractmethod
    def on_frame(self, frame: bytes) -> None: ...

    @abstractmethod
    def on_end(self) -> None: ...

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit it

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        begin = 0
        while len(buffer) >= (start := begin + LENGTH.size):
            end = start + LENGTH.unpack_from(buffer, begin)[0]
            if len(buffer) < end:
                break
            begin = end
            self.on_frame(bytes(buffer[start:end]))
        del buffer[:begin]

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.on_end()

    def send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(LENGTH.pack(len(frame)) + frame)

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@contextmanager
def _named(path: Path) -> Iterator[str]:
    """The socket's name while the context lasts: a path of any length, where a socket's has 107 bytes at most."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


# ── the engine's side ──


@asynccontextmanager
async def served(path: Path, engine: LocalEngine) -> AsyncIterator[None]:
    """Answer commands on a socket that its owner alone may use, for as long as the context lasts."""
    server = _Server(engine)
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        with _named(path) as name:
            listening = await asyncio.get_running_loop().create_unix_server(lambda: _Accepted(server), name)
    finally:
        os.umask(mask)
    telling = asyncio.create_task(server.tell_changes())
    try:
        yield
    finally:
        await end_tasks(telling)
        listening.close()
        path.unlink(missing_ok=True)
        for connection in list(server.connections):
            connection.cut()


class _Server:
    """What all connections of an engine share. `name` is the engine's, as long as the process lives."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.answers = Answers(engine)
        self.name = uuid.uuid4().hex
        self.connections: set[_Accepted] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def leader(self) -> str:
        return self.name if self.engine.is_leading else ""

    async def tell_changes(self) -> None:
        """Whether an engine leads changes seldom, and in many ways: so it is looked at."""
        told = ""
        while True:
            if self.leader != told:
                told = self.leader
                for connection in self.connections:
                    connection.tell()
            await asyncio.sleep(LOOK_S)


class _Accepted(_Frames):
    """A connection that an API process made."""

    def __init__(self, server: _Server) -> None:
        super().__init__()
        self._server = server
        self._seen = 0
        self._replies: list[tuple[int, msgspec.Raw]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.connections.add(self)
        self.tell()

    def on_end(self) -> None:
        self._server.connections.discard(self)

    def on_frame(self, frame: bytes) -> None:
        for asked in _decode_to_engine(frame):
            if asked.envelope is None:
                self._server.spawn(self._tell_metrics())
                continue
            self._seen = max(self._seen, asked.number)
            if self._server.engine.is_leading:
                task = self._server.answers.once(asked.envelope)
                task.add_done_callback(partial(self._answered, asked.number, asked.envelope.items[0].id))
            else:
                self._reply(asked.number, None)

    def _answered(self, number: int, id: str, task: "asyncio.Future[bytes | None]") -> None:
        if task.cancelled():
            return
        if (failure := task.exception()) is not None:
            log.error("command not answered", command=id, exc_info=failure)
            self._reply(number, _encode(WireReply(unavailable=True, command=id)))
        else:
            self._reply(number, task.result())

    def _reply(self, number: int, reply: bytes | None) -> None:
        self._replies.append((number, msgspec.Raw(reply or b"null")))
        if len(self._replies) == 1:
            asyncio.get_running_loop().call_soon(self.tell)

    def tell(self, metrics: str = "") -> None:
        replies, self._replies = self._replies, []
        rooms = self._server.engine.rooms
        self.send(_encode((self._server.leader, self._seen, rooms, replies, metrics)))

    async def _tell_metrics(self) -> None:
        self.tell((await asyncio.to_thread(exposition)).decode())


# ── the API's side ──


class _Pending:
    """An envelope that was not answered yet. `leaders` are the engines that had it; `on` is the connection over which
    it went last, None where its engine gave it back."""

    __slots__ = ("envelope", "future", "is_sent", "is_unseen", "leaders", "line", "number", "on")

    def __init__(self, number: int, envelope: Envelope, future: "asyncio.Future[WireReply]") -> None:
        self.number = number
        self.envelope = envelope
        self.future = future
        self.line = int(is_of_reports(envelope.actor))
        self.leaders: list[str] = []
        self.on: _Link | None = None
        self.is_sent = False
        self.is_unseen = True

    def fail(self) -> None:
        """What was handed in may be decided, as the log knows; what was not never will be."""
        if not self.future.done():
            self.future.set_exception(Unavailable(self.envelope.items[0].id if self.is_sent else None))


class _Link(_Frames):
    """The connection to one engine; `leader` is its name while it leads."""

    def __init__(self, gateway: "UnixGateway") -> None:
        super().__init__()
        self._gateway = gateway
        self._outgoing: list[bytes] = []
        self.leader = ""
        self.unseen: deque[_Pending] = deque()
        self.has_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gateway.links.append(self)

    def on_frame(self, frame: bytes) -> None:
        self._gateway.note(self, _decode_from_engine(frame))

    def on_end(self) -> None:
        self.leader = ""
        self.has_ended.set()
        self._gateway.note_end(self)

    def ask(self, pending: _Pending) -> None:
        self._put(_ToEngine(pending.number, to_wire(pending.envelope, resent=pending.is_sent)))
        pending.is_sent, pending.on = True, self
        self.unseen.append(pending)

    def ask_for_metrics(self) -> None:
        self._put(_ToEngine(0, None))

    def _put(self, asked: _ToEngine) -> None:
        self._outgoing.append(_encode(asked))
        if len(self._outgoing) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        self.send(b"[%b]" % b",".join(outgoing))


class UnixGateway:
    """Implements `Gateway` by asking the engines of this machine, of which the one that leads answers."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.links: list[_Link] = []
        self._current: _Link | None = None  # the one that said last that it leads
        self._times_without_leader = 0
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._unseen = [0, 0]  # commands that the engine has not seen yet, by line
        self._unseen_by: Counter[str] = Counter()  # by actor
        self._metrics_asked: asyncio.Future[str] | None = None
        self._rooms = Rooms()
        self._rooms_read_at = -ROOM_FRESH_S

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["UnixGateway"]:
        """Connected to every engine that is there, now and later."""
        staying = [asyncio.create_task(self._stay_connected(path)) for path in self._paths]
        try:
            yield self
        finally:
            await end_tasks(*staying)
            for link in list(self.links):
                link.cut()

    @property
    def is_leading(self) -> bool:
        """Whether some engine does."""
        return self._current is not None

    def room_for(self, actor: Actor) -> int:
        """How many commands of the actor the engine would take: by what it said last, less what it has not seen yet.
        What it said holds for a moment: it says nothing while it has nothing to answer."""
        is_fresh = time.monotonic() - self._rooms_read_at < ROOM_FRESH_S
        room = (self._rooms if is_fresh else Rooms()).of(actor)
        return room - (self._unseen_by[actor.name] if actor.name else self._unseen[int(is_of_reports(actor))])

    async def submit(self, envelope: Envelope) -> list[Answer]:
        loop = asyncio.get_running_loop()
        self._number += 1
        pending = self._pending[self._number] = _Pending(self._number, envelope, loop.create_future())
        self._unseen[pending.line] += len(envelope.items)
        self._unseen_by[envelope.actor.name] += len(envelope.items)
        patience_s = max(0.0, envelope.expires_at - time.time()) + envelope.wait_s + ANSWER_GRACE_S
        too_late = loop.call_later(patience_s, pending.fail)
        try:
            if self._current is not None:
                self._hand(pending, self._current)
            else:
                self._await_leader([pending])
            reply = await pending.future
        finally:
            too_late.cancel()
            del self._pending[pending.number]
            self._note_seen(pending)
        if reply.unavailable:
            raise Unavailable(reply.command)
        return reply.answers

    async def metrics(self) -> str:
        """What the engine that leads counts, in Prometheus' text format; empty if it does not say in time."""
        link = self._current
        if link is None:
            return ""
        asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._metrics_asked = asked
        link.ask_for_metrics()
        with suppress(TimeoutError):
            async with asyncio.timeout(METRICS_PATIENCE_S):
                return await asked
        return ""

    def note(self, link: _Link, message: _FromEngine) -> None:
        """An engine said something."""
        if message.metrics and self._metrics_asked is not None and not self._metrics_asked.done():
            self._metrics_asked.set_result(message.metrics)
        while link.unseen and link.unseen[0].number <= message.seen:
            self._note_seen(link.unseen.popleft())
        given_back: list[_Pending] = []
        for number, reply in message.replies:
            pending = self._pending.get(number)
            if pending is None or pending.future.done():
                continue
            if reply is not None:  # whoever gave it, it is committed
                pending.future.set_result(reply)
            elif pending.on is link:
                pending.on = None
                given_back.append(pending)
        led_before, link.leader = link.leader, message.leader
        if message.leader and message.leader != led_before:
            self._follow(link)
        elif not message.leader and link is self._current:
            self._follow_another()
        elif self._current is not None:
            for pending in given_back:
                self._hand(pending, self._current)
        if link is self._current:
            self._rooms, self._rooms_read_at = message.rooms, time.monotonic()

    def note_end(self, link: _Link) -> None:
        self.links.remove(link)
        if link is self._current:
            self._follow_another()

    def _hand(self, pending: _Pending, link: _Link) -> None:
        """Give it to an engine that leads, but to two at most: perhaps it is the command itself that costs each leader
        its place."""
        if pending.on is link or pending.future.done():
            return
        if link.leader not in pending.leaders[-1:]:
            if len(pending.leaders) == LEADERS_MAX:
                id = pending.envelope.items[0].id
                log.warning("command given up", command=id, reason="two leaders received it and did not answer")
                pending.fail()
                return
            pending.leaders.append(link.leader)
        link.ask(pending)

    def _follow(self, link: _Link) -> None:
        self._current = link
        for pending in list(self._pending.values()):
            self._hand(pending, link)

    def _follow_another(self) -> None:
        """The one that led does no more. If another said so before it, as one does that is paused, it may still."""
        self._current = None
        for link in self.links:
            if link.leader:
                self._follow(link)
                return
        self._times_without_leader += 1
        self._await_leader(list(self._pending.values()))

    def _await_leader(self, those: list[_Pending]) -> None:
        asyncio.get_running_loop().call_later(NO_LEADER_PATIENCE_S, self._give_up, those, self._times_without_leader)

    def _give_up(self, those: list[_Pending], since: int) -> None:
        if self._current is None and since == self._times_without_leader:
            for pending in those:
                pending.fail()

    def _note_seen(self, pending: _Pending) -> None:
        if pending.is_unseen:
            pending.is_unseen = False
            commands, actor = len(pending.envelope.items), pending.envelope.actor.name
            self._unseen[pending.line] -= commands
            self._unseen_by[actor] -= commands
            if not self._unseen_by[actor]:
                del self._unseen_by[actor]

    async def _stay_connected(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                with _named(path) as name:
                    _, link = await loop.create_unix_connection(lambda: _Link(self), name)
            except OSError:
                await asyncio.sleep(RECONNECT_S)
            else:
                await link.has_ended.wait()
