"""The command itself, on a running platform."""

import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import terminal
from tests.cli.test_completion import values, variables
from tests.conftest import ROOT, Platform, eventually
from tests.platform.client import Client, Site, client_of

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def client(platform: Platform) -> Client:
    return client_of(platform)


@pytest.fixture(scope="module")
def site(client: Client) -> Site:
    return Site(client)


@pytest.fixture(scope="module")
def environment(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BERTH_", "XDG_"))}
    own = {
        "BERTH_URL": platform.url,
        "BERTH_TOKEN": platform.token,
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("c")),
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **own}


@pytest.fixture
def berth(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *arguments]
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment, **more}
        return subprocess.run(command, cwd=tmp_path, check=False, timeout=60, **settings)

    return run


def written(directory: Path, *documents: dict[str, Any]) -> str:
    """A file of these documents; JSON is YAML."""
    path = directory / "site.yaml"
    path.write_text("\n---\n".join(map(json.dumps, documents)) + "\n")
    return str(path)


def a_vm(site: Site, name: str, **more: Any) -> dict[str, Any]:
    return {"kind": "VM", "tenant": site.tenant, "name": name, "group": site.group, "resources": {"cpu": 1}, **more}


@pytest.mark.parametrize("verb", [("apply", "--dry-run"), ("diff",)])
def test_a_reference_to_nothing_is_told_before_anything_is_done(
    verb: tuple[str, ...], berth: Run, site: Site, tmp_path: Path
) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    file = written(
        tmp_path,
        {"kind": "Tenant", "name": name},
        {"kind": "Quota", "group": site.group, "tenant": name, "limits": {"cpu": 4}},
        {"kind": "Host", "name": f"h-{name}", "group": "nowhere", "capacity": {"cpu": 4}},
    )
    ended = berth(*verb, "-f", file)
    assert ended.returncode == 1, ended.stdout
    assert f"host h-{name} would be refused; nothing was written" in ended.stderr
    assert "nowhere" in ended.stderr
    assert berth("get", "tenant", name).returncode == 1


@pytest.mark.parametrize("verb", [("apply", "--dry-run"), ("diff",)])
def test_what_a_file_makes_may_be_referred_to_in_it(
    verb: tuple[str, ...], berth: Run, site: Site, tmp_path: Path
) -> None:
    name = f"t-{uuid.uuid4().hex[:8]}"
    vm = {**a_vm(site, "web-1"), "tenant": name, "group": f"g-{name}"}
    file = written(
        tmp_path,
        vm,
        {"kind": "Quota", "group": f"g-{name}", "tenant": name, "limits": {"cpu": 4}},
        {"kind": "Host", "name": f"h-{name}", "group": f"g-{name}", "capacity": {"cpu": 4}},
        {"kind": "Group", "name": f"g-{name}"},
        {"kind": "Tenant", "name": name},
    )
    ended = berth(*verb, "-f", file)
    assert ended.returncode == 0, ended.stderr
    assert berth("get", "tenant", name).returncode == 1
    written(tmp_path, vm | {"resources": {"cpu": 8}}, *map(json.loads, Path(file).read_text().split("\n---\n")[1:]))
    ended = berth(*verb, "-f", file)
    assert ended.returncode == 1
    assert "Quota exceeded" in ended.stderr or "quota_exceeded" in ended.stderr


@pytest.mark.parametrize("change", [{"where": {"host": None}}, {"strategy": "worst_fit"}, {"image": "other"}])
def test_a_file_does_not_change_silently_what_a_creation_decided(
    change: dict[str, Any], berth: Run, site: Site, tmp_path: Path
) -> None:
    vm = a_vm(site, f"fixed-{uuid.uuid4().hex[:6]}", where={"host": site.hosts[0]}, strategy="best_fit", image="one")
    assert berth("apply", "-f", written(tmp_path, vm)).returncode == 0
    again = berth("apply", "-f", written(tmp_path, vm))
    assert again.returncode == 0, again.stderr
    assert "1 unchanged" in again.stderr
    for flags in ((), ("--dry-run",)):
        changed = berth("apply", *flags, "-f", written(tmp_path, vm | change))
        assert changed.returncode == 1, changed.stdout
        assert f"field {next(iter(change))}: it is" in changed.stderr
        assert f"delete vm {site.tenant}/{vm['name']}" in changed.stderr


