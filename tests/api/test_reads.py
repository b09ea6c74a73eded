"""Reads: lists and their pages, single resources, the past, explanations, the log, what runs."""

import base64
import csv
import io
import json
import time
from typing import Any

import pytest

from tests.api.served import Api


@pytest.fixture
def site(api: Api, named: str) -> dict[str, Any]:
    api.done("POST", "/v1/tenants", {"name": named})
    api.done("POST", "/v1/groups", {"name": named})
    api.done("POST", "/v1/racks", {"name": named, "region": named, "dc": named})
    for n in range(3):
        body = {
            "name": f"{named}-{n}",
            "group": named,
            "rack": named,
            "capacity": {"cpu": 8 + n},
            "labels": {"n": str(n)},
        }
        api.done("POST", "/v1/hosts", body)
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {"cpu": 20}})
    return api.done("POST", "/v1/vms", {"tenant": named, "name": "web", "group": named, "resources": {"cpu": 4}})


def test_a_list_is_read_page_by_page(api: Api, site: dict[str, Any], named: str) -> None:
    params: dict[str, Any] = {"group": named, "limit": 2, "sort": "-name", "count": "true"}
    first = api.shown(site, "/v1/hosts", params=params).json()
    assert [item["name"] for item in first["items"]] == [f"{named}-2", f"{named}-1"]
    assert first["count"] == 3
    second = api.get("/v1/hosts", params={**params, "cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in second["items"]] == [f"{named}-0"]
    assert second["next_cursor"] is None


def test_filters_narrow(api: Api, site: dict[str, Any], named: str) -> None:
    def names(**params: Any) -> list[str]:
        return [item["name"] for item in api.shown(site, "/v1/hosts", params=params).json()["items"]]

    assert names(label="n=1", group=named) == [f"{named}-1"]
    assert names(region=named, sort="-cpu_available")[0] == f"{named}-2"
    assert names(q=f"{named}-0") == [f"{named}-0"]
    assert names(group=named, state="cordoned") == []
    assert len(names(group=named, state=["cordoned", "available"])) == 3


def test_a_list_is_a_table_too(api: Api, site: dict[str, Any], named: str) -> None:
    response = api.shown(site, "/v1/hosts", params={"group": named, "limit": 2}, headers={"Accept": "text/csv"})
    assert response.headers["Content-Type"].startswith("text/csv")
    assert 'rel="next"' in response.headers["Link"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["capacity.cpu"] for row in rows] == ["8", "9"]
    assert sum(row["vms"] == f"{named}/web" for row in rows) == 1
    rest = api.get(response.headers["Link"].partition(">")[0].lstrip("<"), headers={"Accept": "text/csv"})
    assert [row["name"] for row in csv.DictReader(io.StringIO(rest.text))] == [f"{named}-2"]


def test_a_table_without_rows_has_its_header(api: Api, named: str) -> None:
    for path in (f"/v1/vms?tenant={named}", f"/v1/events?stream=vm/{named}", f"/v1/audit?actor={named}"):
        text = api.get(path, headers={"Accept": "text/csv"}).text
        assert len(text.splitlines()) == 1, path
        assert {"position", "state"} & set(text.strip().split(",")), path


def test_a_made_up_cursor_is_refused(api: Api, site: dict[str, Any], named: str) -> None:
    for path, field in (("hosts", "name"), ("hosts", "cpu_used"), ("audit", "position"), ("capacity", "cpu_used")):
        asked = {"limit": 1, "sort": field, **({"by": "host"} if path == "capacity" else {})}
        given = api.shown(site, f"/v1/{path}", params=asked).json()["next_cursor"]
        of, *_ = json.loads(base64.urlsafe_b64decode(given + "=="))
        for value in (None, "x\0", 2**70, True, {}, 1.5, "web"):
            forged = base64.urlsafe_b64encode(json.dumps([of, value, value]).encode()).decode().rstrip("=")
            response = api.get(f"/v1/{path}", params={**asked, "cursor": forged})
            assert response.status_code in (200, 422), (path, field, value, response.text)


def test_the_past_is_as_it_was(api: Api, site: dict[str, Any], named: str) -> None:
    path = f"/v1/vms/{named}/web"
    api.done("PATCH", path, {"description": "later"})
    then = api.get(path, params={"as_of": site["position"]})
    assert then.json() == site["resource"]
    assert then.headers["Berth-Position"] == str(site["position"])
    inside = api.get(path, params={"as_of": site["position"] - 1})
    assert inside.headers["Berth-Position"] == str(site["position"]), "a position means the end of its command"
    at = site["resource"]["created_at"]
    assert api.get(path, params={"as_of": at}).json() == site["resource"]
    assert api.get(path, params={"as_of": "2020-01-01T00:00:00Z"}).status_code == 404
    assert api.get(path, params={"as_of": 0}).status_code == 404


def test_every_kind_has_a_past(api: Api, site: dict[str, Any], named: str) -> None:
    for path in (
        f"/v1/tenants/{named}", f"/v1/racks/{named}", f"/v1/groups/{named}", f"/v1/hosts/{named}-0",
        f"/v1/groups/{named}/quotas/{named}", f"/v1/operations/{site['operation']}", "/v1/tokens/admin",
    ):  # fmt: skip
        now = api.shown(site, path).json()
        assert api.get(path, params={"as_of": site["position"]}).json() == now


def test_what_is_beyond_the_end_is_waited_for_in_vain(api: Api) -> None:
    response = api.get("/v1/tenants", params={"min_position": 10**12})
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"]


def test_sums_are_read_anew_though_the_version_stands(api: Api, site: dict[str, Any], named: str) -> None:
    read = api.shown(site, f"/v1/groups/{named}")
    host = api.done("POST", "/v1/hosts", {"name": f"{named}-9", "group": named, "capacity": {"cpu": 1}})
    again = api.shown(host, f"/v1/groups/{named}", headers={"If-None-Match": read.headers["ETag"]})
    assert (again.status_code, again.headers["ETag"]) == (200, read.headers["ETag"])
    assert again.json()["hosts"] == read.json()["hosts"] + 1


def test_a_read_names_the_position_at_which_it_is_so(api: Api, site: dict[str, Any], named: str) -> None:
    path = f"/v1/tenants/{named}"
    api.shown(site, path)
    for n in range(30):
        api.done("PATCH", path, {"description": f"{n}"})
        read = api.get(path)
        assert api.get(path, params={"as_of": read.headers["Berth-Position"]}).json() == read.json()


def test_what_is_over_has_a_past_and_what_is_revoked_has_none(api: Api, site: dict[str, Any], named: str) -> None:
    ended = api.done("DELETE", f"/v1/vms/{named}/web")
    operation = f"/v1/operations/{site['operation']}"
    now = api.shown(ended, operation).json()
    assert now["state"] == "cancelled"
    assert api.get(operation, params={"as_of": ended["position"]}).json() == now
    assert api.get(operation, params={"as_of": site["position"]}).json()["state"] == "running"
    assert api.get(operation, params={"as_of": site["position"] - 7}).status_code == 404
    changes = api.get(f"/v1/history/operation/{site['operation']}").json()["items"]
    assert changes[-1]["after"] == now
    made = api.done("POST", "/v1/tokens", {"name": named, "role": "viewer"})
    revoked = api.done("DELETE", f"/v1/tokens/{named}")
    statuses = [
        api.get(f"/v1/tokens/{named}", params={"as_of": answer["position"]}).status_code for answer in (made, revoked)
    ]
    assert statuses == [200, 404]


def test_a_placement_is_explained(api: Api, site: dict[str, Any], named: str) -> None:
    found = api.shown(site, f"/v1/explain/vms/{named}/web").json()
    assert found["host"] == site["resource"]["host"]
    assert found["explanation"]["considered"] == 3
    assert found["explanation"]["runner_up"]["host"] != found["host"]
    path = f"/v1/explain/vms/{named}/web"
    assert api.get(path, params={"as_of": site["position"]}).json() == found
    assert api.get(path, params={"as_of": site["position"] - 6}).status_code == 404


def test_a_history_tells_before_and_after(api: Api, named: str) -> None:
    api.done("POST", "/v1/tenants", {"name": named})
    api.done("PATCH", f"/v1/tenants/{named}", {"description": "x"})
    last = api.done("DELETE", f"/v1/tenants/{named}")
    changes = api.shown(last, f"/v1/history/tenant/{named}").json()["items"]
    assert [change["topic"] for change in changes] == ["tenant.created", "tenant.updated", "tenant.deleted"]
    assert changes[0]["before"] is None
    assert changes[1]["before"] == changes[0]["after"]
    assert (changes[1]["after"]["description"], changes[2]["after"]) == ("x", None)
    newest = api.get(f"/v1/history/tenant/{named}", params={"sort": "-position", "limit": 1}).json()
    assert newest["items"] == [changes[2]]
    assert api.get(f"/v1/history/tenant/{named}", params={"limit": 1, "count": "true"}).json()["count"] == 3


def test_the_log_is_read_both_ways_and_by_topic(api: Api, site: dict[str, Any], named: str) -> None:
    end = site["position"]
    rising = api.get("/v1/events", params={"after": end - 5, "until": end}).json()["items"]
    falling = api.get("/v1/events", params={"after": end - 5, "until": end, "sort": "-position"}).json()["items"]
    assert [event["position"] for event in rising] == list(range(end - 4, end + 1))
    assert falling == rising[::-1]
    first = api.get("/v1/events", params={"after": end - 5, "until": end, "limit": 2}).json()
    rest = api.get("/v1/events", params={"after": end - 5, "until": end, "cursor": first["next_cursor"]}).json()
    assert first["items"] + rest["items"] == rising
    (scheduled,) = api.get("/v1/events", params={"after": end - 5, "topic": "vm.scheduled"}).json()["items"]
    assert scheduled["stream"] == f"vm/{named}/web"
    assert api.get("/v1/events", params={"stream": f"vm/{named}/web"}).json()["items"] == [scheduled]


def test_events_are_counted_and_found_by_words(api: Api, site: dict[str, Any], named: str) -> None:
    stretch = {"after": site["position"] - 5, "until": site["position"], "count": "true"}
    page = api.get("/v1/events", params={**stretch, "limit": 2}).json()
    assert (page["count"], len(page["items"])) == (5, 2)
    rest = api.get("/v1/events", params={**stretch, "limit": 2, "cursor": page["next_cursor"]}).json()
    assert rest["count"] == 5
    found = api.get("/v1/events", params={**stretch, "q": f"Host/{named}".lower()}).json()
    assert [event["topic"] for event in found["items"]] == ["host.claimed", "command.accepted"][: found["count"]]


def test_the_audit_is_found_by_words(api: Api, named: str) -> None:
    done = api.done("POST", "/v1/tenants", {"name": named}, headers={"Berth-Reason": f"Ticket%20{named}%20%E5%85%AC"})
    for q in (f"ticket {named} 公", f"tenant/{named}"):
        (entry,) = api.shown(done, "/v1/audit", params={"q": q}).json()["items"]
        assert entry["id"] == done["command"]
    assert api.get("/v1/audit", params={"q": f"{named}-none", "count": "true"}).json()["count"] == 0


def test_a_refusal_is_read_again_where_it_says(api: Api, named: str) -> None:
    problem = api.post("/v1/tenants", {"name": named, "parent": f"{named}-none"}).json()
    told = api.get(problem["instance"]).json()
    assert told["problem"] == problem
    assert problem.items() <= told.items()


def test_capacity_adds_up(api: Api, site: dict[str, Any], named: str) -> None:
    for by in ("group", "rack", "region", "dc"):
        page = api.shown(site, "/v1/capacity", params={"by": by, "region": named}).json()
        (row,) = [row for row in page["items"] if row["name"] == named]
        assert (row["capacity"], row["used"], row["available"]) == ({"cpu": 27}, {"cpu": 4}, {"cpu": 23})
    hosts = {"by": "host", "group": named, "limit": 2, "sort": "-cpu_available", "count": "true"}
    first = api.get("/v1/capacity", params=hosts).json()
    rest = api.get("/v1/capacity", params={**hosts, "cursor": first["next_cursor"]}).json()
    rows = first["items"] + rest["items"]
    free = [row["available"]["cpu"] for row in rows]
    assert (free, len({row["name"] for row in rows})) == (sorted(free, reverse=True), 3)
    assert (first["count"], len(first["items"]), rest["next_cursor"]) == (3, 2, None)
    assert api.get("/v1/capacity?by=host&sort=colour").status_code == 422
    (tenant,) = api.get("/v1/capacity", params={"by": "tenant", "tenant": named}).json()["items"]
    assert (tenant["capacity"], tenant["available"]) == ({"cpu": 20}, {"cpu": 16})


def test_what_one_quota_does_not_limit_is_not_told_to_be_available_to_its_tenant(
    api: Api, site: dict[str, Any], named: str
) -> None:
    def row() -> dict[str, Any]:
        last = api.get("/v1/events?sort=-position&limit=1").json()["items"][0]
        (found,) = api.shown(last, "/v1/capacity", params={"by": "tenant", "tenant": named}).json()["items"]
        return dict(found)

    second = f"{named}-second"
    api.done("POST", "/v1/groups", {"name": second})
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {"cpu": 20, "vms": 10, "gpu": 3}})
    api.done("PUT", f"/v1/groups/{second}/quotas/{named}", {"limits": {"vms": 5}})
    # No host stands in the second group, so that it has nothing of a class to be without an end.
    assert row()["available"] == {"cpu": 16, "gpu": 3, "vms": 14}
    api.done("POST", "/v1/hosts", {"name": second, "group": second, "capacity": {"cpu": 8}})
    assert row()["available"] == {"gpu": 3, "vms": 14}
    api.done("PUT", f"/v1/groups/{second}/quotas/{named}", {"limits": {"cpu": 0}})
    assert row()["available"] == {"cpu": 16, "gpu": 3}
    assert row()["capacity"] == {"cpu": 20, "gpu": 3, "vms": 10}
    assert (row()["used"]["vms"], row()["used"]["cpu"]) == (1, 4)


def test_the_proof_finds_nothing_wrong(api: Api, site: dict[str, Any]) -> None:
    for path in ("/v1/verify", "/v1/verify?full=true"):
        result = api.post(path).json()
        assert (result["violations"], result["differences"]) == ([], [])
        assert result["events"] >= site["position"]


def test_metrics_tell_of_requests_and_lag(api: Api) -> None:
    api.get("/v1/vms")
    counted, deadline = 'berth_http_requests_total{method="GET",route="/v1/vms",status="200"}', time.monotonic() + 10
    while counted not in (text := api.get("/metrics", token=None).text):  # they are as old as a second
        assert time.monotonic() < deadline
    for name in (
        "berth_projector_lag_events",
        "berth_projector_lag_seconds",
        "berth_log_position",
        "berth_commands_total",
    ):
        assert f"\n{name}" in text


def test_pages_need_nothing_from_elsewhere(api: Api) -> None:
    for path in ("/docs", "/docs.js", "/problems/no_capacity"):
        text = api.get(path, token=None).text
        assert "http://" not in text
        assert "https://" not in text
