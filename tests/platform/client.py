"""A client of a running platform, over HTTP as any other."""

import uuid
from typing import Any

import httpx

from tests.conftest import Platform


class Client:
    """Requests with the first admin's token. Answers are httpx's."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=40)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(path, params=query)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.http.put(path, json=body)

    def patch(self, path: str, body: Any) -> httpx.Response:
        return self.http.patch(path, json=body)

    def delete(self, path: str, **headers: str) -> httpx.Response:
        return self.http.delete(path, headers=headers)

    def end(self) -> int:
        """The log's end."""
        return int(self.get("/v1/events", sort="-position", limit=1).json()["items"][0]["position"])

    def made(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.post(path, body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())


class Site:
    """A tenant with quota in a group of its own with some hosts, under names that no other test has."""

    def __init__(self, client: Client, *, hosts: int = 2, cpu: int = 16, quota_cpu: int = 1000) -> None:
        mark = uuid.uuid4().hex[:8]
        self.client = client
        self.tenant, self.group = f"t-{mark}", f"g-{mark}"
        self.hosts = [f"h-{mark}-{n}" for n in range(hosts)]
        client.made("/v1/tenants", {"name": self.tenant})
        client.made("/v1/groups", {"name": self.group})
        for host in self.hosts:
            client.made("/v1/hosts", {"name": host, "group": self.group, "capacity": {"cpu": cpu, "memory_mib": 65536}})
        answer = client.put(f"/v1/groups/{self.group}/quotas/{self.tenant}", {"limits": {"cpu": quota_cpu}})
        assert answer.status_code == 201, answer.text

    def vm(self, name: str = "web-1", *, cpu: int = 1) -> dict[str, Any]:
        return {"tenant": self.tenant, "name": name, "group": self.group, "resources": {"cpu": cpu, "memory_mib": 512}}

    def accounts(self) -> list[dict[str, Any]]:
        """What host, group and quota have used and free, as shown."""
        self.client.get("/v1/capacity", by="group", min_position=self.client.end())
        paths = [f"/v1/hosts/{host}" for host in self.hosts]
        paths += [f"/v1/groups/{self.group}", f"/v1/groups/{self.group}/quotas/{self.tenant}"]
        documents = [self.client.get(path).json() for path in paths]
        return [{"used": document["used"], "available": document["available"]} for document in documents]


def client_of(platform: Platform) -> Client:
    return Client(platform.url, platform.token)