def test_setting_a_quota_keeps_what_people_wrote_on_it(berth: Run, client: Client, site: Site, tmp_path: Path) -> None:
    path = f"/v1/groups/{site.group}/quotas/{site.tenant}"
    words = {"display_name": "配額", "description": "until March", "labels": {"ticket": "7"}, "external_id": "q-1"}
    assert client.put(path, {"limits": {"cpu": 900}, **words}).status_code == 200
    assert berth("set", "quota", site.group, site.tenant, "--cpu", "800").returncode == 0
    now = client.get(path).json()
    assert now["limits"] == {"cpu": 800}
    assert {field: now[field] for field in words} == words
    file = written(tmp_path, {"kind": "Quota", "group": site.group, "tenant": site.tenant, "limits": {"cpu": 1000}})
    assert berth("apply", "-f", file).returncode == 0
    now = client.get(path).json()
    assert now["limits"] == {"cpu": 1000}
    assert {field: now[field] for field in words} == words


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (("get", "hosts", "--sort", "nme"), "display_name"),
        (("get", "hosts", "--state", "availabel"), "available"),
        (("get", "vms", "--state", "aktive"), "active"),
        (("get", "operations", "--state", "ended"), "succeeded"),
        (("wait", "vm", "a/b", "--for", "aktive"), "active"),
        (("audit", "--outcome", "refused"), "rejected"),
        (("get", "host", "h", "--as-of", "yesterday"), "a position, a time"),
        (("get", "hosts", "-l", "model"), "key=value"),
    ],
)
def test_an_unknown_state_sort_or_moment_is_wrong_use_and_lists_what_there_is(
    arguments: tuple[str, ...], listed: str, berth: Run
) -> None:
    ended = berth(*arguments)
    assert ended.returncode == 2, ended.stdout
    assert listed in ended.stderr


def test_lists_and_capacity_are_shown_as_they_were(berth: Run, client: Client) -> None:
    site = Site(client)
    moments = [client.post("/v1/vms", site.vm(name)).headers["Berth-Position"] for name in ("web-1", "web-2")]
    for count, moment in enumerate(moments, start=1):
        for form in ("name", "csv"):
            ended = berth("get", "vms", "--tenant", site.tenant, "--as-of", moment, "-o", form, "--no-headers")
            assert len(ended.stdout.splitlines()) == count, ended.stderr
        ended = berth("capacity", "--group", site.group, "--as-of", moment, "-o", "json")
        (row,) = json.loads(ended.stdout)
        assert row["used"]["cpu"] == count * site.vm("web-1")["resources"]["cpu"]


@pytest.mark.parametrize("form", ["table", "json", "yaml", "csv", "name"])
def test_a_full_disk_is_a_plain_error(form: str, berth: Run, site: Site) -> None:
    with open("/dev/full", "w") as full:
        ended = berth("get", "hosts", "-o", form, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr == "berth: cannot write the answer: No space left on device\n"


@pytest.mark.parametrize("arguments", [("get", "hosts", "-o", "json"), ("events", "--after", "0", "-f"), ("--help",)])
def test_a_closed_pipe_is_no_fault(arguments: tuple[str, ...], berth: Run, site: Site) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        ended = berth(*arguments, stdout=pipe)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_apply_goes_on_though_nobody_reads(berth: Run, client: Client, tmp_path: Path) -> None:
    names = [f"t-{uuid.uuid4().hex[:8]}" for _ in range(3)]
    file = written(tmp_path, *({"kind": "Tenant", "name": name} for name in names))
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        assert berth("apply", "-f", file, stdout=pipe).returncode == 0
    assert all(client.get(f"/v1/tenants/{name}").status_code == 200 for name in names)


def test_ctrl_c_is_how_one_ends_following(environment: dict[str, str], site: Site) -> None:
    command = [sys.executable, "-m", "cli", "events", "--after", "0", "-f"]
    following = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    assert following.stdout is not None
    following.stdout.readline()
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=30)
    assert (following.returncode, said) == (0, b"")


