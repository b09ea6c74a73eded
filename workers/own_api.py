"""Questions that the supervisor asks the API of its own platform, over HTTP."""

import http.client
import json
from collections.abc import Mapping


def answers(host: str, port: int, path: str) -> bool:
    """Does a GET without a token give 200?"""
    return _get(host, port, path, headers={})[0] == http.client.OK


def has_no_tenants(host: str, port: int, *, token: str) -> bool:
    status, body = _get(host, port, "/v1/tenants?limit=1", headers={"Authorization": f"Bearer {token}"})
    return status == http.client.OK and not json.loads(body)["items"]


def exists(host: str, port: int, path: str, *, token: str) -> bool:
    return _get(host, port, path, headers={"Authorization": f"Bearer {token}"})[0] == http.client.OK


def _get(host: str, port: int, path: str, *, headers: Mapping[str, str]) -> tuple[int | None, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()
