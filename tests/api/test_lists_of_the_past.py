"""Lists and capacity as of a moment, over HTTP: what they were, in every form, for everybody who may see them.

That each filter and each sort gives the same is held by tests/projections/test_as_of.py.
"""

import csv
import io
from typing import Any

import pytest

from tests.api.served import Api

CSV = {"Accept": "text/csv"}
LISTS = ("tenants", "racks", "groups", "quotas", "hosts", "vms", "operations")


class Life:
    """A small site, of which parts go again: `then` is the position at which it was whole."""

    def __init__(self, api: Api, named: str) -> None:
        self.api, self.named = api, named
        done = api.done
        done("POST", "/v1/tenants", {"name": named})
        done("POST", "/v1/tenants", {"name": f"{named}-other"})
        done("POST", "/v1/groups", {"name": named})
        done("POST", "/v1/racks", {"name": named, "region": named, "dc": named})
        for n in range(3):
            capacity = {"cpu": 8 + n, f"gone_{named.replace('-', '_')}": 1}
            done("POST", "/v1/hosts", {"name": f"{named}-{n}", "group": named, "rack": named, "capacity": capacity})
        for tenant in (named, f"{named}-other"):
            done("PUT", f"/v1/groups/{named}/quotas/{tenant}", {"limits": {"cpu": 20}})
        for tenant, name in ((named, f"{named}-web"), (f"{named}-other", f"{named}-theirs")):
            made = done("POST", "/v1/vms", {"tenant": tenant, "name": name, "group": named, "resources": {"cpu": 4}})
        self.then: int = made["position"]
        self.operation: str = made["operation"]

    def pages(self, path: str, *, token: str | None = None, **params: Any) -> list[dict[str, Any]]:
        found = []
        cursor: dict[str, str] = {}
        while True:
            more = {"token": token} if token is not None else {}
            response = self.api.get(f"/v1/{path}", params={"limit": 2, **params, **cursor}, **more)
            assert response.status_code == 200, response.text
            found.append(response.json())
            if found[-1]["next_cursor"] is None:
                return found
            cursor = {"cursor": found[-1]["next_cursor"]}

    def everything(self, *, token: str | None = None, **params: Any) -> dict[str, list[dict[str, Any]]]:
        found = {path: self.pages(path, token=token, q=self.named, count="true", **params) for path in LISTS[:-1]}
        found["operations"] = self.pages(
            "operations", token=token, target=f"vm/{self.named}-other/{self.named}-theirs", **params
        )
        found["hosts by cpu"] = self.pages("hosts", token=token, q=self.named, sort="-cpu_available", **params)
        for by in ("tenant",) if token is not None else ("region", "rack", "group", "tenant", "host"):
            found[by] = self.pages("capacity", token=token, by=by, group=self.named, count="true", **params)
        return found

    def go_on(self) -> None:
        done, named = self.api.done, self.named
        for outcome in ("started", "succeeded"):
            body = {"step": "vm.create", "attempt": 1, "outcome": outcome}
            done("POST", f"/v1/operations/{self.operation}/report", body)
        done("PATCH", f"/v1/racks/{named}", {"description": "later"})
        done("POST", f"/v1/hosts/{named}-2/cordon", {})
        for n in range(3):
            done("PATCH", f"/v1/hosts/{named}-{n}", {"capacity": {"cpu": 30}})
        done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {"cpu": 7}})
        last = done("POST", "/v1/tenants", {"name": f"{named}-late"})
        self.api.shown(last, "/v1/tenants")