def test_a_new_vm_with_protection_is_made_and_protected(berth: Run, client: Client, site: Site, tmp_path: Path) -> None:
    vm = a_vm(site, f"kept-{uuid.uuid4().hex[:6]}", protected=True)
    name = f"{site.tenant}/{vm['name']}"
    for _ in range(2):
        ended = berth("apply", "--wait", "-f", written(tmp_path, vm))
        assert ended.returncode == 0, ended.stderr
    assert "1 unchanged" in ended.stderr
    assert client.get(f"/v1/vms/{name}").json()["protected"] is True
    refused = berth("delete", "vm", name)
    assert refused.returncode == 1
    assert f"`berth set vm {name} --no-protected` lifts it" in refused.stderr
    assert berth("set", "vm", name, "--no-protected").returncode == 0
    assert berth("delete", "vm", name, "--wait").returncode == 0


@pytest.mark.parametrize("kind", ["tenant", "rack", "group", "host"])
def test_creation_and_change_take_the_same_fields(kind: str, berth: Run, client: Client, tmp_path: Path) -> None:
    """What a file makes with all its fields, it changes with all its fields."""
    mark = uuid.uuid4().hex[:8]
    own = {"rack": {"region": f"r-{mark}", "dc": f"d-{mark}"}, "host": {"group": f"g-{mark}", "capacity": {"cpu": 4}}}
    client.made("/v1/groups", {"name": f"g-{mark}"})
    words = {
        "display_name": "名",
        "description": "x",
        "external_id": f"e-{mark}",
        "labels": {"a": "b"},
        "protected": True,
    }
    made = {"kind": kind, "name": f"n-{mark}", **own.get(kind, {}), **words}
    for file, outcome in ((made, "created"), (made, "unchanged"), (made | {"protected": False}, "updated")):
        ended = berth("apply", "-f", written(tmp_path, file))
        assert ended.returncode == 0, ended.stderr
        assert f"1 {outcome}" in ended.stderr
    assert client.get(f"/v1/{kind}s/n-{mark}").json()["protected"] is False


def test_a_protected_quota_stays_so_when_its_limits_are_set(berth: Run, client: Client, site: Site) -> None:
    path = f"/v1/groups/{site.group}/quotas/{site.tenant}"
    before = client.get(path).json()["limits"]
    assert berth("set", "quota", site.group, site.tenant, "--protected").returncode == 0
    assert client.get(path).json()["limits"] == before
    assert berth("set", "quota", site.group, site.tenant, "--cpu", "900").returncode == 0
    now = client.get(path).json()
    assert (now["protected"], now["limits"]) == (True, {"cpu": 900})
    assert berth("set", "quota", site.group, site.tenant, "--cpu", "1000", "--no-protected").returncode == 0
    assert client.get(path).json()["protected"] is False


def test_a_resize_names_what_changes_alone(berth: Run, client: Client, site: Site) -> None:
    name = f"{site.tenant}/sized-{uuid.uuid4().hex[:6]}"
    shape = ("--cpu", "1", "--memory", "512", "--storage", "1")
    assert berth("create", "vm", name, "--group", site.group, *shape[:4], "--wait").returncode == 0
    assert berth("resize", "vm", name, "--cpu", "2", "--wait").returncode == 0
    assert client.get(f"/v1/vms/{name}").json()["resources"] == {"cpu": 2, "memory_mib": 512}
    assert berth("resize", "vm", name, "--memory", "0", "--wait").returncode == 0
    assert client.get(f"/v1/vms/{name}").json()["resources"] == {"cpu": 2}


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_what_the_platform_wonders_at_is_told_and_done(
    flags: tuple[str, ...], berth: Run, client: Client, site: Site, tmp_path: Path
) -> None:
    limits = client.get(f"/v1/groups/{site.group}/quotas/{site.tenant}").json()["limits"]
    more = {**limits, "memory_mb": 10**9 + len(flags)}
    quota = {"kind": "Quota", "group": site.group, "tenant": site.tenant, "limits": more}
    words = [word for name, limit in more.items() for word in ("--limit", f"{name}={limit}")]
    for arguments in (
        ("apply", *flags, "-f", written(tmp_path, quota)),
        ("set", "quota", site.group, site.tenant, *words, *flags),
    ):
        ended = berth(*arguments)
        assert ended.returncode == 0, ended.stderr
        assert "berth: warning: " in ended.stderr
        assert "did you mean memory_mib?" in ended.stderr
        assert "warning" not in ended.stdout


