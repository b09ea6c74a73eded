"""What a stranger sends is read in time that grows with its size, not faster; and is bounded before the work."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api import body, parameters, upload
from api.commanding import made_of
from api.connection import HEAD_BYTES_MAX, HEADERS_MAX
from api.request_headers import combined
from api.routes.batch import BATCH_ERRORS_MAX
from api.validation import ERRORS_MAX
from commands.operations import ReportOperation
from commands.vms import ProvisionVm
from domain.errors import DomainError
from messaging.reports import REPORT_BYTES_MAX, command_of
from projections import cursors
from tests.api.served import Api

JSON = {"Content-Type": "application/json"}
VM: dict[str, Any] = {"tenant": "acme", "name": "web-1", "group": "std", "resources": {"cpu": 4}}
PARAMETERS = {
    one.name: one for one in (parameters.LIMIT, parameters.CURSOR, parameters.SORT, parameters.SEARCH, parameters.LABEL)
}
REPORT = {"operation": "01a23088-7f58-75b5-a456-d7a827156d23", "step": "s", "attempt": 1, "outcome": "succeeded"}


def query(raw: bytes) -> Any:
    return parameters.query({"query_string": raw}, PARAMETERS)


def members(n: int, value: Any = 0) -> dict[str, Any]:
    return {f"f{i}": value for i in range(n)}


def a_body(**fields: Any) -> bytes:
    return json.dumps({**VM, **fields}).encode()


def parsed(raw: bytes) -> Any:
    return body.parse(raw, values_max=body.BATCH_VALUES_MAX)


def provisioned(document: dict[str, Any]) -> Any:
    return made_of(ProvisionVm, document, path={})


def cursor(text: str) -> Any:
    return cursors.decode(text, of="x")


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


HEAD = HEAD_BYTES_MAX // 2
REPORTED = REPORT_BYTES_MAX // 40
# name → (the size at which it is measured, what is sent of that size, who reads it)
PARSERS: dict[str, tuple[int, Callable[[int], Any], Callable[[Any], Any]]] = {
    "a member named twice at the end": (
        20_000,
        lambda n: b'{%s,"f0":0}' % json.dumps(members(n))[1:-1].encode(),
        parsed,
    ),
    "escapes": (200_000, lambda n: b'{"a":"%s"}' % (rb"\u00e9" * n), parsed),
    "escaped quotes": (200_000, lambda n: b'{"a":"%s"}' % (rb"\"," * n), parsed),
    "a long number": (1_000_000, lambda n: b'{"a":%s}' % (b"1" * n), parsed),
    "a long fraction": (1_000_000, lambda n: b'{"a":1.%s}' % (b"1" * n), parsed),
    "a long exponent": (1_000_000, lambda n: b'{"a":1e%s}' % (b"1" * n), parsed),
    "nested": (400_000, lambda n: b'{"a":%s}' % (b"[" * n + b"]" * n), parsed),
    "too many values": (400_000, lambda n: b'{"a":[%s0]}' % (b"0," * n), parsed),
    "too many texts": (400_000, lambda n: b'{"a":[%s0]}' % (b'",",' * n), parsed),
    "unknown fields": (20_000, lambda n: {**VM, **members(n)}, provisioned),
    "wrong labels": (8_000, lambda n: {**VM, "labels": members(n)}, provisioned),
    "wrong entries of a union": (50_000, lambda n: {**VM, "group": [0] * n}, provisioned),
    "wrong rules": (50_000, lambda n: {**VM, "rules": [{}] * n}, provisioned),
    "outputs of a report": (
        10_000,
        lambda n: {**REPORT, "outputs": members(n, "x")},
        lambda document: made_of(ReportOperation, document, path={}),
    ),
    "a report with unknown fields": (REPORTED, lambda n: json.dumps({**REPORT, **members(n)}).encode(), command_of),
    "a report's outputs": (REPORTED, lambda n: json.dumps({**REPORT, "outputs": members(n)}).encode(), command_of),
    "a nested report": (REPORTED, lambda n: b'{"outputs":%s}' % (b"[" * n + b"]" * n), command_of),
    "one long parameter": (HEAD, lambda n: b"a" * n + b"=1", query),
    "parameters": (HEAD, lambda n: b"a=1&" * (n // 4), query),
    "percent signs": (HEAD, lambda n: b"q=" + b"%" * n, query),
    "percent-encoded bytes": (HEAD, lambda n: b"q=" + b"%c3%a4" * (n // 6), query),
    "names of parameters": (HEAD, lambda n: b"a%73_of" + b"&%61=1" * (n // 6), parameters.names_in),
    "a long name of a parameter": (HEAD, lambda n: b"%61" * (n // 3), parameters.names_in),
    "a header in many lines": (
        HEADERS_MAX // 2,
        lambda n: [(b"accept", b"*/*")] * n,
        combined,
    ),
    "pluses": (HEAD, lambda n: b"+" * n, query),
    "a label": (HEAD, lambda n: b"label=" + b"%3D" * (n // 3), query),
    "a cursor of brackets": (HEAD, lambda n: encoded(b"[" * n), cursor),
    "a cursor of digits": (HEAD, lambda n: encoded(b"1" * n), cursor),
    "a moment": (HEAD, lambda n: "1" * n, parameters.moment),
    "a fraction of a second": (HEAD, lambda n: f"2026-11-24T15:00:00.{'1' * n}Z", parameters.moment),
    "Prefer": (HEAD, lambda n: b"a;" * (n // 2), parameters.wait_s),
    "Prefer's value": (HEAD, lambda n: b"wait=" + b"1" * n, parameters.wait_s),
    "Idempotency-Key": (HEAD, lambda n: b'"' * n, parameters.idempotency_key),
    "If-Match": (
        HEAD,
        lambda n: b'"%s"' % (b"1" * n),
        lambda raw: parameters.entity_version(raw, header="If-Match", any_version=-1),
    ),
    "Berth-Reason": (HEAD, lambda n: b"%" * n, parameters.reason),
    "Content-Type": (
        HEAD,
        lambda n: {b"content-type": b"application/json;" + b" " * n},
        body.must_be_json,
    ),
}


TRIES = 4


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_twice_as_long_takes_twice_as_long(name: str) -> None:
    size, make, read = PARSERS[name]
    # Measured where it takes long enough to be measured, and where a square would be seen: 4 times, or more. What
    # others do to the caches of the machine looks alike, but not each time.
    tries = ((made_and_timed(size, make, read), made_and_timed(2 * size, make, read)) for _ in range(TRIES))
    assert any(twice < 3 * once + 0.001 for once, twice in tries)


def made_and_timed(n: int, make: Callable[[int], Any], read: Callable[[Any], Any]) -> float:
    """Seconds of this thread's processor time, of the best of several: other work on the machine does not count."""
    given = make(n)
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        with contextlib.suppress(DomainError, ValueError):
            read(given)
        best = min(best, time.thread_time() - began)
    return best


