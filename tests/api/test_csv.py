"""Lists as tables: one header for all pages, bounded, and harmless in a spreadsheet if that is asked for."""

import asyncio
import csv
import io
import tracemalloc
from typing import Any

import msgspec
import pytest

from api.accept import prefers
from api.csv_rows import CLASSES_MAX, CsvReply, columns
from api.schemas import SCHEMAS
from tests.api.served import Api

CSV = {"Accept": "text/csv"}


@pytest.fixture
def fleet(api: Api, named: str) -> dict[str, Any]:
    """Three hosts, each with a class that the others lack; quotas and a VM that name others."""
    api.done("POST", "/v1/tenants", {"name": named})
    api.done("POST", "/v1/groups", {"name": named})
    for n in range(3):
        capacity = {"cpu": 8, f"class_{named}_{n}": n + 1}
        labels = {f"key-{m}": "a,b" for m in range(n)}
        api.done("POST", "/v1/hosts", {"name": f"{named}-{n}", "group": named, "capacity": capacity, "labels": labels})
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {f"limit_{named}": 1, "vms": 3}})
    return api.done("POST", "/v1/vms", {"tenant": named, "name": "web", "group": named, "resources": {"cpu": 4}})


def table(text: str) -> tuple[list[str], list[dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text))
    rows = list(reader)
    return list(reader.fieldnames or ()), rows


def pages(api: Api, path: str, **params: Any) -> list[str]:
    """The texts of all pages, each found by the link of the one before."""
    response = api.get(path, params=params, headers=CSV)
    texts = [response.text]
    while "Link" in response.headers:
        response = api.get(response.headers["Link"].partition(">")[0].lstrip("<"), headers=CSV)
        texts.append(response.text)
    return texts


def test_all_pages_have_one_header_whatever_their_rows_hold(api: Api, fleet: dict[str, Any], named: str) -> None:
    found = pages(api, "/v1/hosts", group=named, limit=1, min_position=fleet["position"])
    headers, rows = zip(*(table(text) for text in found), strict=True)
    assert len(headers) == 3
    assert all(header == headers[0] for header in headers)
    for n, (row,) in enumerate(rows):
        assert row["name"] == f"{named}-{n}"
        assert [row[f"capacity.class_{named}_{m}"] for m in range(3)] == [
            str(n + 1) if m == n else "" for m in range(3)
        ]
        assert msgspec.json.decode(row["labels"] or "{}") == {f"key-{m}": "a,b" for m in range(n)}
    empty = api.get("/v1/hosts", params={"group": f"{named}-none"}, headers=CSV).text
    assert table(empty) == (headers[0], [])


@pytest.mark.parametrize("path", ["/v1/groups", "/v1/hosts", "/v1/capacity"])
def test_a_class_that_comes_between_two_pages_changes_no_header_and_is_not_lost(
    api: Api, fleet: dict[str, Any], named: str, path: str
) -> None:
    api.done("POST", "/v1/groups", {"name": f"{named}-2"})
    last = api.done("POST", "/v1/hosts", {"name": f"{named}-a", "group": f"{named}-2", "capacity": {"cpu": 1}})
    asked = {"q": named, "limit": 1, "sort": "name", **({"by": "host"} if path == "/v1/capacity" else {})}
    page = api.shown(last, path, params=asked, headers=CSV)
    header, _ = table(page.text)
    late = {"cpu": 1, f"late_{named}": 7}
    last = api.done("POST", "/v1/hosts", {"name": f"{named}-z", "group": f"{named}-2", "capacity": late})
    api.shown(last, path, params=asked)
    rows = []
    while "Link" in page.headers:
        page = api.get(page.headers["Link"].partition(">")[0].lstrip("<"), headers=CSV)
        found, of_page = table(page.text)
        assert found == header
        rows += of_page
    assert msgspec.json.decode(rows[-1]["capacity.others"]) == {f"late_{named}": 7}
    assert f"capacity.late_{named}" in table(api.get(path, params=asked, headers=CSV).text)[0], "a new list has it"


