"""Bodies: in time, bounded in bytes, and none of them takes others' turns."""

import asyncio
import json
import socket
import time
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from api import upload
from api.budget import LARGE_BODIES, UNDERSTOOD, all_slots
from api.problems import TooSlow
from api.upload import BATCH_BYTES_MAX, LARGE_BYTES, understood
from tests.api.served import ADMIN, Api
from tests.api.test_connection import Line

MIB = 1024 * 1024
PIECE = b" " * 64 * 1024
ROOM_IN_SOCKETS = 4 * MIB  # what the kernel may hold of a body that nobody reads


def head(path: str, token: str, *, length: int | None, method: str = "POST") -> bytes:
    framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\n{framing}\r\n\r\n"
    ).encode()


# ── time ──


@pytest.mark.parametrize("sent", [b"", b'{"name": '])
@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/commands", "/v1/verify"])
@pytest.mark.parametrize("length", [100, BATCH_BYTES_MAX - 1, None])
def test_a_body_that_does_not_come_is_not_waited_for(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str, length: int | None, sent: bytes
) -> None:
    monkeypatch.setattr(upload, "BODY_S_MAX", 0.1)
    if length is not None and length > 100 and path != "/v1/commands":
        length = LARGE_BYTES - 1
    line = Line(api.url)
    line.write(head(path, ADMIN, length=length))
    if sent:
        line.write(sent if length is not None else b"%x\r\n%s\r\n" % (len(sent), sent))
    answer = line.answer()
    assert (answer.status, answer.body["code"]) == (408, "too_slow")
    assert answer.headers["Connection"] == "close"
    assert line.has_ended()


def a_call(receive: Any, **headers: bytes) -> Any:
    return cast(Any, SimpleNamespace(scope={}, headers=headers, receive=receive))


@pytest.mark.parametrize("is_fast", [True, False])
async def test_what_came_of_a_body_gives_its_rest_more_time(monkeypatch: pytest.MonkeyPatch, is_fast: bool) -> None:
    monkeypatch.setattr(upload, "BODY_S_MAX", 0.05)
    monkeypatch.setattr(upload, "BODY_BYTES_PER_S_MIN", 1_000)
    came = iter([b"x" * (30_000 if is_fast else 10), b"y"])

    async def receive() -> dict[str, Any]:
        body = next(came)
        if body == b"y":
            await asyncio.sleep(0.3)  # a slow line
        return {"type": "http.request", "body": body, "more_body": body != b"y"}

    if is_fast:
        assert len(await upload.read(a_call(receive), limit=LARGE_BYTES)) == 30_001
    else:
        with pytest.raises(TooSlow):
            await upload.read(a_call(receive), limit=LARGE_BYTES)


# ── bytes ──


def test_large_bodies_under_way_have_a_bound_of_a_token_and_of_all() -> None:
    assert LARGE_BODIES.of_token * BATCH_BYTES_MAX <= 64 * MIB
    assert LARGE_BODIES.in_all * BATCH_BYTES_MAX <= 256 * MIB


class Sender:
    """Sends a batch of nearly 8 MiB that is never whole, as far as it is taken."""

    def __init__(self, api: Api, token: str) -> None:
        address = httpx.URL(api.url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self._socket.connect((address.host, address.port))
        self._socket.sendall(head("/v1/commands", token, length=BATCH_BYTES_MAX - 20))
        self.sent = 0

    def send(self, *, patience_s: float) -> int:
        """All but a little, or as much as is taken in that time."""
        self._socket.settimeout(patience_s)
        try:
            while self.sent < BATCH_BYTES_MAX - len(PIECE):
                self.sent += self._socket.send(PIECE)
        except TimeoutError:
            pass
        return self.sent

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_a_token_has_no_more_large_bodies_in_memory_than_it_may_and_others_have_theirs(api: Api) -> None:
    greedy, modest = api.token("operator"), api.token("operator")
    whole = BATCH_BYTES_MAX - len(PIECE)
    with ExitStack() as stack:
        senders = [stack.enter_context(Sender(api, greedy)) for _ in range(LARGE_BODIES.of_token)]
        assert all(sender.send(patience_s=10) >= whole for sender in senders)
        one_more = stack.enter_context(Sender(api, greedy))
        assert one_more.send(patience_s=1) < ROOM_IN_SOCKETS, "nobody reads it"
        assert stack.enter_context(Sender(api, modest)).send(patience_s=10) >= whole
        assert api.done("POST", "/v1/tenants", {"name": f"small-{time.time_ns()}"}, token=greedy)
        senders[0].__exit__()
        assert one_more.send(patience_s=10) >= whole


# ── who may ──


@pytest.mark.parametrize("role", ["viewer", "auditor"])
@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/commands"])
def test_who_may_give_no_command_is_told_so_before_a_large_body_is_read(api: Api, role: str, path: str) -> None:
    token = api.token(role)
    recorded = api.get("/v1/audit", params={"count": "true", "limit": 1}).json()["count"]
    announced = Line(api.url)
    announced.write(head(path, token, length=LARGE_BYTES + 1))
    refused = announced.answer()
    assert (refused.status, refused.body["code"]) == (403, "forbidden")
    assert refused.body["permission"] == ("command" if path == "/v1/commands" else "tenant.create")
    unannounced = Line(api.url)
    unannounced.write(head(path, token, length=None) + b"%x\r\n%s\r\n" % (LARGE_BYTES + 1, b" " * (LARGE_BYTES + 1)))
    assert unannounced.answer().status == 403
    assert api.get("/v1/audit", params={"count": "true", "limit": 1}).json()["count"] == recorded


def test_a_controller_sends_many_reports_at_once(api: Api) -> None:
    report = {"operation": "01a23088-7f58-75b5-a456-d7a827156d23", "step": "s", "attempt": 1, "outcome": "succeeded"}
    items = [{"command": "operation.report", **report, "reason": "x" * 2_000} for _ in range(100)]
    body = {"commands": items}
    assert len(json.dumps(body)) > LARGE_BYTES
    answer = api.post("/v1/commands", body, token=api.token("controller"), params={"dry_run": "true"})
    assert answer.status_code == 200


# ── others' turns ──


def worked(body: bytes) -> str:
    ends = time.thread_time() + 0.05
    while time.thread_time() < ends:
        pass
    return "understood"


async def test_a_token_whose_body_took_long_rests_and_no_other_does() -> None:
    slots = all_slots()
    call = cast(
        Any,
        SimpleNamespace(
            context=SimpleNamespace(slots=slots), actor=SimpleNamespace(name="ann"), give_place_back=lambda: None
        ),
    )
    large = b" " * (upload.ON_LOOP_BYTES_MAX + 1)
    assert await understood(call, large, worked) == "understood"
    began = asyncio.get_running_loop().time()
    assert not slots[UNDERSTOOD].take_at_once("ann")
    assert slots[UNDERSTOOD].take_at_once("bob")
    await slots[UNDERSTOOD].take("ann")
    assert asyncio.get_running_loop().time() - began >= 0.05, "as long as it took, at least"


async def test_a_small_body_is_understood_at_once() -> None:
    assert await understood(cast(Any, None), b" " * upload.ON_LOOP_BYTES_MAX, lambda body: len(body)) == len(PIECE) // 4
