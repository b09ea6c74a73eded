"""Whoever owns the data directory gets in, whatever became of the tokens; nobody else does by it."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.conftest import ROOT, endpoints_of, eventually, reachable_directory, stop_supervisor

Start = Callable[..., "subprocess.Popen[bytes]"]


def berth(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def status(url: str, secret: str) -> int:
    return httpx.get(f"{url}/v1/tokens", headers={"Authorization": f"Bearer {secret}"}).status_code


def greeting(data: Path, *, starts: int = 1) -> str:
    """What was printed when it was ready, after so many starts."""
    file = data.with_suffix(".log")
    eventually(lambda: file.read_text().count("Ctrl-C stops it.") == starts, within_s=10)
    return file.read_text().rpartition("Berth is ready")[2]


def test_the_owner_gets_in_again_and_it_is_recorded(supervisors: Start) -> None:
    data = reachable_directory("berth-way-back-") / "data"
    process = supervisors(data)
    url = endpoints_of(data, process)["http"]
    file = data / "admin.token"
    first = file.read_text().strip()
    assert f"BERTH_TOKEN=$(cat {file})" in greeting(data)
    file.unlink()

    reset = berth("token", "reset", "admin", "--data", str(data))
    assert reset.returncode == 0, reset.stderr
    second = file.read_text().strip()
    assert second not in reset.stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (status(url, first), status(url, second)) == (401, 200)
    as_admin = {"Authorization": f"Bearer {second}"}
    audit = httpx.get(f"{url}/v1/audit", params={"command": "token.install"}, headers=as_admin).json()["items"]
    assert [(entry["actor"], entry["outcome"]) for entry in audit] == [("berth", "accepted")] * 2
    for secret in (first, second):
        assert secret not in json.dumps(audit)

    # Taken away while nothing runs: what is announced is what works.
    stop_supervisor(process)
    file.unlink()
    process = supervisors(data)
    url = endpoints_of(data, process)["http"]
    assert not file.exists()
    greeted = greeting(data, starts=2)
    assert "token reset admin" in greeted
    assert "export" not in greeted, "there is nothing that could be exported"
    assert status(url, second) == 200, "a file that is gone takes nobody's access"
    stop_supervisor(process)
    reset = berth("token", "reset", "admin", "--data", str(data))
    assert (reset.returncode, "from the next start" in reset.stdout) == (0, True)
    url = endpoints_of(data, supervisors(data))["http"]
    assert (status(url, second), status(url, file.read_text().strip())) == (401, 200)
    as_admin = {"Authorization": f"Bearer {file.read_text().strip()}"}
    audit = httpx.get(f"{url}/v1/audit", params={"command": "token.install"}, headers=as_admin).json()["items"]
    assert len(audit) == 3, "the first, and two resets: no start"


def test_what_is_suggested_works_on_an_empty_site(supervisors: Start) -> None:
    data = reachable_directory("berth-suggested-") / "data"
    url = endpoints_of(data, supervisors(data))["http"]
    as_admin = {"Authorization": f"Bearer {(data / 'admin.token').read_text().strip()}"}
    assert httpx.get(f"{url}/v1/tenants", headers=as_admin).json()["items"] == [], "it is empty"
    found = re.search(r"curl -i \$BERTH_URL(\S+) .* -d '(.*)'", greeting(data))
    assert found is not None
    made = httpx.post(f"{url}{found[1]}", json=json.loads(found[2]), headers=as_admin)
    assert made.status_code == 201, made.text


def test_what_is_no_data_directory_gets_no_token(tmp_path: Path) -> None:
    refused = berth("token", "reset", "admin", "--data", str(tmp_path))
    assert refused.returncode == 1
    assert "no data directory of Berth" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_own_the_directory_gets_nothing() -> None:
    directory = reachable_directory("berth-not-yours-") / "data"
    (directory / "log").mkdir(parents=True)
    # Of root, as somebody else; of anybody else, a directory that is closed to them.
    os.chmod(directory, 0o711 if os.geteuid() == 0 else 0o500)
    # Imported before: that other user may not be able to read where Python is.
    load = "import os, sys, textwrap, cli.verbs.token, click._textwrap; from cli.main import main"
    code = f"{load}; os.geteuid() or os.setuid(65534); sys.argv[1:] = %r; main()"
    arguments = ["token", "reset", "admin", "--data", str(directory)]
    refused = subprocess.run(
        [sys.executable, "-c", code % (arguments,)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1, refused.stdout
    assert "belongs to another user" in refused.stderr
    assert not (directory / "admin.token").exists()
