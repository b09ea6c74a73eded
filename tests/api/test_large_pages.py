"""Pages are bounded in bytes too: what is large comes in several, each once and in order."""

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