def items_of(pages: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [page["items"] for page in pages]


@pytest.fixture
def life(api: Api, named: str) -> Life:
    return Life(api, named)


def test_every_list_is_as_it_was(api: Api, life: Life) -> None:
    token = api.token("viewer", tenant=life.named)
    then = api.done("POST", "/v1/tenants", {"name": f"{life.named}-mark"})["position"]
    was = life.everything(min_position=then), life.everything(min_position=then, token=token)
    assert all(page["position"] == then for pages in was[0].values() for page in pages)
    assert sum(len(page["items"]) for pages in was[0].values() for page in pages) > 20
    assert [item["name"] for page in was[1]["vms"] for item in page["items"]] == [f"{life.named}-web"]
    life.go_on()
    now = life.everything()
    assert (life.everything(as_of=then), life.everything(as_of=then, token=token)) == was
    assert {
        path for path in was[0] if [page["items"] for page in now[path]] != [page["items"] for page in was[0][path]]
    } == {
        *("tenants", "racks", "groups", "quotas", "hosts", "vms", "operations", "hosts by cpu"),
        *("region", "rack", "group", "tenant", "host"),
    }


def test_a_position_within_a_command_and_a_time_mean_its_end(api: Api, life: Life) -> None:
    at = api.get(f"/v1/vms/{life.named}-other/{life.named}-theirs").json()["created_at"]
    for moment in (life.then, life.then - 1, at):
        page = api.get("/v1/vms", params={"as_of": moment, "tenant": f"{life.named}-other"})
        assert [item["state"] for item in page.json()["items"]] == ["scheduled"], moment
        assert page.json()["position"] == life.then
        assert page.headers["Berth-Position"] == str(life.then)
    assert api.get("/v1/tenants", params={"as_of": "2020-01-01T00:00:00Z"}).json() == {
        "items": [],
        "next_cursor": None,
        "position": 0,
    }
    assert api.get("/v1/capacity", params={"as_of": 0, "by": "group"}).json()["items"] == []
    beyond = api.get("/v1/vms", params={"as_of": life.then + 1_000_000})
    assert (beyond.status_code, beyond.json()["code"]) == (503, "unavailable")


def test_what_is_listed_below_another_is_as_it_was(api: Api, life: Life) -> None:
    path = f"/v1/groups/{life.named}/quotas"
    was = api.get(path, params={"min_position": life.then}).json()
    life.go_on()
    assert api.get(path, params={"as_of": life.then}).json() == {**was, "position": life.then}
    response = api.get(path, params={"as_of": 1})
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_table_of_the_past_has_the_columns_of_then(api: Api, life: Life) -> None:
    column = f"capacity.gone_{life.named.replace('-', '_')}"
    life.go_on()
    for path, more in (("/v1/hosts", {}), ("/v1/capacity", {"by": "host"})):
        asked = {"group": life.named, "as_of": life.then, "limit": 2, **more}
        response = api.get(path, params=asked, headers=CSV)
        rest = api.get(response.headers["Link"].partition(">")[0].lstrip("<"), headers=CSV)
        rows = [row for text in (response.text, rest.text) for row in csv.DictReader(io.StringIO(text))]
        assert [row["name"] for row in rows] == [f"{life.named}-{n}" for n in range(3)]
        assert [row[column] for row in rows] == ["1", "1", "1"]
        assert [row["capacity.cpu"] for row in rows] == ["8", "9", "10"]


def test_a_cursor_of_now_goes_on_in_the_past_and_one_of_another_list_does_not(api: Api, life: Life) -> None:
    asked = {"group": life.named, "limit": 1}
    cursor = api.get("/v1/hosts", params={**asked, "min_position": life.then}).json()["next_cursor"]
    page = api.get("/v1/hosts", params={**asked, "as_of": life.then, "cursor": cursor}).json()
    assert [item["name"] for item in page["items"]] == [f"{life.named}-1"]
    for path, more in (("/v1/hosts", {"sort": "-name"}), ("/v1/racks", {}), ("/v1/capacity", {"by": "rack"})):
        response = api.get(path, params={"as_of": life.then, "cursor": cursor, **more})
        assert response.json()["errors"][0]["field"] == "query:cursor", path
    response = api.get("/v1/hosts", params={"as_of": life.then, "sort": "beauty"})
    assert response.json()["errors"][0]["field"] == "query:sort"


def test_whoever_is_confined_sees_no_more_of_the_past_than_of_today(api: Api, life: Life) -> None:
    token = api.token("viewer", tenant=life.named)
    assert api.get("/v1/racks", params={"as_of": life.then}, token=token).json()["items"] == []
    assert api.get("/v1/hosts", params={"as_of": life.then}, token=token).json()["items"] == []
    (group,) = api.get("/v1/groups", params={"as_of": life.then}, token=token).json()["items"]
    assert not {"capacity", "used", "available", "hosts"} & group.keys()
    refused = api.get("/v1/capacity", params={"as_of": life.then, "by": "group"}, token=token)
    assert refused.status_code == 403
    sums = api.get("/v1/groups", params={"as_of": life.then, "sort": "hosts"}, token=token)
    assert sums.json()["errors"][0]["field"] == "query:sort"
    # What had the name before belonged to somebody else.
    api.done("PUT", f"/v1/groups/{life.named}/quotas/{life.named}-other", {"limits": {"cpu": 5}})
    other = api.token("viewer", tenant=f"{life.named}-other")
    shown = api.get("/v1/vms", params={"as_of": life.then}, token=other).json()["items"]
    assert [item["name"] for item in shown] == [f"{life.named}-theirs"]


def test_revoked_tokens_are_listed_as_long_as_they_lived(api: Api, named: str) -> None:
    made = api.done("POST", "/v1/tokens", {"name": named, "role": "viewer"})
    revoked = api.done("DELETE", f"/v1/tokens/{named}")
    for answer, expected in ((made, [named]), (revoked, [])):
        page = api.get("/v1/tokens", params={"as_of": answer["position"], "q": named}).json()
        assert [item["name"] for item in page["items"]] == expected
