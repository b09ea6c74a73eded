"""More than can be done: it is told at once, and what nobody takes away is not kept."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from api import connection
from api.problems import RateLimited
from api.rate import BUCKETS_MAX, RateLimit
from tests.api.served import ADMIN, Api, served
from tests.api.test_live import events_of
from tests.conftest import Database


@contextmanager
def nothing_can_be_appended(database: Database) -> Iterator[None]:
    """While somebody else holds the log's table; reading goes on."""
    with psycopg.connect(database.owner) as held:
        held.execute("LOCK TABLE berth.events IN SHARE MODE")
        yield


def test_a_full_queue_says_so_at_once_and_does_what_it_took(database: Database) -> None:
    numbers = iter(range(10**9))
    with served(database.service) as url, ThreadPoolExecutor(40) as pool:
        api = Api(url, database.service)
        waiting: list[Future[httpx.Response]] = []

        def is_taken(commands: int) -> bool:
            items = [{"command": "tenant.create", "name": f"t{next(numbers)}"} for _ in range(commands)]
            sent = pool.submit(api.post, "/v1/commands", {"commands": items})
            deadline = time.monotonic() + 1.0
            while not sent.done() and time.monotonic() < deadline:
                time.sleep(0.01)
            if not sent.done():
                waiting.append(sent)
                return True
            assert sent.result().status_code == 503
            return False

        with nothing_can_be_appended(database):
            assert is_taken(1000)
            assert is_taken(1000)
            for size in (500, 250, 125, 60, 30, 15, 8, 4, 2, 1):
                while is_taken(size):
                    pass
            # Nothing was decided meanwhile, so these answers waited for nothing.
            refused = api.post("/v1/tenants", {"name": "one-more"}, headers={"Idempotency-Key": "again"})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json()["code"] == "unavailable"
            assert api.get(f"/v1/commands/{refused.json()['command']}").status_code == 404
            assert api.get("/v1/tenants").status_code == 200
            assert not any(sent.done() for sent in waiting)
        for sent in waiting:
            assert {result["status"] for result in sent.result().json()["results"]} == {201}
        again = api.post("/v1/tenants", {"name": "one-more"}, headers={"Idempotency-Key": "again"})
        assert again.status_code == 201


class Clock:
    s = 100.0

    def __call__(self) -> float:
        return self.s


def let_through(limit: RateLimit, token: str, *, tries: int) -> int:
    done = 0
    for _ in range(tries):
        try:
            limit.take(token)
            done += 1
        except RateLimited:
            pass
    return done


def test_a_bucket_holds_a_second_and_fills_at_its_rate() -> None:
    clock = Clock()
    limit = RateLimit(10.0, now=clock)
    assert let_through(limit, "ann", tries=50) == 10
    assert let_through(limit, "bob", tries=5) == 5
    clock.s += 0.35
    assert let_through(limit, "ann", tries=50) == 3
    clock.s += 3600
    assert let_through(limit, "ann", tries=50) == 10


def test_less_than_one_a_second_lets_one_through_and_says_when_the_next() -> None:
    limit = RateLimit(0.25, now=Clock())
    limit.take("ann")
    with pytest.raises(RateLimited) as refused:
        limit.take("ann")
    assert refused.value.after_s == 4.0


def test_buckets_are_not_kept_without_bound() -> None:
    limit = RateLimit(1.0, now=Clock())
    for n in range(BUCKETS_MAX + 10):
        limit.take(f"t{n}")
    assert let_through(limit, "t0", tries=1) == 1
    assert let_through(limit, f"t{BUCKETS_MAX}", tries=1) == 0


def test_a_token_that_asks_too_often_is_told_when_to_come_again(database: Database) -> None:
    with served(database.service, rate_limit_per_s=3.0) as url:
        api = Api(url, database.service)
        other = api.token("viewer")
        answers = [api.get("/v1/whoami") for _ in range(30)]
        refused = next(answer for answer in answers if answer.status_code != 200)
        assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (
            429,
            "rate_limited",
            "1",
        )
        assert api.get("/v1/whoami", token=other).status_code == 200
        assert api.get("/healthz", token=None).status_code == 200


