"""What is no request, or one that never ends: bounded, answered as a problem where an answer is possible, counted."""

import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import structlog

from api.connection import AHEAD_MAX, HEAD_BYTES_MAX, HEADERS_MAX
from tests.api.served import ADMIN, Api, served
from tests.api.test_back_pressure import nothing_can_be_appended
from tests.api.test_connection import Line
from tests.conftest import Database

SENT_MAX = 16 * 1024 * 1024
WHO = f"GET /v1/whoami HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {ADMIN}\r\n".encode()
CHUNKED = b"POST /v1/tenants HTTP/1.1\r\nHost: berth\r\nTransfer-Encoding: chunked\r\n"
TRUSTED = f"Authorization: Bearer {ADMIN}\r\nContent-Type: application/json\r\n\r\n".encode()

ENDLESS = {
    "trailers": (CHUNKED + b"\r\n0\r\n", b"X-Trailer: %s\r\n" % (b"x" * 1000)),
    "trailers of one who may": (CHUNKED + TRUSTED + b"0\r\n", b"X-Trailer: %s\r\n" % (b"x" * 1000)),
    "one trailer": (CHUNKED + TRUSTED + b"0\r\nX-Trailer: ", b"x" * 1000),
    "a chunk's extension": (CHUNKED + TRUSTED + b"1;ext=", b"x" * 1000),
    "a chunk's size": (CHUNKED + TRUSTED, b"0" * 1000),
    "headers": (WHO, b"X-Header: %s\r\n" % (b"x" * 1000)),
    "small headers": (WHO, b"a:\r\n" * 250),
    "one header": (WHO + b"X-Header: ", b"x" * 1000),
    "a path": (b"GET /", b"x" * 1000),
    "a query": (b"GET /v1/vms?q=", b"x" * 1000),
    "lines before the request": (b"", b"\r\n" * 500),
    "a method": (b"", b"G" * 1000),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_ended(api: Api, name: str) -> None:
    begin, more = ENDLESS[name]
    line = Line(api.url)
    line.write(begin)
    assert 0 < sent_until_it_ends(line, more) < SENT_MAX


def sent_until_it_ends(line: Line, more: bytes) -> int:
    """How much the kernel took until the server ended the connection: what waits in both sockets' buffers included."""
    for sent in range(0, SENT_MAX, 16 * len(more)):
        try:
            line.write(16 * more)
        except OSError:
            return sent + 1
    return SENT_MAX


def test_requests_that_nobody_awaits_are_not_kept_without_bound(database: Database) -> None:
    with served(database.service) as url:
        line = Line(url)
        with nothing_can_be_appended(database):
            line.send("POST", "/v1/tenants", b'{"name": "one"}')
            line.write((WHO + b"\r\n") * (AHEAD_MAX + 100))
        assert line.answer().status == 201
        for _ in range(AHEAD_MAX):
            assert line.answer().status == 200
        refused = line.answer()
        assert (refused.status, refused.body["code"]) == (400, "malformed")
        assert line.has_ended()


def test_many_headers_are_too_many_and_some_are_not(api: Api) -> None:
    for headers, status in ((HEADERS_MAX - 10, 200), (HEADERS_MAX + 1, 400)):
        line = Line(api.url)
        line.write(WHO + b"".join(b"x-%d: 1\r\n" % n for n in range(headers)) + b"\r\n")
        assert line.answer().status == status


def test_a_body_in_the_smallest_chunks_is_read(api: Api, named: str) -> None:
    body = b'{"name": "%s", "description": "%s"}' % (named.encode(), b"x" * 1_900)
    spaces = b" " * HEAD_BYTES_MAX
    line = Line(api.url)
    line.write(CHUNKED + TRUSTED + b"".join(b"1\r\n%c\r\n" % byte for byte in body + spaces) + b"0\r\n\r\n")
    assert line.answer().status == 201


def test_a_trailer_is_no_header(api: Api, named: str) -> None:
    body = b'{"name": "%s"}' % named.encode()
    line = Line(api.url)
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    line.write(CHUNKED + b"Content-Type: application/json\r\n\r\n" + chunk + b"0\r\n" + TRUSTED)
    assert line.answer().status == 401
    line.send("GET", "/v1/whoami")
    assert line.answer().status == 200


def test_a_head_that_takes_too_long_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.connection.HEAD_S_MAX", 1.0)
    monkeypatch.setattr("api.connection.HttpConnection._idle_s", 1.0)
    with served(database.service, keep_alive_s=1) as url:
        silent, slow = Line(url), Line(url)
        slow.write(b"GET /v1/whoami HTTP/1.1\r\n")
        assert silent.has_ended()
        assert slow.has_ended()


UNREADABLE = {
    "words": b"hello there\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200,
    "another protocol's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"FETCH / HTTP/1.1\r\nHost: berth\r\n\r\n",
    "a header without a name": WHO + b": x\r\n\r\n",
    "a header with a control character": WHO + b"X: a\0b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: berth\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": CHUNKED + b"Content-Length: 1\r\n\r\n0\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: berth\r\nContent-Length: -1\r\n\r\n",
    "a chunk whose size is none": CHUNKED + TRUSTED + b"x\r\n",
    "a path with raw bytes": b"GET /\xff HTTP/1.1\r\nHost: berth\r\n\r\n",
}


def test_what_can_t_be_read_is_told_as_a_problem_and_counted(api: Api) -> None:
    before = until(lambda: counted(api, "other", "*", 400), -1, for_s=1.5)
    for name, sent in UNREADABLE.items():
        line = Line(api.url)
        line.write(sent)
        answer = line.answer()
        assert (answer.status, answer.body["code"], answer.body["status"]) == (400, "malformed", 400), name
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Connection"] == "close"
        assert line.has_ended()
    after = before + len(UNREADABLE)
    assert until(lambda: counted(api, "other", "*", 400), after) == after


def counted(api: Api, method: str, route: str, status: int) -> float:
    wanted = f'berth_http_requests_total{{method="{method}",route="{route}",status="{status}"}}'
    lines = api.get("/metrics", token=None).text.splitlines()
    return next((float(found.split()[1]) for found in lines if found.startswith(wanted)), 0.0)


def test_what_was_asked_before_is_answered_before_it_is_said_that_the_rest_can_t_be_read(database: Database) -> None:
    with served(database.service) as url:
        line = Line(url)
        with nothing_can_be_appended(database):
            line.send("POST", "/v1/tenants", b'{"name": "one"}')
            line.write(WHO + b"\r\n" + b"no request\r\n\r\n")
        assert [line.answer().status for _ in range(3)] == [201, 200, 400]
        assert line.has_ended()


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "LINK")
TARGETS = (
    "*", "/", "//", "/%0a", "/v1/vms%0a", "/v1/vms/%0A/x", "/v1/hosts/a%0ab", "/v1/tenants/x%0d%0aX-Evil:1", "/%00",
    "/v1/commands/%0a", "/v1/commands/%00", "/v1/history/vm/a%0a/b", "/v1/history/%0a/x", "/problems/%0a", "/v1/%ff%fe",
    "/v1/vms/%ed%a0%80/x", "/%", "/%zz", "/..", "/v1/../v1/vms", "/v1/vms/", "/v1/hosts/" + "a" * 1000, "/v1/vms#part",
    "/v1/vms?%0a=1", "/v1/vms?q=%ff", "/v1/events?cursor=%0a", "/v1/vms;a=b", "/metrics/", "/openapi.json%0a",
    "http://elsewhere/v1/vms", "http://elsewhere", "https://elsewhere:99/v1/whoami?x", "elsewhere:443", "/healthz%20",
)  # fmt: skip


