"""What tests over NATS stand on: a server that can be killed and wiped, users, and an engine with a small site."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from commands.catalogue import COMMANDS
from commands.writer import ids
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Answer, Envelope, Gateway, Item
from messaging.connect import connected
from projections.resources import resource
from tests.deciding import make_token
from workers import embedded, nats_config
from workers.settings import Settings

ADMIN = Actor("ann", "admin")
VM = Actor("vm", "controller", origin="controller")


class NatsProcess:
    """A nats-server of the test's own."""

    def __init__(self, data: Path) -> None:
        self._server = embedded.Nats(data, controllers=("vm", "ipam"))
        self._log = data / "nats.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = embedded.bring_up(self._server, log)

    def give_room(self, bytes_max: int | None) -> None:
        """Start it with so much room for streams; None: as much as the disk has."""
        write = nats_config.write

        def written(directory: Path, **more: Any) -> Path:
            file = write(directory, **more)
            configuration = json.loads(file.read_text())
            configuration["jetstream"]["max_file_store"] = bytes_max
            return nats_config.write_secret(file, json.dumps(configuration))

        with pytest.MonkeyPatch.context() as patched:
            if bytes_max is not None:
                patched.setattr(nats_config, "write", written)
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wipe(self) -> None:
        """Kill it, and start it with nothing of what it held."""
        self.kill()
        shutil.rmtree(self._server.directory / "streams")
        self.start()

    def user(self, name: str, **more: Any) -> Any:
        """A connection as `relay`, `controller-vm`, `reader`, …, for `async with`."""
        return connected(**self.options(name))

    def options(self, name: str) -> dict[str, Any]:
        """Keyword arguments for `nats.connect` as that user."""
        return Settings(nats=self._server.url, nats_credentials=self._server.credentials[name]).nats_options()


async def until(condition: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """Wait until `condition` (which may be a coroutine function) gives something true, and give that."""
    deadline = time.monotonic() + within_s
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        await asyncio.sleep(0.02)


ASKED_AT_ONCE = 200  # all at once would be answered, but not each within its time


async def messages(client: Client, stream: str) -> list[RawStreamMsg]:
    """All that a stream holds, in its order."""
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(stream)).state
    if state.messages == 0:
        return []
    numbers = range(state.first_seq, state.last_seq + 1)
    held: list[RawStreamMsg] = []
    for start in range(0, len(numbers), ASKED_AT_ONCE):
        asked = (jetstream.get_msg(stream, seq=n) for n in numbers[start : start + ASKED_AT_ONCE])
        for found in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(found, RawStreamMsg):
                held.append(found)
            elif not isinstance(found, NotFoundError):  # taken from a queue meanwhile
                raise found
    assert len(held) == state.messages
    return held


@asynccontextmanager
async def an_engine(conninfo: str, **more: Any) -> AsyncIterator[Engine]:
    engine = Engine(conninfo, resource=resource, **more)
    await engine.start()
    await engine.ready()
    await make_token(engine, ADMIN)
    try:
        yield engine
    finally:
        await engine.stop()


async def send(gateway: Gateway, kind: str, *, actor: Actor = ADMIN, wait_s: float = 0.0, **body: Any) -> Answer:
    id = ids.uuid7()
    item = Item(id, COMMANDS[kind].model_validate(body), body, id)
    (answer,) = await gateway.submit(Envelope(actor, (item,), time.time() + 30.0, wait_s=wait_s))
    return answer


async def a_site(gateway: Gateway) -> None:
    """One host with 1,000 vCPU, in a group where tenant acme may use them."""
    await send(gateway, "tenant.create", name="acme")
    await send(gateway, "group.create", name="std")
    await send(gateway, "quota.set", group="std", tenant="acme", limits={"cpu": 1000})
    answer = await send(gateway, "host.register", name="h1", group="std", capacity={"cpu": 1000})
    assert answer.problem is None


async def a_vm(gateway: Gateway, name: str, *, wait_s: float = 0.0) -> Answer:
    body = {"tenant": "acme", "name": name, "group": "std", "resources": {"cpu": 1}}
    answer = await send(gateway, "vm.provision", wait_s=wait_s, **body)
    assert answer.operation is not None, answer
    return answer