def test_a_file_that_moves_a_host_and_sets_the_quota_that_follows_is_applied(
    berth: Run, client: Client, tmp_path: Path
) -> None:
    """The move changes the quota's use and so its version, between the look and the quota's turn."""
    busy = Site(client, hosts=1)
    other = f"o-{busy.group}"
    client.made("/v1/groups", {"name": other})
    assert client.put(f"/v1/groups/{other}/quotas/{busy.tenant}", {"limits": {"cpu": 8}}).status_code == 201
    assert client.post("/v1/vms", busy.vm(), Prefer="wait=10").status_code == 201
    host = {"kind": "Host", "name": busy.hosts[0], "group": other, "capacity": {"cpu": 16, "memory_mib": 65536}}
    quotas = [
        {"kind": "Quota", "group": group, "tenant": busy.tenant, "limits": {"cpu": 12}} for group in (busy.group, other)
    ]
    file = written(tmp_path, host, *quotas)
    for flags in (("--dry-run",), ()):
        ended = berth("apply", *flags, "-f", file)
        assert ended.returncode == 0, ended.stderr
        assert "3 updated" in ended.stderr
    assert client.get(f"/v1/groups/{other}/quotas/{busy.tenant}").json()["used"]["cpu"] == 1


def test_a_quota_is_set_while_its_tenant_is_busy(berth: Run, client: Client) -> None:
    busy = Site(client, hosts=4, cpu=500)
    ended = threading.Event()

    def provision() -> None:
        own, number = Client(str(client.http.base_url), client.http.headers["Authorization"].removeprefix("Bearer ")), 0
        while not ended.is_set():
            own.post("/v1/vms", busy.vm(f"vm-{number}"))
            number += 1

    crowd = threading.Thread(target=provision)
    crowd.start()
    try:
        for limit in ("900", "901", "902"):
            done = berth("set", "quota", busy.group, busy.tenant, "--cpu", limit)
            assert done.returncode == 0, done.stderr
    finally:
        ended.set()
        crowd.join()


