"""A kind is four places, and whatever is left out is named: shown in a copy of Berth with two kinds that it has not, a
dock, which is nobody's, and a slip of a dock, which is a tenant's own."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, endpoints_of, reachable_directory, start_supervisor, stop_supervisor
from tests.platform.client import Client

HERE = Path(__file__).parent
FILES = ("domain/dock.py", "commands/docks.py", "projections/kinds/docks.py")
ALL_FILES = (*FILES, "domain/slip.py", "commands/slips.py", "projections/kinds/slips.py")
LINE = "domain/kinds.py"
WORDS = {"display_name": "Nord 1", "labels": {"side": "north"}}


def copied(directory: Path, *, without: str = "") -> Path:
    """The product with the new kinds in it, but for one of their places."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    no_caches = shutil.ignore_patterns("__pycache__")
    for package in (*(pattern.removesuffix("*") for pattern in packages), "examples"):
        shutil.copytree(ROOT / package, directory / package, ignore=no_caches)
    for file in ALL_FILES:
        if file != without:
            shutil.copy(HERE / file, directory / file)
    if without != LINE:
        kinds = (directory / LINE).read_text()
        (directory / LINE).write_text(with_the_line(kinds))
    return directory


def with_the_line(kinds: str) -> str:
    """As a person would write it: the module among the others, and a line in the list, for each kind."""
    begin, end = "from domain import ", "    token.KIND,\n"
    assert kinds.count(begin) == kinds.count(end) == 1
    return kinds.replace(begin, f"{begin}dock, slip, ").replace(end, f"{end}    dock.KIND,\n    slip.KIND,\n")


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def place() -> Iterator[Path]:
    directory = reachable_directory("berth-new-kind-")
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("missing", FILES)
def test_a_file_that_is_missing_is_named(place: Path, missing: str) -> None:
    started = run(copied(place, without=missing), "-c", "import api.app")
    assert started.returncode != 0
    told = started.stderr.strip().splitlines()[-1]
    if missing == "domain/dock.py":
        assert "cannot import name 'dock' from 'domain'" in told  # Python's own words
    else:
        assert f"write {missing}" in told