@pytest.mark.parametrize(
    "classes", [",", "cpu,", "cpu,cpu", "CPU", "cpu memory_mib", "=1+1", ",".join(f"c{n}" for n in range(65))]
)
def test_classes_that_have_columns_are_checked(api: Api, classes: str) -> None:
    refused = api.get("/v1/groups", params={"classes": classes}, headers=CSV)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "query:classes")


def test_a_list_without_amounts_takes_no_classes(api: Api) -> None:
    assert api.get("/v1/events", params={"classes": "cpu"}, headers=CSV).status_code == 422
    assert api.get("/v1/tokens", params={"classes": "cpu"}, headers=CSV).status_code == 422


def test_classes_may_be_chosen_and_the_others_are_one_cell(api: Api, fleet: dict[str, Any], named: str) -> None:
    for chosen, own in (("cpu", ["cpu"]), ("", []), ("others,cpu", ["cpu"])):
        response = api.shown(fleet, "/v1/hosts", params={"group": named, "classes": chosen}, headers=CSV)
        header, rows = table(response.text)
        assert [name for name in header if name.startswith("capacity.")] == [
            f"capacity.{name}" for name in (*own, "others")
        ]
        assert msgspec.json.decode(rows[2]["capacity.others"])[f"class_{named}_2"] == 3


@pytest.mark.parametrize(
    "path", ["/v1/vms", "/v1/quotas", "/v1/groups", "/v1/capacity?by=group", "/v1/capacity?by=host"]
)
def test_a_class_that_the_platform_knows_has_a_column(api: Api, fleet: dict[str, Any], named: str, path: str) -> None:
    route, _, by = path.partition("?by=")
    asked = {"limit": 1, "by": by} if by else {"limit": 1}
    header, _ = table(api.shown(fleet, route, params=asked, headers=CSV).text)
    fields = {column.partition(".")[0] for column in header if "." in column}
    assert fields
    for field in fields & {"resources", "capacity", "used", "limits", "available"}:
        assert {f"{field}.class_{named}_0", f"{field}.limit_{named}"} <= set(header)
    with_counts = path in ("/v1/quotas", "/v1/capacity?by=group", "/v1/capacity?by=host")
    assert any(column.endswith(".vms") for column in header) == with_counts


def test_events_changes_and_the_audit_have_a_header_of_their_own(api: Api, fleet: dict[str, Any], named: str) -> None:
    for path, fields in (
        ("/v1/events", {"position", "topic", "data"}),
        ("/v1/audit", {"position", "command", "request", "problem"}),
        (f"/v1/history/host/{named}-0", {"position", "before", "after"}),
    ):
        first, second = (
            table(api.shown(fleet, path, params={"limit": limit}, headers=CSV).text) for limit in (1, 1_000)
        )
        assert first[0] == second[0]
        assert fields <= set(first[0])
        assert not any("." in column for column in first[0])


def test_a_scoped_token_learns_no_foreign_class(api: Api, fleet: dict[str, Any], named: str) -> None:
    mine = f"{named}-mine"
    api.done("POST", "/v1/tenants", {"name": mine})
    last = api.done("PUT", f"/v1/groups/{named}/quotas/{mine}", {"limits": {f"own_{named}": 1}})
    token = api.token("viewer", tenant=mine)
    header, rows = table(api.shown(last, "/v1/quotas", token=token, headers=CSV).text)
    assert [row[f"limits.own_{named}"] for row in rows] == ["1"]
    assert not any(f"limit_{named}" in column or f"class_{named}" in column for column in header)


def test_a_spreadsheet_gets_no_formula(api: Api, named: str) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "plain", "a=b"]
    for n, text in enumerate(texts):
        last = api.done("POST", "/v1/tenants", {"name": f"{named}-{n}", "description": text})
    asked = {"q": named, "sort": "name"}
    plain = api.shown(last, "/v1/tenants", params=asked, headers=CSV)
    assert [row["description"] for row in read(plain.content)] == texts
    excel = api.shown(last, "/v1/tenants", params={**asked, "excel": "true"}, headers=CSV)
    assert excel.content.startswith(b"\xef\xbb\xbf")
    assert not plain.content.startswith(b"\xef\xbb\xbf")
    assert [row["description"] for row in read(excel.content)] == [f"'{text}" for text in texts[:7]] + texts[7:]