@pytest.fixture
def screen(environment: dict[str, str], tmp_path: Path) -> Callable[..., list[str]]:
    """What a person sees of a call on a terminal of 80 columns."""

    def run(*arguments: str) -> list[str]:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        inherited = {name: value for name, value in environment.items() if name != "COLUMNS"}
        command = [sys.executable, "-m", "cli", *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, env=inherited, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait(30) == 0, shown.decode()
        return shown.decode().replace("\r\n", "\n").splitlines()

    return run


def test_everything_fits_a_terminal_of_80_columns(screen: Callable[..., list[str]], client: Client) -> None:
    site = Site(client)
    words = {"display_name": "台北一號機房 with a name that is longer than others", "description": "word " * 40}
    for host in site.hosts:
        assert client.http.patch(f"/v1/hosts/{host}", json=words).status_code == 200
    limits = {"cpu": 1000, "memory_mib": 8 * 2**20, "storage_gib": 40000, "gpu": 40, "vms": 1200}
    path = f"/v1/groups/{site.group}/quotas/{site.tenant}"
    assert client.put(path, {"limits": limits, **words}).status_code == 200
    vm = {**site.vm("a-web-server-of-its-own"), "image": "ubuntu-24.04", **words}
    assert client.post("/v1/vms", vm, Prefer="wait=10").status_code == 201
    name = f"{site.tenant}/{vm['name']}"
    calls = [
        ("get", kind, *more)
        for kind in ("hosts", "quotas", "vms", "groups", "tenants", "operations", "tokens")
        for more in ((), ("-o", "wide"))
    ]
    calls += [("audit",), ("audit", "-o", "wide"), ("events",), ("capacity",), ("history", "vm", name)]
    calls += [("describe", "vm", name), ("describe", "host", site.hosts[0]), ("explain", "vm", name), ("whoami",)]
    for call in calls:
        lines = screen(*call)
        assert len(lines) > 1, call
        assert [line for line in lines if terminal.width(line) > 80] == [], call
    hosts = screen("get", "hosts", "--group", site.group)
    assert hosts[0].split()[:3] == ["NAME", "DISPLAY", "NAME"] or "no room for: display name" in hosts[-1]
    assert site.hosts[0] in hosts[1]


def test_who_only_reads_may_look_at_a_difference(
    berth: Run, client: Client, environment: dict[str, str], tmp_path: Path
) -> None:
    name = f"v-{uuid.uuid4().hex[:8]}"
    secret = client.made("/v1/tokens", {"name": name, "role": "viewer"})["secret"]
    file = written(tmp_path, {"kind": "Tenant", "name": name})
    environment = {**environment, "BERTH_TOKEN": secret}
    shown = berth("diff", "-f", file, env=environment)
    assert (shown.returncode, shown.stdout) == (0, f"+ tenant {name}\n    name: {name}\n")
    assert "this token may not do that" in shown.stderr
    refused = berth("apply", "--dry-run", "-f", file, env=environment)
    assert refused.returncode == 1
    assert f"tenant {name} would be refused" in refused.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_offers_the_names_that_the_server_has(
    shell: str, berth: Run, site: Site, environment: dict[str, str], client: Client
) -> None:
    vm = site.vm(f"tab-{uuid.uuid4().hex[:6]}")
    assert client.post("/v1/vms", vm, Prefer="wait=10").status_code == 201
    assert berth("get", "hosts").returncode == 0  # what the server has is known now, as it is to whoever uses it

    def offered(words: str) -> list[str]:
        def ask() -> list[str]:
            return values(shell, berth(env={**environment, **variables(shell, words)}).stdout)

        return list(eventually(ask))  # on a machine that has much to do half a second may be over before the answer

    assert offered(f"berth delete host {site.hosts[0][:-1]}") == site.hosts
    assert offered(f"berth set quota {site.group}/") == [f"{site.group}/{site.tenant}"]
    assert offered(f"berth describe vm {site.tenant}/{vm['name'][:-1]}") == [f"{site.tenant}/{vm['name']}"]
    assert offered(f"berth create vm a/b --group {site.group}") == [site.group]
    assert offered(f"berth get hosts --group {site.group}") == [site.group]


def test_what_the_server_told_is_enough_for_a_quick_call(environment: dict[str, str], tmp_path: Path) -> None:
    """Parsers, tables of others and so on are imported by the verbs that need them."""
    command = [sys.executable, "-X", "importtime", "-m", "cli", "get", "hosts"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time")}
    assert {"click", "json"} <= imported
    assert not imported & {"yaml", "rich", "numpy", "pydantic", "msgspec", "hashlib", "tempfile", "asyncio", "fastapi"}


def test_fields_are_set_at_any_depth_and_taken_away(berth: Run, client: Client, site: Site) -> None:
    host, path = site.hosts[0], f"/v1/hosts/{site.hosts[0]}"
    ended = berth("set", "host", host, "--bmc.address", "10.0.0.9", "--labels.disk", "nvme", "--capacity.nvme", "4")
    assert ended.returncode == 0, ended.stderr
    now = client.get(path).json()
    assert (now["bmc"]["address"], now["labels"]["disk"], now["capacity"]["nvme"]) == ("10.0.0.9", "nvme", 4)
    ended = berth("set", "host", host, "--no-bmc", "--labels.disk", "null", "--capacity.nvme", "null")
    assert ended.returncode == 0, ended.stderr
    now = client.get(path).json()
    assert (now["bmc"], "disk" in now["labels"], "nvme" in now["capacity"]) == (None, False, False)


def test_what_one_reads_can_be_sent_back_as_a_file(berth: Run, client: Client, site: Site, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex[:6]
    made = {"name": f"r-{mark}", "region": f"re-{mark}", "dc": f"dc-{mark}", "units": 42, "labels": {"a": "b"}}
    (tmp_path / "rack.json").write_text(json.dumps(made))
    ended = berth("create", "rack", "-f", "rack.json", "--units", "40")
    assert ended.returncode == 0, ended.stderr
    now = client.get(f"/v1/racks/r-{mark}").json()
    assert {field: now[field] for field in made} == {**made, "units": 40}
