"""Holds every answer that a test of the API gets against the description of the API."""

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from api.app import ENDPOINTS
from api.openapi import describe

DESCRIPTION = describe(ENDPOINTS)


@cache
def _paths() -> list[tuple[re.Pattern[str], str]]:
    """Literal paths before those with fields, as routing has it."""
    found = []
    for path in sorted(DESCRIPTION["paths"], key=lambda path: path.count("{")):
        pattern = re.sub(r"{(\w+)}", lambda m: "(.+)" if m[1] == "name" else "([^/]+)", path)
        found.append((re.compile(pattern + r"\Z"), path))
    return found


@cache
def _validator(path: str, method: str, status: str, media_type: str) -> Any:
    told = DESCRIPTION["paths"][path][method]["responses"].get(status)
    assert told is not None, f"{method.upper()} {path} is not told to answer {status}"
    if "$ref" in told:
        told = DESCRIPTION["components"]["responses"][told["$ref"].rpartition("/")[2]]
    content = told.get("content", {})
    assert media_type in content, f"{method.upper()} {path} is not told to answer {status} as {media_type}"
    schema = {**content[media_type]["schema"], "components": DESCRIPTION["components"]}
    return jsonschema_rs.Draft202012Validator(schema)


def must_be_as_described(response: httpx.Response) -> None:
    """Raises AssertionError, with what differs."""
    method, path = response.request.method.lower(), response.url.path
    media_type = response.headers.get("content-type", "").partition(";")[0]
    template = next((template for pattern, template in _paths() if pattern.match(path)), None)
    if template is None or method not in DESCRIPTION["paths"][template] or media_type == "text/csv":
        return  # not one of ours: 404 and 405 have tests of their own
    if not media_type.endswith("json"):
        return
    validator = _validator(template, method, str(response.status_code), media_type)
    document = json.loads(response.content)
    errors = [f"{'/'.join(map(str, e.instance_path))}: {e.message[:300]}" for e in validator.iter_errors(document)]
    assert not errors, f"{method.upper()} {path} answered {response.status_code}, not as described: {errors[:3]}"
