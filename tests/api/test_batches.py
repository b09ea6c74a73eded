"""Several commands at once: each for itself, or all or none."""

from typing import Any

from tests.api.served import Api


def tenants(named: str, count: int) -> list[dict[str, Any]]:
    return [{"command": "tenant.create", "name": f"{named}-{n}"} for n in range(count)]


def test_a_bad_item_of_a_thousand_does_not_stop_the_others(api: Api, named: str) -> None:
    commands = tenants(named, 1_000)
    commands[500] = {"command": "tenant.create", "name": "Not A Name"}
    response = api.post("/v1/commands", {"commands": commands})
    assert response.status_code == 200
    answer = response.json()
    statuses = [result["status"] for result in answer["results"]]
    assert (statuses[500], statuses.count(201)) == (422, 999)
    assert answer["results"][500]["errors"][0]["field"] == "/name"
    assert answer["position"] == answer["results"][999]["position"]
    assert api.shown(answer, f"/v1/tenants/{named}-999").status_code == 200


def test_a_bad_item_of_an_atomic_batch_stops_it_before_it_is_decided(api: Api, named: str) -> None:
    before = api.get("/v1/events?limit=1").json()["position"]
    commands = [*tenants(named, 199), {"command": "tenant.create", "name": "Not A Name"}]
    response = api.post("/v1/commands", {"commands": commands, "atomic": True})
    assert (response.status_code, response.json()["index"]) == (422, 199)
    assert api.get("/v1/events?limit=1").json()["position"] == before


def test_a_refused_item_of_an_atomic_batch_undoes_it(api: Api, named: str) -> None:
    commands = [*tenants(named, 3), {"command": "tenant.create", "name": f"{named}-0"}]
    headers = {"Idempotency-Key": named}
    response = api.post("/v1/commands", {"commands": commands, "atomic": True}, headers=headers)
    problem = response.json()
    assert (response.status_code, problem["code"], problem["index"]) == (409, "already_exists", 3)
    assert api.get(f"/v1/tenants/{named}-0").status_code == 404
    again = api.post("/v1/commands", {"commands": commands, "atomic": True}, headers=headers)
    assert again.json() == problem
    assert again.headers["Berth-Replayed"] == "true"


def test_an_atomic_batch_is_done_as_one(api: Api, named: str) -> None:
    answer = api.done("POST", "/v1/commands", {"commands": tenants(named, 200), "atomic": True})
    events = api.get("/v1/events", params={"after": answer["position"] - 400, "limit": 1000}).json()["items"]
    assert len({event["at"] for event in events}) == 1


def test_an_item_may_name_what_an_earlier_one_makes(api: Api, named: str) -> None:
    commands = [
        {"command": "tenant.create", "name": named},
        {"command": "group.create", "name": named},
        {"command": "quota.set", "group": named, "tenant": named, "limits": {"cpu": 1}},
    ]
    results = api.done("POST", "/v1/commands", {"commands": commands})["results"]
    assert [result["status"] for result in results] == [201, 201, 201]


def test_the_key_of_an_item_is_the_batchs_and_its_index(api: Api, named: str) -> None:
    headers = {"Idempotency-Key": named}
    first = api.call("POST", "/v1/commands", {"commands": tenants(named, 2)}, headers=headers)
    again = api.call("POST", "/v1/commands", {"commands": tenants(named, 2)}, headers=headers)
    assert again.headers["Berth-Replayed"] == "true"
    assert [r["command"] for r in again.json()["results"]] == [r["command"] for r in first.json()["results"]]
    events = api.get("/v1/events", params={"stream": f"command/admin/{named}.1"}).json()["items"]
    assert events[0]["command"] == first.json()["results"][1]["command"]
    other = api.call("POST", "/v1/commands", {"commands": tenants(named, 3)}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    body = {"commands": tenants(named, 2), "atomic": True}
    otherwise = api.call("POST", "/v1/commands", body, headers=headers)
    assert (otherwise.status_code, otherwise.json()["code"]) == (422, "idempotency_mismatch")
    assert api.call("GET", f"/v1/tenants/{tenants(named, 3)[2]['name']}").status_code == 404


def test_a_key_of_an_item_that_was_used_alone_keeps_the_whole_batch_back(api: Api, named: str) -> None:
    api.post("/v1/tenants", {"name": f"{named}-alone"}, headers={"Idempotency-Key": f"{named}.1"})
    answer = api.post("/v1/commands", {"commands": tenants(named, 3)}, headers={"Idempotency-Key": named})
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert [api.get(f"/v1/tenants/{item['name']}").status_code for item in tenants(named, 3)] == [404] * 3


def test_a_thousand_hosts_may_come_as_one(api: Api, named: str) -> None:
    api.done("POST", "/v1/groups", {"name": named})
    hosts = [
        {"command": "host.register", "name": f"{named}-{n}", "group": named, "capacity": {"cpu": 4}}
        for n in range(1_000)
    ]
    assert api.post("/v1/commands", {"commands": hosts, "atomic": True}).status_code == 200


def test_limits_are_told(api: Api, named: str) -> None:
    for body, field in (
        ({"commands": []}, "/commands"),
        ({"commands": tenants(named, 1_001)}, "/commands"),
        ({"commands": tenants(named, 201), "atomic": True}, "/commands"),
        ({"commands": tenants(named, 1), "atomic": 1}, "/atomic"),
        ({"commands": tenants(named, 1), "wait": 1}, "/wait"),
        ({}, "/commands"),
    ):
        response = api.post("/v1/commands", body)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == field
    key = {"Idempotency-Key": "a" * 61}
    assert api.post("/v1/commands", {"commands": tenants(named, 1)}, headers=key).status_code == 422


def test_an_item_that_is_no_command_says_so(api: Api) -> None:
    commands: list[Any] = [
        1,
        {},
        {"command": "vm.provison"},
        {"command": "token.install"},
        {"command": "operation.expire"},
    ]
    results = api.post("/v1/commands", {"commands": commands}).json()["results"]
    assert [result["status"] for result in results] == [422] * 5
    assert "'vm.provision'" in results[2]["errors"][0]["message"]


def test_an_item_may_name_the_version_that_it_changes(api: Api, named: str) -> None:
    version = api.done("POST", "/v1/tenants", {"name": named})["resource"]["version"]
    update = {"command": "tenant.update", "tenant": named, "description": "x"}
    commands = [{**update, "if_match": version + 1}, {**update, "if_match": str(version)}]
    results = api.post("/v1/commands", {"commands": commands}).json()["results"]
    assert [result["status"] for result in results] == [412, 200]
