"""The API served by uvicorn as in production, with its engine, projector and past, in a thread of the test run."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx

from api.app import create_app
from api.connection import configuration
from api.server import Server
from api.source import networks
from commands.tokens import hash_of
from commands.writer.engine import Engine
from commands.writer.ids import uuid7
from eventlog.components import ComponentStatus, Health
from eventlog.read import LogReader, log_changes
from eventlog.tasks import end_tasks
from messaging.past import OfCapacity, OfList
from projections import projector
from projections.listing import CapacityQuery, ListQuery, Portion, ScopeThen
from projections.queries import ReadModel
from projections.resources import resource
from tests.api import the_past
from tests.api.described import must_be_as_described

ADMIN = "test-admin-secret"


class Past:
    """Asks the past where it is, without NATS and processes between."""

    def __init__(self, conninfo: str, reader: LogReader) -> None:
        self._past = the_past.Past(conninfo, reader)

    async def resource(self, stream: str, *, as_of: int) -> dict[str, Any] | None:
        return await asyncio.to_thread(self._past.resource, stream, as_of)

    async def list_(self, query: ListQuery, *, as_of: int) -> Portion:
        return await asyncio.to_thread(self._past.portion, OfList(query=query, as_of=as_of))

    async def capacity(self, query: CapacityQuery, *, as_of: int) -> Portion:
        return await asyncio.to_thread(self._past.portion, OfCapacity(query=query, as_of=as_of))

    async def classes(self, scope: ScopeThen | None, *, as_of: int) -> list[str]:
        return await asyncio.to_thread(self._past.classes, scope, as_of)

    async def verify(self, *, full: bool = False) -> dict[str, Any]:
        return await asyncio.to_thread(self._past.verify, full=full)


class Api:
    """A client of the API, as the first administrator unless told otherwise."""

    def __init__(self, url: str, conninfo: str) -> None:
        self.url = url
        self.conninfo = conninfo
        self.http = httpx.Client(base_url=url, timeout=30.0)
        self._secrets: dict[str, str] = {}

    def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN, **more: Any
    ) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            more["json"] = body
        response = self.http.request(method, path, headers=headers, **more)
        must_be_as_described(response)
        return response

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.call("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.call("POST", path, body, **more)

    def done(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        """The answer's body of a command that must be accepted."""
        response = self.call(method, path, body, **more)
        assert response.status_code in (200, 201, 202), response.text
        found: dict[str, Any] = response.json()
        return found

    def shown(self, answer: dict[str, Any], path: str, **more: Any) -> httpx.Response:
        """A read that shows what a command did."""
        asked = {**more.pop("params", {}), "min_position": answer["position"]}
        return self.get(path, params=asked, **more)

    def token(self, role: str, *, tenant: str | None = None) -> str:
        """The secret of a new token."""
        body = {"name": f"t-{uuid7()}", "role": role, **({"tenant": tenant} if tenant else {})}
        secret: str = self.done("POST", "/v1/tokens", body)["secret"]
        return secret


@contextlib.contextmanager
def served(
    conninfo: str, *, rate_limit_per_s: float = 0.0, keep_alive_s: int = 5, trusted_proxies: tuple[str, ...] = ()
) -> Iterator[str]:
    """The URL, while it is served on the log of `conninfo`."""
    listening = socket.create_server(("127.0.0.1", 0))
    ready, stop = threading.Event(), asyncio.Event()
    failure: list[BaseException] = []

    async def run() -> None:
        reader = LogReader(conninfo)
        engine = Engine(conninfo, resource=resource, admin_token_hash=hash_of(ADMIN))
        projecting = asyncio.create_task(projector.run(conninfo, reader, health=Health("projector")))
        await engine.start()
        await engine.ready()
        async with ReadModel(conninfo) as model:

            async def component_statuses() -> list[ComponentStatus]:
                return [ComponentStatus("api", "ok" if engine.is_leading else "troubled", is_ready=engine.is_leading)]

            app = create_app(
                gateway=engine,
                read_model=model,
                log_reader=reader,
                log_changes=lambda: log_changes(conninfo),
                past=Past(conninfo, reader),
                component_statuses=component_statuses,
                room_for=engine.room_for,
                rate_limit_per_s=rate_limit_per_s,
                trusted_proxies=networks(trusted_proxies),
            )
            config = configuration(
                app,
                log_level="warning",
                timeout_keep_alive=keep_alive_s,
            )
            server = Server(config, stopping=app.state.end_streams)
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            await model.wait_for(1)
            ready.set()
            await stop.wait()
            server.stop()
            await serving
        await engine.stop()
        await end_tasks(projecting)
        reader.close()

    loop = asyncio.new_event_loop()

    def main() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(run())
        except BaseException as error:
            failure.append(error)
            ready.set()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    assert ready.wait(30)
    assert not failure, failure
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    listening.close()
