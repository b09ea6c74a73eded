"""A name used again is another's: who is confined to whoever bears it now sees nothing of who bore it before."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.api.served import Api
from tests.api.test_live import events_of

SECRET = "kestrel"  # stands in everything that the former owner did


class Again(msgspec.Struct, frozen=True):
    """`team` below `red`, with a quota and a VM that failed; gone; then `team` and all its names below `blue`."""

    prefix: str
    since: int
    within: int  # a position of the former life
    vm: dict[str, Any]  # the answer that made the former VM
    deletion: dict[str, Any]
    creation: dict[str, Any]
    tokens: dict[str, str]

    def name(self, what: str) -> str:
        return f"{self.prefix}-{what}"


def lived(api: Api, n: Any, *, parent: str, said: str) -> dict[str, Any]:
    reason = {"headers": {"Berth-Reason": said}}
    api.done("POST", "/v1/tenants", {"name": n("team"), "parent": n(parent), "description": said}, **reason)
    api.done("PUT", f"/v1/groups/{n('std')}/quotas/{n('team')}", {"limits": {"cpu": 7}, "description": said}, **reason)
    vm = {"tenant": n("team"), "name": "web", "group": n("std"), "resources": {"cpu": 1}, "description": said}
    return api.done("POST", "/v1/vms", vm, **reason)


def ended(api: Api, answer: dict[str, Any]) -> None:
    """What a controller would say of the operation's steps."""
    path = f"/v1/operations/{answer['operation']}"
    while (told := api.shown(answer, path).json())["state"] == "running":
        step = next(step for step in told["steps"] if step["state"] != "succeeded")
        for outcome in ("started", "succeeded"):
            body = {"step": step.get("id", step["name"]), "attempt": step["attempt"], "outcome": outcome}
            answer = api.done("POST", f"{path}/report", body)


@pytest.fixture(scope="module")
def again(api: Api) -> Again:
    prefix = "again"

    def n(what: str) -> str:
        return f"{prefix}-{what}"

    since = api.get("/v1/events?limit=1").json()["position"]
    for name in ("red", "blue"):
        api.done("POST", "/v1/tenants", {"name": n(name)})
    api.done("POST", "/v1/groups", {"name": n("std"), "description": "plain"})
    for host in (0, 1):
        body = {"name": n(f"h{host}"), "group": n("std"), "capacity": {"cpu": 8}}
        api.done("POST", "/v1/hosts", body)
    former = lived(api, n, parent="red", said=SECRET)
    ended(api, former)
    deleting = api.done("DELETE", f"/v1/vms/{n('team')}/web", headers={"Berth-Reason": SECRET})
    ended(api, deleting)
    # In one transaction and at one time: what is before the creation in it is the former one's.
    batch = api.done(
        "POST",
        "/v1/commands",
        {
            "atomic": True,
            "commands": [
                {"command": "tenant.update", "tenant": n("team"), "display_name": SECRET},
                {"command": "tenant.delete", "tenant": n("team")},
                {"command": "tenant.create", "name": n("team"), "parent": n("blue"), "description": "new"},
                {"command": "quota.set", "group": n("std"), "tenant": n("team"), "limits": {"cpu": 3}},
            ],
        },
    )
    _, deletion, creation, _ = batch["results"]
    body = {"tenant": n("team"), "name": "web", "group": n("std"), "resources": {"cpu": 1}}
    api.done("POST", "/v1/vms", body)
    # A word about the former one's operation, which outlived it.
    api.post(f"/v1/operations/{former['operation']}/cancel", {}, headers={"Berth-Reason": SECRET})
    roles = ("viewer", "operator", "auditor")
    tokens = {role: api.token(role, tenant=n("blue")) for role in roles}
    last = api.done("PATCH", f"/v1/tenants/{n('team')}", {"description": "now"})
    api.shown(last, "/v1/tenants")
    return Again(prefix, since, former["position"], former, deletion, creation, tokens)


@pytest.fixture(params=["viewer", "operator", "auditor"])
def token(request: pytest.FixtureRequest, again: Again) -> str:
    return again.tokens[request.param]


def test_the_former_one_stands_in_the_log(api: Api, again: Again) -> None:
    """Or else the other tests would find nothing that is hidden."""
    team = again.name("team")
    for path in (f"/v1/history/tenant/{team}", f"/v1/history/vm/{team}/web", "/v1/audit?limit=1000&q=" + SECRET):
        assert SECRET in api.get(path).text, path


def test_its_history_begins_with_itself(api: Api, again: Again, token: str) -> None:
    team = again.name("team")
    for path, first in (
        (f"tenant/{team}", "tenant.created"),
        (f"vm/{team}/web", "vm.scheduled"),
        (f"quota/{again.name('std')}/{team}", "quota.set"),
    ):
        response = api.get(f"/v1/history/{path}", token=token, params={"count": "true"})
        page = response.json()
        assert SECRET not in response.text, path
        assert (page["items"][0]["topic"], page["items"][0]["before"]) == (first, None)
        assert page["items"][0]["position"] > again.deletion["position"]
        assert page["count"] == len(page["items"])