@pytest.mark.parametrize("method", [*METHODS, "CONNECT"])
def test_whatever_is_asked_the_answer_is_ours(api: Api, method: str) -> None:
    for target in TARGETS:
        for token in (True, False):
            line = Line(api.url)
            head = f"{method} {target} HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n"
            line.write((head + (f"Authorization: Bearer {ADMIN}\r\n\r\n" if token else "\r\n")).encode())
            answer = line.answer(has_body=method != "HEAD")
            is_problem = answer.headers["Content-Type"] == "application/problem+json"
            assert is_problem == (answer.status >= 400), (method, target, answer)
            assert answer.status < 500, (method, target, answer)
            assert method == "HEAD" or not is_problem or answer.body["status"] == answer.status


def test_every_answer_is_counted_and_told_in_the_access_log(api: Api) -> None:
    asked = [("GET", "/v1/vms%0a"), ("OPTIONS", "*"), ("PROPFIND", "/v1/vms"), ("GET", "http://elsewhere/none"),
             ("HEAD", "/v1/nowhere"), ("CONNECT", "berth:443")]  # fmt: skip
    before = until(lambda: answered(api), -1, for_s=1.5)
    for method, target in asked:
        with structlog.testing.capture_logs() as told:
            line = Line(api.url)
            head = f"{method} {target} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {ADMIN}\r\n"
            line.write(f"{head}Connection: close\r\n\r\n".encode())
            status = line.answer(has_body=method != "HEAD").status
            assert line.has_ended()
        of_it = [entry for entry in told if entry["event"] == "request answered" and entry["route"] != "/metrics"]
        assert [entry["status"] for entry in of_it] == [status]
    after = before + len(asked)
    assert until(lambda: answered(api), after) == after


