"""NATS as Berth meets it: request and reply that may be lost or late, streams that check the sequence which a message
expects, and a work queue that delivers at least once.

A client's own messages keep their order; those of different clients overtake each other.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import nats.errors
import nats.js.errors
from nats.js.api import StreamConfig

from messaging import subjects
from messaging.dispatch import ACK_WAIT_S
from messaging.relay import EXPECTED
from tests.simulation.faults import Faults
from tests.simulation.loop import PROCESS, Process, SimulatedLoop

LATENCY_S = 0.0005
DUPLICATES_S = 120.0
RECONNECT_S = 0.3
LATE_S = 8.0
LOST_MAX = 10

Callback = Callable[["Message"], Awaitable[None]]


class Stored:
    def __init__(self, seq: int, subject: str, data: bytes, headers: dict[str, str]) -> None:
        self.seq = seq
        self.subject = subject
        self.data = data
        self.headers = headers


class Stream:
    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.first = max(1, config.first_seq or 1)
        self.last_seq = self.first - 1
        self.messages: dict[int, Stored] = {}
        self.ids: dict[str, tuple[int, float]] = {}
        self.consumers: dict[str, dict[int, float]] = {}  # name → message → when it is given to another

    def takes(self, subject: str) -> bool:
        return any(_matches(pattern, subject) for pattern in self.config.subjects or ())


class Server:
    def __init__(self, loop: SimulatedLoop, chance: random.Random, faults: Faults) -> None:
        self.loop = loop
        self.chance = chance
        self.faults = faults
        self.is_up = True
        self.streams: dict[str, Stream] = {}
        self.subscriptions: list[tuple[str, Process, Callback]] = []
        self.came = asyncio.Event()

    def latency(self) -> float:
        if self.faults.happens("message late"):
            return self.chance.uniform(0.0, LATE_S)
        return LATENCY_S * self.chance.uniform(0.2, 4.0)

    def restart(self, *, down_s: float) -> None:
        self.is_up = False

        def come_back() -> None:
            self.is_up = True

        self.loop.later(down_s, come_back)

    def wipe(self, *names: str) -> None:
        for name in names or tuple(self.streams):
            self.streams.pop(name, None)

    def forget(self, process: Process) -> None:
        """It was killed: its subscriptions go with its connection."""
        self.subscriptions = [one for one in self.subscriptions if one[1] is not process]

    def stream(self, name: str) -> Stream:
        if name not in self.streams:
            raise nats.js.errors.NotFoundError()
        return self.streams[name]

    def store(self, subject: str, data: bytes, headers: dict[str, str]) -> tuple[int, bool] | None:
        """The sequence that the message has, and whether it is a duplicate; None if it is not taken."""
        stream = next((one for one in self.streams.values() if one.takes(subject)), None)
        if stream is None or not self.is_up:
            return None
        expected = headers.get(EXPECTED)
        if expected is not None and int(expected) != stream.last_seq:
            return None
        id, now = headers.get("Nats-Msg-Id"), self.loop.time()
        if expected is None and id is not None:
            if (held := stream.ids.get(id)) is not None and held[1] > now - DUPLICATES_S:
                return held[0], True
            stream.ids[id] = (stream.last_seq + 1, now)
        stream.last_seq += 1
        stream.messages[stream.last_seq] = Stored(stream.last_seq, subject, data, headers)
        came, self.came = self.came, asyncio.Event()
        came.set()
        return stream.last_seq, False

    def take(self, name: str, consumer: str, most: int) -> list[Stored]:
        """What the consumer gets now: what nobody has, and what was not acknowledged in time."""
        stream, now = self.streams[name], self.loop.time()
        given = stream.consumers[consumer]
        found: list[Stored] = []
        for seq, stored in stream.messages.items():
            if len(found) >= most:
                break
            if not _matches(f"berth.work.{consumer}.>", stored.subject):
                continue
            if given.get(seq, -1.0) > now and not self.faults.happens("delivered twice"):
                continue
            given[seq] = now + ACK_WAIT_S
            found.append(stored)
        return found


class Message:
    """What `nats.aio.msg.Msg` is to the code."""

    def __init__(
        self,
        client: "Client",
        subject: str,
        data: bytes,
        *,
        reply: "asyncio.Future[Message] | None" = None,
        stored: Stored | None = None,
        consumer: str = "",
    ) -> None:
        self._client = client
        self._reply = reply
        self._stored = stored
        self._consumer = consumer
        self.subject = subject
        self.data = data
        self.headers = stored.headers if stored is not None else None
        self.metadata = SimpleNamespace(sequence=SimpleNamespace(stream=stored.seq if stored is not None else 0))

    async def respond(self, data: bytes) -> None:
        server, reply = self._client.server, self._reply
        if reply is None or not server.is_up or server.faults.happens("message lost"):
            return

        def arrive() -> None:
            if not reply.done():
                reply.set_result(Message(self._client, "", data))

        server.loop.later(server.latency(), arrive)

    async def ack(self) -> None:
        self._tell(self._remove)

    async def in_progress(self) -> None:
        self._tell(self._prolong)

    def _tell(self, what: Callable[[], None]) -> None:
        server = self._client.server
        if not server.faults.happens("message lost"):
            server.loop.later(server.latency(), what)

    def _remove(self) -> None:
        stream = self._client.server.streams.get(subjects.WORK)
        if stream is None or self._stored is None or not self._client.server.is_up:
            return
        # The server looks at the number alone, so that a stream that was made anew may lose another message to it.
        if stream.consumers.get(self._consumer, {}).pop(self._stored.seq, None) is not None:
            stream.messages.pop(self._stored.seq, None)

    def _prolong(self) -> None:
        stream = self._client.server.streams.get(subjects.WORK)
        if stream is not None and self._stored is not None:
            given = stream.consumers.get(self._consumer, {})
            if self._stored.seq in given:
                given[self._stored.seq] = self._client.server.loop.time() + ACK_WAIT_S


class Client:
    """What `nats.aio.client.Client` is to the code."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._sent_at = 0.0
        self._lost = 0

    def jetstream(self, timeout: float = 5.0) -> "JetStream":
        return JetStream(self, timeout)

    async def publish(self, subject: str, data: bytes, *, headers: dict[str, str] | None = None) -> None:
        self.send(subject, data, headers or {}, None)

    async def _send_command(self, block: bytes) -> None:
        while block:
            command, _, block = block.partition(b"\r\n")
            _, subject, head_bytes, all_bytes = command.split(b" ")
            head, data = block[: int(head_bytes)], block[int(head_bytes) : int(all_bytes)]
            lines = head.decode().split("\r\n")[1:-2]
            self.send(subject.decode(), data, dict(line.split(": ", 1) for line in lines), None)
            block = block[int(all_bytes) + 2 :]

    async def flush(self) -> None:
        await asyncio.sleep(LATENCY_S)

    async def subscribe(self, subject: str, *, cb: Callback) -> None:
        self.server.subscriptions.append((subject, PROCESS.get(), cb))

    async def request(self, subject: str, data: bytes, *, timeout: float) -> Message:
        server = self.server
        reply = server.loop.create_future()

        def arrive() -> None:
            if not server.is_up or server.faults.happens("message lost"):
                return
            found = [one for one in server.subscriptions if _matches(one[0], subject)]
            if not found and not reply.done():
                reply.set_exception(nats.errors.NoRespondersError())
            for _, process, callback in found:
                message = Message(Client(server), subject, data, reply=reply)
                server.loop.spawn(process, callback(message))  # type: ignore[arg-type]

        server.loop.later(server.latency(), arrive)
        try:
            async with asyncio.timeout(timeout):
                answer: Message = await reply
        except TimeoutError:
            raise nats.errors.TimeoutError from None
        return answer

    def send(self, subject: str, data: bytes, headers: dict[str, str], ack: "asyncio.Future[Any] | None") -> None:
        """In order. If the connection breaks, what it had taken is lost, and what comes later waits for the next."""
        server, now = self.server, self.server.loop.time()
        if server.faults.happens("chain cut"):
            self._lost = server.chance.randint(1, LOST_MAX)
            self._sent_at = max(self._sent_at, now + RECONNECT_S)
        if self._lost:
            self._lost -= 1
            return
        self._sent_at = max(self._sent_at + 1e-7, now + LATENCY_S * server.chance.uniform(0.2, 2.0))

        def arrive() -> None:
            if (taken := server.store(subject, data, headers)) is None or ack is None:
                return
            if not server.faults.happens("message lost"):
                server.loop.later(server.latency(), tell, taken)

        def tell(taken: tuple[int, bool]) -> None:
            if ack is not None and not ack.done():
                ack.set_result(SimpleNamespace(seq=taken[0], duplicate=taken[1]))

        server.loop.later(self._sent_at - now, arrive)


