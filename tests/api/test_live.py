"""The log, live: everything once and in order, from where one left off, until one may no more."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.api.served import ADMIN, Api


def events_of(
    api: Api, path: str, *, token: str = ADMIN, headers: dict[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """Server-sent events as they come: {`id`, `event`, `data`}."""
    with (
        httpx.Client(base_url=api.url, timeout=30) as client,
        client.stream("GET", path, headers={"Authorization": f"Bearer {token}", **(headers or {})}) as response,
    ):
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if not line and "data" in event:
                yield event
            if not line:
                event = {}
            elif not line.startswith(":"):
                field, _, value = line.partition(": ")
                event[field] = value


def test_a_stream_goes_from_the_past_into_the_present(api: Api, named: str) -> None:
    first = api.done("POST", "/v1/tenants", {"name": named})
    events = events_of(api, f"/v1/events/stream?after={first['position'] - 2}")
    assert next(events)["event"] == "tenant.created"
    assert next(events)["id"] == str(first["position"])
    second = api.done("PATCH", f"/v1/tenants/{named}", {"description": "now"})
    assert (next(events)["event"], next(events)["id"]) == ("tenant.updated", str(second["position"]))


def test_a_stream_goes_on_where_it_was_left(api: Api, named: str) -> None:
    answers = [api.done("POST", "/v1/tenants", {"name": f"{named}-{n}"}) for n in range(3)]
    events = events_of(api, "/v1/events/stream", headers={"Last-Event-ID": str(answers[0]["position"])})
    found = [next(events)["id"] for _ in range(4)]
    start = answers[0]["position"]
    assert found == [str(start + n) for n in range(1, 5)]


def test_an_empty_last_event_id_is_none(api: Api, named: str) -> None:
    position = api.done("POST", "/v1/tenants", {"name": named})["position"]
    with api.http.stream(
        "GET",
        f"/v1/events/stream?after={position - 1}",
        headers={"Authorization": f"Bearer {ADMIN}", "Last-Event-ID": ""},
    ) as stream:
        assert stream.status_code == 200
        assert any(line == f"id: {position}" for line in stream.iter_lines())


def test_a_stream_has_every_event_once_under_load(api: Api, named: str) -> None:
    start = api.get("/v1/events?limit=1").json()["position"]

    def write() -> None:
        with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {ADMIN}"}) as client:
            for n in range(100):
                client.post("/v1/tenants", json={"name": f"{named}-{n}"})

    writing = threading.Thread(target=write)
    writing.start()
    events = events_of(api, f"/v1/events/stream?after={start}")
    found = [int(next(events)["id"]) for _ in range(200)]
    writing.join()
    assert found == list(range(start + 1, start + 201))


def test_what_is_streamed_is_what_is_listed(api: Api, named: str) -> None:
    position = api.done("POST", "/v1/tenants", {"name": named})["position"]
    streamed = next(events_of(api, f"/v1/events/stream?after={position - 1}"))
    (listed,) = api.get("/v1/events", params={"after": position - 1, "until": position}).json()["items"]
    assert httpx.Response(200, text=streamed["data"]).json() == listed
    assert streamed["event"] == listed["topic"]


def test_a_busy_stream_has_its_comments_too(api: Api, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.event_stream.COMMENT_EVERY_S", 0.0)
    monkeypatch.setattr("api.turns.TURN_S", 0.0)  # so that each event is written by itself
    position = api.done("POST", "/v1/tenants", {"name": named})["position"]
    path, headers = f"/v1/events/stream?after={position - 2}", {"Authorization": f"Bearer {ADMIN}"}
    with httpx.stream("GET", f"{api.url}{path}", headers=headers, timeout=30) as response:
        lines = response.iter_lines()
        found = [line for line, _ in zip(lines, range(14), strict=False) if line.startswith((":", "id"))]
    assert found[1:] == [f"id: {position - 1}", ": still here", f"id: {position}", ": still here"]


def test_a_stream_ends_with_its_token(api: Api, named: str) -> None:
    secret = api.done("POST", "/v1/tokens", {"name": named, "role": "viewer"})["secret"]
    events = events_of(api, "/v1/events/stream?after=0", token=secret)
    next(events)
    ended = threading.Event()

    def read() -> None:
        for _ in events:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    api.done("DELETE", f"/v1/tokens/{named}")
    assert ended.wait(5)


def test_events_may_come_without_names(api: Api, named: str) -> None:
    position = api.done("POST", "/v1/tenants", {"name": named})["position"]
    plain = next(events_of(api, f"/v1/events/stream?after={position - 1}&named=0"))
    with_name = next(events_of(api, f"/v1/events/stream?after={position - 1}&named=1"))
    assert plain.keys() == {"id", "data"}
    assert with_name == {**plain, "event": httpx.Response(200, text=plain["data"]).json()["topic"]}
    assert api.get("/v1/events/stream?named=no").status_code == 422