def answered(api: Api) -> float:
    lines = api.get("/metrics", token=None).text.splitlines()
    counted = [line for line in lines if line.startswith("berth_http_requests_total{") and "/metrics" not in line]
    return sum(float(line.split()[1]) for line in counted)


def until(look: Callable[[], float], wanted: float, *, for_s: float = 10) -> float:
    """What is seen when it is `wanted`, or after a while: metrics are as old as a second."""
    deadline = time.monotonic() + for_s
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_random_bytes_get_a_problem_or_an_end(api: Api) -> None:
    chance = random.Random(20261201)
    pieces = (b"GET ", b"POST ", b"/", b"/v1/vms", b"%0a", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: b\r\n", b"\0",
              b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"0\r\n", b"a" * 99, b":", b"\xff", b" ",
              b"*")  # fmt: skip
    for _ in range(300):
        sent = b"".join(chance.choices(pieces, k=chance.randint(1, 20)))
        with connected(api) as stranger:
            stranger.sendall(sent)
            stranger.shutdown(socket.SHUT_WR)
            for status, head in heads(received(stranger)):
                assert status < 500, (sent, head)
                assert (b"application/problem+json" in head) == (status >= 400), (sent, head)
    assert api.get("/healthz", token=None).status_code == 200


def connected(api: Api) -> socket.socket:
    address = httpx.URL(api.url)
    return socket.create_connection((address.host, address.port), timeout=10)


def received(stranger: socket.socket) -> bytes:
    found = b""
    stranger.settimeout(0.2)  # what is not ended by the server waits for more of the request
    try:
        while data := stranger.recv(65_536):
            found += data
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def heads(answers: bytes) -> Iterator[tuple[int, bytes]]:
    for found in re.finditer(rb"HTTP/1\.1 (\d{3}) .*?\r\n\r\n", answers, re.DOTALL):
        yield int(found[1]), found[0]


@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/commands"])
def test_a_command_in_doubt_is_named_when_the_api_stops(database: Database, path: str) -> None:
    one = {"name": "one"}
    body: dict[str, Any] = one if path == "/v1/tenants" else {"commands": [{"command": "tenant.create", **one}]}
    with ExitStack() as holding, ThreadPoolExecutor(1) as pool:
        with served(database.service) as url:
            api = Api(url, database.service)
            api.get("/v1/whoami")
            holding.enter_context(nothing_can_be_appended(database))
            sent = pool.submit(api.post, path, body)
            reading = Line(url)
            reading.send("GET", "/v1/tenants?min_position=1000000")
            while counted(api, "GET", "/healthz", 200) == 0:  # answered after both have come
                api.get("/healthz", token=None)
        problem = sent.result()
        assert (problem.status_code, problem.json()["code"]) == (503, "unavailable")
        assert problem.headers["Content-Type"] == "application/problem+json"
        assert problem.json()["command"]
        assert int(problem.headers["Retry-After"]) >= 5, "until then it may still be decided"
        read = reading.answer()
        assert (read.status, read.body["code"]) == (503, "unavailable")
