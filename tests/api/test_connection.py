"""What HTTP/1.1 promises of a connection, seen byte by byte."""

import asyncio
import json
import logging
import socket
import time
from http.client import HTTPMessage, parse_headers
from typing import Any, NamedTuple

import httpx
import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from api.connection import Exchange
from api.reply import WHOLE, Reply
from tests.api.served import ADMIN, Api, served
from tests.api.test_back_pressure import nothing_can_be_appended
from tests.conftest import Database


class Answered(NamedTuple):
    status: int
    headers: HTTPMessage
    body: Any


class Line:
    """A client that writes its requests itself."""

    def __init__(self, url: str) -> None:
        address = httpx.URL(url)
        self._socket = socket.create_connection((address.host, address.port), timeout=30)
        self._file = self._socket.makefile("rb")

    def send(self, method: str, path: str, body: bytes = b"", *, version: str = "1.1", headers: str = "") -> None:
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        head = (
            f"{method} {path} HTTP/{version}\r\nHost: berth\r\nAuthorization: Bearer {ADMIN}\r\n{headers}{length}\r\n"
        )
        self._socket.sendall(head.encode() + body)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        return self._file.readline()

    def answer(self, *, has_body: bool = True) -> Answered:
        status = int(self._file.readline().split()[1])
        headers = parse_headers(self._file)
        body = self._file.read(int(headers["Content-Length"])) if has_body else b""
        return Answered(status, headers, json.loads(body or b"null"))

    def has_ended(self) -> bool:
        """Waits for what the server does next: whether that is to end the connection."""
        return self._file.read(1) == b""


@pytest.fixture
def line(api: Api) -> Line:
    return Line(api.url)


def test_requests_sent_without_waiting_are_answered_in_their_order(line: Line, named: str) -> None:
    names = [f"{named}-{n}" for n in range(5)]
    for name in names:
        line.send("POST", "/v1/tenants", json.dumps({"name": name}).encode())
        line.send("GET", "/v1/whoami")
    for name in names:
        made = line.answer()
        assert (made.status, made.body["resource"]["name"]) == (201, name)
        assert line.answer().body["name"] == "admin"


def test_a_connection_is_kept_unless_the_client_wants_its_end(line: Line) -> None:
    line.send("GET", "/v1/whoami")
    assert line.answer().headers["Connection"] is None
    line.send("GET", "/v1/whoami", headers="Connection: close\r\n")
    assert line.answer().headers["Connection"] == "close"
    assert line.has_ended()


def test_an_older_client_is_answered_and_the_connection_ended(line: Line) -> None:
    line.send("GET", "/v1/whoami", version="1.0")
    assert line.answer().headers["Connection"] == "close"
    assert line.has_ended()


def test_the_head_alone_says_how_long_the_body_would_be(line: Line) -> None:
    line.send("GET", "/v1/whoami")
    whole = line.answer()
    line.send("HEAD", "/v1/whoami")
    head = line.answer(has_body=False)
    assert (head.status, head.headers["Content-Length"]) == (200, whole.headers["Content-Length"])
    line.send("GET", "/v1/whoami")
    assert line.answer().body == whole.body


def test_a_client_that_asks_before_it_sends_the_body_is_told_to(line: Line, named: str) -> None:
    body = json.dumps({"name": named}).encode()
    length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    line.send("POST", "/v1/tenants", headers=f"{length}Expect: 100-continue\r\n")
    assert line.line() + line.line() == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.write(body)
    assert line.answer().status == 201


def test_every_answer_says_when_and_that_its_type_is_no_guess(line: Line) -> None:
    for path in ("/v1/whoami", "/v1/nowhere"):
        line.send("GET", path)
        headers = line.answer().headers
        assert headers["Date"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_request_says_to_whom_it_is_sent(api: Api) -> None:
    line = Line(api.url)
    line.write(b"GET /v1/whoami HTTP/1.1\r\n\r\n")
    refused = line.answer()
    assert (refused.status, refused.headers["Content-Type"]) == (400, "application/problem+json")
    assert "Host" in json.dumps(refused.body)
    assert line.has_ended()
    older = Line(api.url)
    older.write(b"GET /v1/whoami HTTP/1.0\r\n\r\n")
    assert older.answer().status == 401


class Gone(asyncio.Transport):
    """What uvloop has of a connection that ended."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("unable to perform operation on a closed transport; the handler is closed")


@pytest.mark.parametrize(
    "message",
    [
        {"type": WHOLE, "reply": Reply(200, b"{}")},
        {"type": "http.response.start", "status": 200, "headers": []},
    ],
    ids=["whole", "begun"],
)
async def test_an_answer_to_a_client_that_is_gone_is_dropped(message: dict[str, Any]) -> None:
    """One before the newest of its connection, whom uvicorn does not tell."""
    exchange = Exchange(
        scope={"type": "http", "method": "GET"},  # type: ignore[typeddict-item]
        transport=Gone(),
        flow=FlowControl(Gone()),
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=True,
        on_response=lambda: None,
    )
    await exchange.send(message)
    assert (await exchange.receive())["type"] == "http.disconnect"


def test_a_path_is_read_as_it_was_encoded(line: Line, named: str) -> None:
    line.send("POST", "/v1/tenants", json.dumps({"name": named}).encode())
    line.answer()
    line.send("PATCH", f"/v1/tenants/%{ord(named[0]):x}{named[1:]}?dry_run=true", b'{"description": "found"}')
    found = line.answer()
    assert (found.status, found.body["resource"]["name"]) == (200, named)


def test_whoever_asks_for_another_protocol_gets_this_one(line: Line) -> None:
    line.send("GET", "/v1/whoami", headers="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
    found = line.answer()
    assert (found.status, found.body["name"]) == (200, "admin")


def test_a_connection_ends_though_its_last_answer_came_before_the_body(database: Database) -> None:
    with served(database.service, keep_alive_s=1) as url:
        line = Line(url)
        line.write(b"POST /v1/tenants HTTP/1.1\r\nHost: berth\r\nContent-Length: 2\r\n\r\n")
        assert line.answer().status == 401
        line.write(b"{}")
        assert line.has_ended()


def test_a_connection_ends_when_it_was_idle_for_long_and_not_before(database: Database) -> None:
    with served(database.service, keep_alive_s=1) as url:
        line = Line(url)
        began = time.monotonic()
        with nothing_can_be_appended(database):
            line.send("POST", "/v1/tenants", b'{"name": "one"}')
            time.sleep(1.5)
        assert line.answer().status == 201, "what is being answered is not idle"
        while time.monotonic() < began + 3:
            time.sleep(0.3)
            asked = time.monotonic()
            line.send("GET", "/v1/whoami")
            assert line.answer().status == 200
        assert line.has_ended()
        assert time.monotonic() - asked >= 1
