"""A position that this log does not have is not believed: whoever went on from it would miss events."""

from typing import Any

import pytest

from tests.api.served import Api

BEYOND = 10**9


def end_of(api: Api) -> int:
    position: int = api.get("/v1/events?limit=1").json()["position"]
    return position


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (f"/v1/events/stream?after={BEYOND}", {}),
        ("/v1/events/stream", {"headers": {"Last-Event-ID": str(BEYOND)}}),
        (f"/v1/events?after={BEYOND}", {}),
        (f"/v1/events?until={BEYOND}", {}),
        (f"/v1/events?cursor={BEYOND}", {}),
        (f"/v1/events?sort=-position&cursor={BEYOND}", {}),
        (f"/v1/history/token/admin?cursor={BEYOND}", {}),
        (f"/v1/audit?since={BEYOND}", {}),
        (f"/v1/audit?until={BEYOND}", {}),
    ],
)
def test_a_position_beyond_the_end_is_a_conflict_that_names_the_end(api: Api, path: str, more: dict[str, Any]) -> None:
    before = end_of(api)
    response = api.get(path, **more)
    assert (response.status_code, response.json()["code"]) == (409, "conflict")
    assert f"ends at position {before}," in response.json()["detail"]


def test_the_end_itself_is_no_conflict(api: Api, named: str) -> None:
    end = api.done("POST", "/v1/tenants", {"name": named})["position"]
    for path in (f"/v1/events?after={end}", f"/v1/events?until={end}", f"/v1/events?cursor={end}"):
        assert api.get(path).status_code == 200, path
    with api.http.stream(
        "GET", f"/v1/events/stream?after={end}", headers={"Authorization": "Bearer test-admin-secret"}
    ) as live:
        assert live.status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/tenants?min_position={0}", "/v1/tokens/admin?min_position={0}", "/v1/tokens/admin?as_of={0}"]
)
def test_what_waits_for_a_position_in_vain_is_told_which_the_log_has(api: Api, path: str) -> None:
    end = end_of(api)
    response = api.get(path.format(BEYOND))
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert f"ends at position {end}, before {BEYOND}" in response.json()["detail"]
    assert response.headers["Retry-After"]