def test_strangers_fields_are_counted_and_not_answered_each(api: Api) -> None:
    raw = json.dumps({**VM, **members(700_000)}).encode()[: upload.BATCH_BYTES_MAX]
    for path, sent in (("/v1/commands", raw), ("/v1/vms", raw[: upload.COMMAND_BYTES_MAX])):
        response = api.call("POST", path, content=sent, headers=JSON)
        assert (response.status_code, response.json()["code"]) == (422, "validation")
        assert len(response.content) < 1_000


def test_the_first_errors_are_told_and_the_first_few_get_a_suggestion(api: Api) -> None:
    wrong = {f"labels{n}": 0 for n in range(200)}
    for path, sent in (("/v1/vms", {**VM, **wrong}), ("/v1/commands", {**wrong, "commands": []})):
        errors = api.post(path, sent).json()["errors"]
        assert len([error for error in errors if "unknown" in error["message"]]) == ERRORS_MAX
        assert sum("did you mean" in error["message"] for error in errors) <= parameters.HINTS_MAX


def test_a_field_s_name_is_told_as_far_as_it_helps(api: Api) -> None:
    name = "x" * 500_000
    for wrong in ({name: 0}, {"labels": {name: 0}}, {"where": {name: 0}}):
        response = api.post("/v1/vms", {**VM, **wrong})
        assert response.status_code == 422
        assert len(response.content) < 2_000


def test_a_batch_in_which_all_is_wrong_has_a_short_answer(api: Api) -> None:
    item = {"command": "vm.provision", **members(100)}
    response = api.post("/v1/commands", {"commands": [item] * 1_000})
    results = response.json()["results"]
    assert (response.status_code, {result["status"] for result in results}) == (200, {422})
    told = [len(result["errors"]) for result in results]
    assert (told[0], told[-1]) == (ERRORS_MAX, 1)
    assert sum(told) < BATCH_ERRORS_MAX + 1_000
    hints = sum("did you mean" in error["message"] for result in results for error in result["errors"])
    assert hints <= parameters.HINTS_MAX


def test_what_is_nested_deeper_than_can_be_kept_is_malformed(api: Api) -> None:
    for depth in (body.NESTED_MAX + 1, 900, 10_000):
        nested = b'{"name": "a", "labels": %s}' % (b"[" * depth + b"]" * depth)
        for path in ("/v1/tenants", "/v1/commands"):
            response = api.call("POST", path, content=nested, headers={**JSON, "Idempotency-Key": "nested"})
            assert (response.status_code, response.json()["code"]) == (400, "malformed"), depth


def test_many_parameters_are_told_in_short(api: Api) -> None:
    response = api.get("/v1/vms?" + "&".join(f"limitx{n}=1" for n in range(190)))
    assert response.status_code == 422
    errors = response.json()["errors"]
    assert len(errors) == parameters.QUERY_ERRORS_MAX
    assert sum("did you mean" in error["message"] for error in errors) == parameters.HINTS_MAX


def test_others_are_answered_while_a_large_body_is_read(api: Api) -> None:
    # Nearly as many values as are allowed; nothing comes of it, so that reading it is all that it costs.
    one = {"command": "vm.provision", **VM, "labels": {f"key-{n}": "value" for n in range(64)}, "wrong": 1}
    large = json.dumps({"commands": [one] * 1_000}).encode()
    alone = min(timed(lambda: api.get("/healthz", token=None)) for _ in range(10))
    answered = 0
    with httpx.Client(base_url=api.url, timeout=60.0) as client:
        done = threading.Event()
        found: list[int] = []

        def send() -> None:
            headers = {**JSON, "Authorization": "Bearer test-admin-secret"}
            for _ in range(5):
                found.append(client.post("/v1/commands", content=large, headers=headers).status_code)
            done.set()

        thread = threading.Thread(target=send)
        began = time.monotonic()
        thread.start()
        while not done.is_set():
            assert api.get("/healthz", token=None).status_code == 200
            answered += 1
        took = time.monotonic() - began
        thread.join()
    assert found == [200] * 5
    # Were each body read in one go, there would be an answer or two for each of them.
    assert answered > 25, f"{answered} answers in {took:.2f} s, {alone * 1000:.1f} ms each when alone"


def timed(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