LISTENS_S, ENDED_S_MAX = 0.3, 60.0


class NotReading:
    """A client of the event stream that takes nothing until it is told to."""

    def __init__(self, api: Api, path: str) -> None:
        address = httpx.URL(api.url)
        self.found = b""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(30)
        self.socket.connect((address.host, address.port or 80))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode())

    def begins(self) -> None:
        """Wait until it is served, and listens."""
        while b": from" not in self.found:
            self.found += self.socket.recv(1)
        time.sleep(LISTENS_S)

    def everything(self) -> bytes:
        """What comes until the connection ends."""
        found, deadline = self.found, time.monotonic() + ENDED_S_MAX
        try:
            while chunk := self.socket.recv(1 << 16):
                found += chunk
                assert time.monotonic() < deadline, "the connection was not ended"
        except ConnectionResetError:
            pass
        return found


def positions(stream: bytes) -> list[int]:
    return [int(line[4:]) for line in stream.split(b"\n") if line.startswith(b"id: ")]


def much_happens(api: Api, name: str, *, changes: int) -> int:
    """Events of some 2 KiB each; the last position."""
    api.done("POST", "/v1/tenants", {"name": name})
    change = {"command": "tenant.update", "tenant": name}
    for start in range(0, changes, 500):
        items = [{**change, "description": f"{start + n} " + "x" * 1900} for n in range(min(500, changes - start))]
        answer = api.done("POST", "/v1/commands", {"commands": items})
    return int(answer["position"])


def test_a_listener_that_does_not_read_is_dropped_and_goes_on_from_its_last_id(
    api: Api, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.live.QUEUE_EVENTS_MAX", 1_000)
    monkeypatch.setattr("api.live.PAGE_EVENTS", 50)
    start = api.done("POST", "/v1/racks", {"name": named, "region": "r", "dc": "d"})["position"]
    slow = NotReading(api, f"/v1/events/stream?after={start}")
    slow.begins()  # else it catches up from the log, at its own pace, and nothing waits for it
    read = iter(events_of(api, f"/v1/events/stream?after={start}"))
    seen: list[int] = []
    reading = threading.Thread(target=lambda: seen.extend(int(next(read)["id"]) for _ in range(2 * 2001)))
    reading.start()
    end = much_happens(api, named, changes=2000)
    got = positions(slow.everything())
    assert got == list(range(start + 1, start + 1 + len(got)))
    assert 0 < len(got) < end - start
    rest = iter(events_of(api, "/v1/events/stream", headers={"Last-Event-ID": str(got[-1])}))
    assert int(next(rest)["id"]) == got[-1] + 1
    reading.join(30)
    assert seen == list(range(start + 1, end + 1))


def test_a_client_that_does_not_take_its_answer_is_cut_off(
    api: Api, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_cut, cut = threading.Event(), connection.HttpConnection.cut

    def cut_and_tell(self: connection.HttpConnection) -> None:
        cut(self)
        is_cut.set()

    monkeypatch.setattr(connection, "UNTAKEN_S_MAX", 0.2)
    monkeypatch.setattr(connection.HttpConnection, "cut", cut_and_tell)
    much_happens(api, named, changes=1000)
    stuck = NotReading(api, "/v1/events/stream?after=0")
    assert is_cut.wait(30)
    assert not stuck.everything().endswith(b"0\r\n\r\n")


def test_a_head_without_end_is_refused(api: Api) -> None:
    endless = NotReading(api, "/v1/tenants")
    endless.socket.sendall(b"GET /v1/tenants HTTP/1.1\r\nHost: berth\r\n")
    sent = 0
    try:
        for sent in range(10_000):
            endless.socket.sendall(b"X-%d: %s\r\n" % (sent, b"x" * 1000))
    except OSError:
        pass
    assert sent < 9_000


def test_what_is_refused_for_want_of_room_is_described(api: Api) -> None:
    described = json.dumps(api.get("/openapi.json", token=None).json()["paths"]["/v1/vms"]["post"]["responses"])
    assert '"429"' in described
    assert '"503"' in described
