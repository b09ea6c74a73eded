"""Commands over HTTP: what their answers carry, repeats, conditions, dry runs, waiting."""

from tests.api.served import Api


def test_a_created_tenant_is_answered_whole_and_shown_at_its_position(api: Api, named: str) -> None:
    response = api.post("/v1/tenants", {"name": named, "display_name": "研發部"})
    assert response.status_code == 201
    answer = response.json()
    assert response.headers["Location"] == f"/v1/tenants/{named}"
    assert response.headers["Berth-Position"] == str(answer["position"])
    assert response.headers["ETag"] == f'"{answer["resource"]["version"]}"'
    assert answer["replayed"] is False
    read = api.shown(answer, f"/v1/tenants/{named}")
    assert read.json() == answer["resource"]
    assert read.headers["ETag"] == response.headers["ETag"]