def test_a_line_that_is_missing_is_named(place: Path) -> None:
    """Nothing else fails then: the kind is not there. So a test looks for it, here run on the copy."""
    directory = copied(place, without=LINE)
    shutil.copytree(ROOT / "tests", directory / "tests", ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    test = "tests/domain/test_kinds.py::test_every_declared_kind_is_in_the_list"
    ended = run(directory, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "domain/kinds.py lacks a line for ['domain.dock', 'domain.slip']" in ended.stdout


class Platform(Client):
    """The copy, running: over HTTP, and by the command line, which is not the copy's: it knows no kind by itself."""

    def __init__(self, url: str, token: str, home: Path) -> None:
        super().__init__(url, token)
        self._variables = {"BERTH_URL": url, "BERTH_TOKEN": token, "HOME": str(home), "NO_COLOR": "1"}
        self._variables |= {f"XDG_{name}_HOME": str(home) for name in ("CACHE", "CONFIG", "DATA", "STATE")}

    def berth(self, *arguments: str, code: int = 0) -> str:
        ended = run(ROOT, "-m", "cli.main", *arguments, **self._variables)
        assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
        return ended.stdout + ended.stderr

    def confined_to(self, tenant: str, *, role: str = "operator") -> Client:
        """A client with a token of its own."""
        name = f"{tenant}-{role}"
        secret = self.made("/v1/tokens", {"name": name, "role": role, "tenant": tenant})["secret"]
        return Client(str(self.http.base_url), secret)

    def shown(self, path: str, **query: Any) -> dict[str, Any]:
        answer = self.get(path, min_position=self.end(), **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    directory = reachable_directory("berth-new-kind-")
    copied(directory)
    data = directory / "data"
    process = start_supervisor(data, code=directory)
    try:
        endpoints = endpoints_of(data, process)
        found = Platform(endpoints["http"], Path(endpoints["token_file"]).read_text().strip(), directory)
        found.made("/v1/racks", {"name": "north-1", "region": "north", "dc": "n1"})
        found.made("/v1/racks", {"name": "south-1", "region": "north", "dc": "n1"})
        yield found
    finally:
        stop_supervisor(process)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def dock(platform: Platform, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes docks under names that no other test has."""
    mark = request.node.name.removeprefix("test_")[:40].replace("_", "-").strip("-")

    def make(number: int = 1, **fields: Any) -> str:
        name = f"{mark}-{number}"
        platform.made("/v1/docks", {"name": name, "rack": "north-1", **fields})
        return name

    return make


def test_it_is_made_and_read(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock(bays=3, **WORDS)
    shown = platform.shown(f"/v1/docks/{name}")
    assert (shown["rack"], shown["bays"], shown["state"], shown["display_name"]) == ("north-1", 3, "open", "Nord 1")
    again = platform.post("/v1/docks", {"name": name, "rack": "north-1"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")
    nowhere = platform.post("/v1/docks", {"name": "x", "rack": "nrth-1"})
    assert (nowhere.status_code, nowhere.json()["did_you_mean"]) == (404, "north-1")
    assert (
        platform.post("/v1/docks", {"name": "x", "rack": "north-1", "bays": 99}).json()["errors"][0]["field"] == "/bays"
    )


def test_its_list_is_filtered_and_sorted(platform: Platform, dock: Callable[..., str]) -> None:
    one, two, three = dock(1, bays=7), dock(2, bays=9), dock(3, bays=8)
    dock(4, bays=1)
    platform.made("/v1/docks", {"name": "elsewhere", "rack": "south-1", "bays": 8})
    found = platform.shown("/v1/docks", rack="north-1", q="its-list", sort="-bays", limit=3)
    assert [item["name"] for item in found["items"]] == [two, three, one]
    rest = platform.shown("/v1/docks", rack="north-1", q="its-list", sort="-bays", cursor=found["next_cursor"])
    assert [item["bays"] for item in rest["items"]] == [1]
    assert {item["name"] for item in platform.shown("/v1/docks", bays=8)["items"]} == {three, "elsewhere"}
    assert platform.get("/v1/docks", colour="red").status_code == 422
    assert platform.get("/v1/docks", sort="colour").status_code == 422


def test_it_is_changed_and_has_a_past(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock(bays=2)
    before = platform.end()
    path = f"/v1/docks/{name}"
    changed = platform.patch(path, {"bays": 5, "labels": {"side": "south"}})
    assert (changed.status_code, changed.json()["resource"]["bays"]) == (200, 5)
    assert platform.post(f"{path}/seal", {}).json()["resource"]["state"] == "sealed"
    refused = platform.post(f"{path}/seal", {}).json()
    assert (refused["code"], refused["allowed"]) == ("invalid_state", ["open"])
    assert platform.shown(path)["state"] == "sealed"
    assert platform.get(path, as_of=before).json()["bays"] == 2
    history = platform.shown(f"/v1/history/dock/{name}")["items"]
    assert [change["topic"] for change in history] == ["dock.created", "dock.updated", "dock.sealed"]
    assert (history[1]["before"]["bays"], history[1]["after"]["bays"]) == (2, 5)
    entries = platform.shown("/v1/audit", resource=f"dock/{name}")["items"]
    assert [entry["command"] for entry in entries] == ["dock.create", "dock.update", "dock.seal", "dock.seal"]
    assert [entry["outcome"] for entry in entries] == ["accepted", "accepted", "accepted", "rejected"]
    events = platform.shown("/v1/events", stream=f"dock/{name}")["items"]
    assert events[1]["data"]["bays"] == 5


def test_lists_of_the_past_have_it(platform: Platform, dock: Callable[..., str]) -> None:
    one, two = dock(1, bays=11), dock(2, bays=12)
    before = platform.end()
    platform.patch(f"/v1/docks/{one}", {"bays": 13})
    platform.delete(f"/v1/docks/{two}")
    was = platform.get("/v1/docks", as_of=before, q="lists-of-the-past", sort="bays").json()["items"]
    assert [(item["name"], item["bays"]) for item in was] == [(one, 11), (two, 12)]
    now = platform.shown("/v1/docks", q="lists-of-the-past")["items"]
    assert [(item["name"], item["bays"]) for item in now] == [(one, 13)]


def test_what_it_refers_to_is_in_use(platform: Platform, dock: Callable[..., str]) -> None:
    platform.made("/v1/racks", {"name": "r9", "region": "north", "dc": "n1"})
    name = dock(rack="r9")
    refused = platform.delete("/v1/racks/r9").json()
    assert (refused["code"], refused["used_by"]) == ("in_use", [f"dock/{name}"])
    assert platform.delete(f"/v1/docks/{name}").status_code == 200
    assert platform.delete("/v1/racks/r9").status_code == 200
    assert platform.get(f"/v1/docks/{name}", min_position=platform.end()).status_code == 404


def test_a_batch_takes_its_commands(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock()
    items = [{"command": "dock.update", "dock": name, "bays": 4}, {"command": "dock.delete", "dock": name}]
    results = platform.post("/v1/commands", {"commands": items, "atomic": True}).json()["results"]
    assert [(one["status"], one["resource"]["state"]) for one in results] == [(200, "open"), (200, "deleted")]


def test_whoever_is_confined_to_a_tenant_sees_no_dock(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock()
    platform.made("/v1/tenants", {"name": "outside"})
    confined = platform.confined_to("outside")
    at = platform.end()
    assert confined.get(f"/v1/docks/{name}", min_position=at).status_code == 404
    assert confined.get(f"/v1/docks/{name}", as_of=at).status_code == 404
    assert confined.get("/v1/docks").json()["items"] == []
    assert confined.get("/v1/docks", as_of=at).json()["items"] == []
    assert confined.delete(f"/v1/docks/{name}").status_code == 404
    assert confined.get(f"/v1/history/dock/{name}").status_code == 404


def test_what_is_a_tenants_own_is_made_and_seen_within_its_scope(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock()
    for tenant, parent in (("harbour", None), ("harbour-a", "harbour"), ("other", None)):
        platform.made("/v1/tenants", {"name": tenant, "parent": parent})
    confined = platform.confined_to("harbour")
    confined.made("/v1/slips", {"tenant": "harbour-a", "name": "s1", "dock": name, "hours": 4, **WORDS})
    platform.made("/v1/slips", {"tenant": "other", "name": "s1", "dock": name})
    before = platform.end()

    refused = confined.post("/v1/slips", {"tenant": "other", "name": "s2", "dock": name}).json()
    assert (refused["code"], refused["kind"], refused["name"]) == ("not_found", "tenant", "other")
    assert confined.patch("/v1/slips/other/s1", {"hours": 2}).status_code == 404
    changed = confined.patch("/v1/slips/harbour-a/s1", {"hours": 6})
    assert (changed.status_code, changed.json()["resource"]["owner"]) == (200, "harbour-a")
    items = {"commands": [{"command": "slip.update", "tenant": "harbour-a", "slip": "s1", "hours": 7}]}
    assert confined.post("/v1/commands", items).json()["results"][0]["resource"]["hours"] == 7

    at = platform.end()
    assert confined.get("/v1/slips/harbour-a/s1", min_position=at).json()["hours"] == 7
    assert confined.get("/v1/slips/harbour-a/s1", as_of=before).json()["hours"] == 4
    assert confined.get("/v1/slips/other/s1").status_code == 404
    assert confined.get("/v1/slips/other/s1", as_of=before).status_code == 404
    for query in ({}, {"as_of": at}, {"subtree": "harbour"}, {"tenant": "harbour-a"}, {"owner": "harbour-a"}):
        found = confined.get("/v1/slips", **query).json()["items"]
        assert [(one["tenant"], one["name"]) for one in found] == [("harbour-a", "s1")], query
    assert confined.get("/v1/slips", tenant="other").json()["items"] == []
    assert {one["tenant"] for one in platform.shown("/v1/slips")["items"]} == {"harbour-a", "other"}
    history = confined.get("/v1/history/slip/harbour-a/s1").json()["items"]
    assert [change["after"]["hours"] for change in history] == [4, 6, 7]
    assert confined.get("/v1/history/slip/other/s1").status_code == 404
    events = confined.get("/v1/events", limit=1000).json()["items"]
    of_slips = [(event["stream"], event["topic"]) for event in events if event["topic"].startswith("slip.")]
    assert of_slips == [("slip/harbour-a/s1", topic) for topic in ("slip.reserved", "slip.changed", "slip.changed")]
    entries = platform.confined_to("harbour", role="auditor").get("/v1/audit").json()["items"]
    mine = [entry["outcome"] for entry in entries if entry["resource"] == "slip/harbour-a/s1"]
    assert mine == ["accepted", "accepted", "accepted"]
    assert not [entry for entry in entries if entry["resource"] == "slip/other/s1"]

    in_its_way = platform.delete("/v1/tenants/harbour-a").json()
    assert (in_its_way["code"], in_its_way["used_by"]) == ("in_use", ["slip/harbour-a/s1"])
    assert confined.delete("/v1/slips/harbour-a/s1").json()["resource"]["state"] == "released"
    assert platform.delete("/v1/tenants/harbour-a").status_code == 200


def test_a_reference_that_changes_is_followed(platform: Platform, dock: Callable[..., str]) -> None:
    one, two = dock(1), dock(2)
    platform.made("/v1/tenants", {"name": "mover"})
    platform.made("/v1/slips", {"tenant": "mover", "name": "s1", "dock": one})
    assert platform.delete(f"/v1/docks/{one}").json()["used_by"] == ["slip/mover/s1"]
    assert platform.patch("/v1/slips/mover/s1", {"dock": two}).status_code == 200
    assert platform.delete(f"/v1/docks/{one}").status_code == 200
    assert platform.delete(f"/v1/docks/{two}").json()["used_by"] == ["slip/mover/s1"]


def test_the_command_line_names_it_with_its_tenant(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock()
    platform.made("/v1/tenants", {"name": "liner"})
    platform.berth("create", "slip", "liner/s1", "--dock", name, "--hours", "9")
    assert json.loads(platform.berth("get", "slip", "liner/s1", "-o", "json"))["hours"] == 9
    assert platform.berth("get", "slips", "--tenant", "liner", "-o", "name").split() == ["liner/s1"]
    platform.berth("set", "slip", "liner/s1", "--hours", "8")
    assert "8" in platform.berth("describe", "slip", "liner/s1")
    assert "slip.changed" in platform.berth("history", "slip", "liner/s1")
    platform.berth("delete", "slip", "liner/s1")


def test_its_table_has_all_of_it(platform: Platform, dock: Callable[..., str]) -> None:
    name = dock(bays=6, **WORDS)
    query = {"q": name, "min_position": platform.end()}
    text = platform.http.get("/v1/docks", params=query, headers={"Accept": "text/csv"}).text
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["name"], row["bays"], row["rack"], row["labels"]) == (name, "6", "north-1", '{"side":"north"}')


def test_it_is_described(platform: Platform) -> None:
    described = platform.get("/openapi.json").json()
    assert described["paths"]["/v1/docks/{dock}/seal"]["post"]["operationId"] == "seal_dock"
    assert described["components"]["schemas"]["Dock"]["properties"]["bays"] == {"type": "integer"}
    assert described["components"]["schemas"]["DockState"]["enum"] == ["open", "sealed", "deleted"]
    kinds = [kind["name"] for kind in platform.get("/v1/kinds").json()["kinds"]]
    assert kinds.index("dock") > kinds.index("rack")


def test_the_command_line_has_it(platform: Platform, tmp_path: Path) -> None:
    berth = platform.berth
    berth("create", "dock", "cli-1", "--rack", "south-1", "--bays", "14", "--label", "side=east")
    berth("create", "dock", "cli-2", "--rack", "south-1", "--bays", "16")
    names = berth("get", "docks", "--rack", "south-1", "--label", "side=east", "-o", "name")
    assert [line.rpartition("/")[2] for line in names.split()] == ["cli-1"]
    table = berth("get", "docks", "--rack", "south-1", "--sort=-bays")
    assert table.index("cli-2") < table.index("cli-1")
    assert "bays" in table.lower()
    berth("set", "dock", "cli-1", "--bays", "15")
    assert "15" in berth("describe", "dock", "cli-1")
    berth("seal", "dock", "cli-1")
    assert json.loads(berth("get", "dock", "cli-1", "-o", "json"))["state"] == "sealed"
    assert "dock.sealed" in berth("history", "dock", "cli-1")
    (row,) = csv.DictReader(io.StringIO(berth("get", "docks", "--label", "side=east", "-o", "csv")))
    assert row["bays"] == "15"
    assert "--bays" in berth("create", "dock", "--help")
    assert "dock.seal" in berth("audit", "--resource", "dock/cli-1")
    before = platform.end()
    berth("delete", "dock", "cli-1")
    berth("describe", "dock", "cli-1", code=1)
    assert "cli-1" in berth("get", "docks", "--as-of", str(before))
    assert "cli-1" not in berth("get", "docks")


def test_a_site_file_has_it(platform: Platform, tmp_path: Path) -> None:
    """Whatever stands first in it, the rack is made before what refers to it."""
    documents: list[dict[str, Any]] = [
        {"kind": "dock", "name": "site-1", "rack": "site-r", "bays": 2},
        {"kind": "rack", "name": "site-r", "region": "north", "dc": "n1"},
    ]
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump_all(documents))
    platform.berth("diff", "--exit-code", "-f", str(file), code=1)
    platform.berth("apply", "-f", str(file))
    assert platform.shown("/v1/docks/site-1")["bays"] == 2
    documents[0]["bays"] = 3
    file.write_text(yaml.safe_dump_all(documents))
    platform.berth("apply", "-f", str(file))
    assert platform.shown("/v1/docks/site-1")["bays"] == 3
    platform.berth("diff", "--exit-code", "-f", str(file))


def test_all_of_it_is_verified_at_the_end(platform: Platform, dock: Callable[..., str]) -> None:
    """And every part of the platform is well with events that it had never seen."""
    dock()
    told = platform.post("/v1/verify", {}).json()
    assert (told["violations"], told["differences"]) == ([], [])
    assert told["events"] == told["position"]
    platform.berth("verify")
    ready = platform.get("/readyz")
    assert ready.status_code == 200, ready.text