def test_events_begin_with_itself(api: Api, again: Again, token: str) -> None:
    team = again.name("team")
    for sort in ("position", "-position"):
        asked = {"after": again.since, "limit": 1000, "sort": sort}
        response = api.get("/v1/events", token=token, params=asked)
        assert SECRET not in response.text
        items = response.json()["items"]
        assert [event["topic"] for event in items if event["stream"] == f"tenant/{team}"].count("tenant.created") == 1
        assert api.get("/v1/events", token=token, params={**asked, "count": "true"}).json()["count"] == len(items)
        assert api.get("/v1/events", token=token, params={**asked, "q": SECRET}).json()["items"] == []
    stream = api.get("/v1/events", token=token, params={"stream": f"operation/{again.vm['operation']}"}).json()
    assert stream["items"] == []


def live(api: Api, again: Again, token: str) -> Iterator[str]:
    for event in events_of(api, f"/v1/events/stream?after={again.since}", token=token):
        yield event["data"]
        if '"now"' in event["data"]:
            return


def test_the_live_stream_begins_with_itself(api: Api, again: Again, token: str) -> None:
    told = list(live(api, again, token))
    assert told
    assert not [data for data in told if SECRET in data]


def test_its_past_begins_with_itself(api: Api, again: Again, token: str) -> None:
    team, std = again.name("team"), again.name("std")
    operation = f"/v1/operations/{again.vm['operation']}"
    paths = (f"/v1/tenants/{team}", f"/v1/vms/{team}/web", f"/v1/groups/{std}/quotas/{team}", operation)
    for path in paths:
        params = {"as_of": again.within}
        assert api.get(path, params=params).status_code == 200, path
        assert api.get(path, token=token, params=params).status_code == 404, path
    assert api.get(operation, token=token).status_code == 404
    assert api.get(operation, token=token, params={"as_of": again.creation["position"]}).status_code == 404
    assert api.get(f"/v1/history/{operation.replace('/v1/operations', 'operation')}", token=token).status_code == 404
    listed = api.get("/v1/operations", token=token, params={"limit": 1000}).json()["items"]
    assert again.vm["operation"] not in [one["id"] for one in listed]
    for path in ("tenants", "quotas", "vms", "operations", "capacity"):
        params = {"as_of": again.within, "limit": 1000, **({"by": "tenant"} if path == "capacity" else {})}
        of_all, of_own = (api.get(f"/v1/{path}", params=params, **more) for more in ({}, {"token": token}))
        assert [team in response.text for response in (of_all, of_own)] == [True, False], path
        assert SECRET not in of_own.text, path
    now = api.get(f"/v1/tenants/{team}", token=token, params={"as_of": again.creation["position"]}).json()
    assert (now["description"], now["path"]) == ("new", [again.name("blue"), team])


def test_its_audit_begins_with_itself(api: Api, again: Again) -> None:
    token = again.tokens["auditor"]
    response = api.get("/v1/audit", token=token, params={"limit": 1000, "count": "true"})
    assert SECRET not in response.text
    page = response.json()
    assert page["count"] == len(page["items"])
    assert {"tenant.create", "quota.set", "vm.provision"} <= {entry["command"] for entry in page["items"]}
    assert api.get("/v1/audit", token=token, params={"q": SECRET, "count": "true"}).json()["count"] == 0


def test_receipts_of_the_former_one_are_not_there(api: Api, again: Again, token: str) -> None:
    for answer in (again.vm, again.deletion):
        assert api.get(f"/v1/commands/{answer['command']}").status_code == 200
        assert api.get(f"/v1/commands/{answer['command']}", token=token).status_code == 404
    assert api.get(f"/v1/commands/{again.creation['command']}", token=token).status_code == 200


def test_a_move_takes_the_past_along(api: Api, again: Again, named: str) -> None:
    """It is the same tenant still, with a new name above it."""
    for name in ("red", "blue", "team"):
        api.done(
            "POST", "/v1/tenants", {"name": f"{named}-{name}", "parent": f"{named}-red" if name == "team" else None}
        )
    auditor = api.token("auditor", tenant=f"{named}-blue")
    moved = api.done("POST", f"/v1/tenants/{named}-team/move", {"parent": f"{named}-blue"})
    page = api.shown(moved, f"/v1/history/tenant/{named}-team", token=auditor).json()
    assert [change["topic"] for change in page["items"]] == ["tenant.created", "tenant.moved"]
    assert page["items"][0]["after"]["parent"] is None, "whom it was below is another's"
    entries = api.get("/v1/audit", token=auditor, params={"resource": f"tenant/{named}-team"}).json()["items"]
    assert [entry["command"] for entry in entries] == ["tenant.create", "tenant.move"]


def test_a_group_of_the_same_name_is_another(api: Api, named: str) -> None:
    std, own = f"{named}-std", f"{named}-own"
    api.done("POST", "/v1/tenants", {"name": own})
    made = api.done("POST", "/v1/groups", {"name": std, "description": SECRET})
    api.done("DELETE", f"/v1/groups/{std}")
    api.done("POST", "/v1/groups", {"name": std, "description": "new"})
    granted = api.done("PUT", f"/v1/groups/{std}/quotas/{own}", {"limits": {}})
    viewer = api.token("viewer", tenant=own)
    history = api.shown(granted, f"/v1/history/group/{std}", token=viewer)
    assert [change["topic"] for change in history.json()["items"]] == ["group.created"]
    assert SECRET not in history.text
    path = f"/v1/groups/{std}"
    assert api.get(path, token=viewer, params={"as_of": made["position"]}).status_code == 404
    assert api.get(path, token=viewer, params={"as_of": granted["position"]}).json()["description"] == "new"