def read(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_numbers_stay_numbers_in_a_spreadsheet() -> None:
    schema = {"properties": {"unpromised": {"additionalProperties": {"type": "integer"}}}}
    text = "".join(sent([{"unpromised": {"cpu": -4}}], columns(schema, {}, classes=["cpu"]), for_excel=True))
    assert text == "\ufeffunpromised.cpu,unpromised.others\r\n-4,\r\n"


async def sent_by(reply: CsvReply) -> list[str]:
    parts: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b"").decode())

    await reply.send(None, send)
    return parts


def sent(items: list[Any], of: Any, **more: Any) -> list[str]:
    return asyncio.run(sent_by(CsvReply(items, of, headers=(), is_head=False, **{"for_excel": False, **more})))


def test_columns_are_bounded_and_nothing_is_lost_with_them() -> None:
    classes = [f"class_{n:03}" for n in range(CLASSES_MAX + 10)]
    of = columns(SCHEMAS["Vm"], SCHEMAS, classes=classes)
    assert len(of) < CLASSES_MAX + 40
    text = "".join(sent([{"resources": dict.fromkeys(classes, 1)}], of))
    (row,) = csv.DictReader(io.StringIO(text))
    assert msgspec.json.decode(row["resources.others"]) == dict.fromkeys(classes[CLASSES_MAX:], 1)


def test_a_table_is_not_held_as_a_whole() -> None:
    labels = {f"key-{n}": "x" * 200 for n in range(64)}
    item = msgspec.Raw(msgspec.json.encode({"name": "web", "labels": labels, "resources": {"cpu": 1}}))
    of = columns(SCHEMAS["Vm"], SCHEMAS, classes=["cpu"])
    size = 0

    async def send(message: dict[str, Any]) -> None:
        nonlocal size
        size += len(message.get("body", b""))

    async def measured() -> int:
        tracemalloc.start()
        await CsvReply([item] * 1_000, of, headers=(), for_excel=False, is_head=False).send(None, send)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak = asyncio.run(measured())
    assert size < 2 * 1_000 * len(bytes(item)), "labels are one cell, not a column each"
    assert peak < size / 2


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/csv", "csv"),
        ("TEXT/CSV; header=present", "csv"),
        ("text/*", "csv"),
        ("text/csv, */*", "csv"),
        ("text/csv;q=0.9, application/json;q=0.1", "csv"),
        ("application/json;q=0, */*", "csv"),
        ("text/csv;q=0", "json"),
        ("text/csv;q=0, */*", "json"),
        ("text/csv;q=0.1, application/json", "json"),
        ("text/csv;q=0.5, */*;q=0.8", "json"),
        ("application/json, text/csv", "json"),
        ("*/*", "json"),
        ("text/html, application/xhtml+xml;q=0.9, */*;q=0.8", "json"),
        ("image/png", "json"),
        ("text/csvx", "json"),
        ("", "json"),
        ("text/csv;q=much", "csv"),
        ("text/csv;q=0.000", "json"),
    ],
)
def test_the_form_of_the_highest_quality_is_sent(accept: str, wanted: str) -> None:
    offered = (b"application/json", b"text/csv")
    assert prefers([(b"accept", accept.encode())], offered).endswith(wanted.encode())


def test_several_accept_headers_are_one_list() -> None:
    headers = [(b"accept", b"application/json;q=0.5"), (b"host", b"x"), (b"accept", b"text/csv")]
    assert prefers(headers, (b"application/json", b"text/csv")) == b"text/csv"


def test_every_list_is_negotiated(api: Api, fleet: dict[str, Any], named: str) -> None:
    kinds = ("tenants", "racks", "groups", "hosts", "vms", "quotas", "operations", "tokens", "events", "audit")
    for path in (*(f"/v1/{kind}" for kind in kinds), "/v1/capacity?by=group", f"/v1/history/tenant/{named}"):
        for accept, wanted in (("text/csv;q=0, */*", "application/json"), ("text/*", "text/csv")):
            response = api.get(path, headers={"Accept": accept})
            assert response.status_code == 200, path
            assert response.headers["Content-Type"].startswith(wanted), path
        head = api.call("HEAD", path, headers=CSV)
        assert (head.status_code, head.content) == (200, b"")