class JetStream:
    """What `nats.js.JetStreamContext` is to the code."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client = client
        self._server = client.server
        self._timeout_s = timeout_s

    async def _ask(self) -> None:
        await asyncio.sleep(self._server.latency())
        if not self._server.is_up or self._server.faults.happens("message lost"):
            await asyncio.sleep(self._timeout_s)
            raise nats.errors.TimeoutError

    async def stream_info(self, name: str) -> Any:
        await self._ask()
        stream = self._server.stream(name)
        state = SimpleNamespace(
            last_seq=stream.last_seq, messages=len(stream.messages), consumer_count=len(stream.consumers)
        )
        return SimpleNamespace(state=state, sources=[])

    async def add_stream(self, config: StreamConfig) -> Any:
        await self._ask()
        self._server.streams.setdefault(str(config.name), Stream(config))
        return await self.stream_info(str(config.name))

    async def add_consumer(self, name: str, config: Any) -> None:
        await self._ask()
        self._server.stream(name).consumers.setdefault(config.durable_name, {})

    async def publish(self, subject: str, data: bytes, *, headers: dict[str, str], timeout: float | None = None) -> Any:
        ack = self._server.loop.create_future()
        self._client.send(subject, data, headers, ack)
        try:
            async with asyncio.timeout(timeout or self._timeout_s):
                return await ack
        except TimeoutError:
            raise nats.errors.TimeoutError from None

    async def get_msg(self, name: str, *, seq: int) -> Stored:
        await self._ask()
        found = self._server.stream(name).messages.get(seq)
        if found is None:
            raise nats.js.errors.NotFoundError()
        return found

    async def pull_subscribe_bind(self, name: str, *, stream: str) -> "Consumer":
        return Consumer(self._client, name, stream)


class Consumer:
    def __init__(self, client: Client, name: str, stream: str) -> None:
        self._client = client
        self._name = name
        self._stream = stream

    async def fetch(self, most: int, *, timeout: float) -> list[Message]:
        server = self._client.server
        ends_at = server.loop.time() + timeout
        await asyncio.sleep(server.latency())
        while server.loop.time() < ends_at:
            stream = server.streams.get(self._stream)
            if not server.is_up or stream is None or self._name not in stream.consumers:
                await asyncio.sleep(min(1.0, timeout))
                raise nats.errors.NoRespondersError
            if found := server.take(self._stream, self._name, most):
                return [Message(self._client, one.subject, one.data, stored=one, consumer=self._name) for one in found]
            given = stream.consumers[self._name]
            again_at = min((at for at in given.values() if at > server.loop.time()), default=ends_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.001, min(ends_at, again_at) - server.loop.time())):
                    await server.came.wait()
        raise nats.errors.TimeoutError


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith(".>"):
        return subject.startswith(pattern[:-1])
    if pattern.endswith(".*"):
        return subject.startswith(pattern[:-1]) and "." not in subject[len(pattern) - 1 :]
    return pattern == subject
