"""Pages are bounded in bytes too: what is large comes in several, each once and in order."""

import itertools
from typing import Any

import pytest

from tests.api.served import Api


@pytest.fixture
def large(api: Api, named: str) -> dict[str, Any]:
    """Tenants of 20 KB each, made by commands of as many."""
    labels = {f"key-{n:02}": "x" * 253 for n in range(64)}
    commands = [{"command": "tenant.create", "name": f"{named}-{n:03}", "labels": labels} for n in range(150)]
    found: dict[str, Any] = api.post("/v1/commands", {"commands": commands}).json()
    assert all(result["status"] == 201 for result in found["results"])
    return found


def walked(api: Api, path: str, **params: Any) -> list[list[dict[str, Any]]]:
    pages: list[list[dict[str, Any]]] = []
    while True:
        page = api.get(path, params=params).json()
        pages.append(page["items"])
        if page["next_cursor"] is None:
            return pages
        params["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("sort", ["", "-"])
def test_a_page_ends_early_and_nothing_is_left_out(
    api: Api, large: dict[str, Any], named: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.queries.PAGE_BYTES_MAX", 200_000)
    monkeypatch.setattr("projections.queries.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("projections.queries.ENTRIES_AT_ONCE", 7)
    asked = {"limit": 1_000, "min_position": large["position"]}
    tenants = walked(api, "/v1/tenants", q=named, sort=f"{sort}name", **asked)
    entries = walked(api, "/v1/audit", q=f"tenant/{named}", sort=f"{sort}position", **asked)
    for pages, name in ((tenants, "name"), (entries, "resource")):
        assert max(len(page) for page in pages) < 30
        found = [item[name].rpartition("-")[2] for page in pages for item in page]
        wanted = [f"{n:03}" for n in range(150)]
        assert found == (wanted[::-1] if sort else wanted)


def test_a_page_of_the_log_ends_early_and_nothing_is_left_out(
    api: Api, large: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.event_search.PAGE_BYTES_MAX", 200_000)
    monkeypatch.setattr("eventlog.read.PORTION_BYTES_MAX", 100_000)
    end = large["position"]
    asked: dict[str, Any] = {"limit": 1_000, "after": end - 300, "until": end}
    whole = list(range(end - 299, end + 1))
    for more, wanted in (
        ({}, whole),
        ({"sort": "-position"}, whole[::-1]),
        ({"q": f"{named}-1"}, None),
        ({"topic": "tenant.created", "sort": "-position"}, whole[-2::-2]),
    ):
        pages = walked(api, "/v1/events", **asked, **more)
        assert max(len(page) for page in pages) < 30
        found = [event["position"] for page in pages for event in page]
        assert found == (wanted or found)
        assert len(found) == (len(wanted) if wanted is not None else 100)


def test_counting_stops_somewhere_and_says_so(
    api: Api, large: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = large["position"]
    asked: dict[str, Any] = {"limit": 1, "after": end - 300, "until": end, "count": "true", "q": "tenant.created"}
    whole = api.get("/v1/events", params=asked).json()
    assert (whole["count"], "count_truncated" in whole) == (150, False)
    monkeypatch.setattr("api.event_search.READ_EVENTS_MAX", 100)
    monkeypatch.setattr("api.event_search.PORTION_EVENTS", 50)
    part = api.get("/v1/events", params=asked).json()
    assert (part["count"], part["count_truncated"]) == (50, True)
    rest = api.get("/v1/events", params={**asked, "limit": 1_000}).json()
    assert len(rest["items"]) == 50
    following = api.get("/v1/events", params={**asked, "limit": 1_000, "cursor": rest["next_cursor"]}).json()
    assert following["items"][0]["position"] == rest["items"][-1]["position"] + 2


def test_a_rare_topic_is_passed_over_in_bounded_stretches(
    api: Api, large: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.event_search.SCANNED_EVENTS_MAX", 100)
    monkeypatch.setattr("api.event_search.WINDOW_EVENTS", 40)
    end = large["position"]
    for sort in ("position", "-position"):
        pages = walked(api, "/v1/events", after=end - 300, until=end, topic="rack.deleted", sort=sort)
        assert [len(page) for page in pages] == [0, 0, 0]


def test_a_page_of_a_history_ends_early_and_nothing_is_left_out(
    api: Api, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {f"key-{n:02}": "x" * 253 for n in range(64)}
    api.done("POST", "/v1/tenants", {"name": named, "labels": labels})
    changes = [{"command": "tenant.update", "tenant": named, "description": f"{n}"} for n in range(60)]
    assert api.post("/v1/commands", {"commands": changes}).status_code == 200
    path = f"/v1/history/tenant/{named}"
    (whole,) = walked(api, path, limit=1_000)
    assert [change["after"]["description"] for change in whole] == [None, *(f"{n}" for n in range(60))]
    assert all(change["before"] == before["after"] for before, change in itertools.pairwise(whole))
    monkeypatch.setattr("api.history.PAGE_BYTES_MAX", 300_000)
    monkeypatch.setattr("api.history.PORTION_EVENTS", 7)
    for sort, wanted in (("position", whole), ("-position", whole[::-1])):
        pages = walked(api, path, limit=1_000, sort=sort)
        assert 5 < max(len(page) for page in pages) < 12
        assert [change for page in pages for change in page] == wanted
        assert walked(api, path, limit=20, sort=sort)[0] == wanted[: len(pages[0])]
    counted = api.get(path, params={"limit": 2, "count": "true"}).json()
    assert (counted["count"], counted["items"]) == (61, whole[:2])
