"""The supervisor, for real: restarts whatever is killed, leaves nothing behind, says what is in its way."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from tests.conftest import ROOT, Platform, endpoints_of
from workers import child, own_api, restarted
from workers.settings import SettingRefused, Settings

Start = Callable[..., "subprocess.Popen[bytes]"]
Eventually = Callable[..., Any]


def run_supervisor(**variables: str) -> "subprocess.CompletedProcess[str]":
    """Run one that is expected to give up at once."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    return subprocess.run(
        [sys.executable, "-m", "workers", "supervisor"],
        env={**inherited, "BERTH_PORT": "0", "BERTH_SAMPLE": "0", **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def kill(pid: int, eventually: Eventually) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: child.identity(pid) is None)


def children_of(endpoints: dict[str, Any]) -> dict[str, child.Identity]:
    """The processes of a platform, the supervisor aside, PostgreSQL's own among them."""
    identities = {name: child.identity(pid) for name, pid in endpoints["pids"].items() if name != "supervisor"}
    assert None not in identities.values()
    return {name: who for name, who in identities.items() if who is not None}


def test_every_process_comes_back_whatever_killed_it(data: Path, supervisors: Start, eventually: Eventually) -> None:
    process = supervisors(data)
    endpoints = endpoints_of(data, process)
    assert set(endpoints["pids"]) >= {
        "supervisor",
        "postgres",
        "nats",
        "engine",
        "api",
        "projector",
        "relay",
        "dispatcher",
        "past",
    }
    assert endpoints["pids"]["supervisor"] == process.pid
    for name in ("postgres", "nats", "engine", "api", "projector", "relay", "dispatcher", "controller", "past"):
        before = endpoints_of(data, process)
        kill(before["pids"][name], eventually)

        def is_back(name: str = name, before: dict[str, Any] = before) -> bool:
            pid = json.loads((data / "endpoints.json").read_text())["pids"].get(name)
            return pid not in (None, before["pids"][name]) and child.identity(pid) is not None

        eventually(is_back, within_s=5)
    after = endpoints_of(data, process)
    addresses = ("http", "postgres", "nats", "nats_credentials", "token_file")
    assert {key: after[key] for key in addresses} == {key: endpoints[key] for key in addresses}

    def answers() -> bool:
        return own_api.answers("127.0.0.1", int(after["http"].rpartition(":")[2]), "/readyz")

    eventually(answers)
    with psycopg.connect(after["postgres"]) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("berth_service",)


def test_a_stopped_platform_leaves_no_process_and_no_endpoints(data: Path, supervisors: Start) -> None:
    process = supervisors(data)
    endpoints = endpoints_of(data, process)
    left = children_of(endpoints)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    assert not any(child.is_running(who) for who in left.values())
    assert not (data / "endpoints.json").exists()


def test_a_killed_supervisor_takes_its_children_along_and_the_next_one_starts(
    data: Path, supervisors: Start, eventually: Eventually
) -> None:
    process = supervisors(data)
    left = children_of(endpoints_of(data, process))
    process.kill()
    process.wait()
    again = supervisors(data)
    eventually(lambda: not any(child.is_running(who) for who in left.values()))
    eventually(
        lambda: json.loads(_text(data / "endpoints.json") or "{}").get("pids", {}).get("supervisor") == again.pid
    )


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def test_a_data_directory_may_have_any_letters_and_its_lock_is_its_owners(data: Path, supervisors: Start) -> None:
    directory = data.with_name("資料 ä'\"#,$")
    endpoints_of(directory, supervisors(directory))
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600  # who may open it may hold it


def test_endpoints_and_token_are_for_their_owner_alone(platform: Platform) -> None:
    token, credentials = Path(platform.endpoints["token_file"]), Path(platform.endpoints["nats_credentials"])
    files = (platform.data / "endpoints.json", platform.data / "pids.json", token, credentials)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert platform.token.startswith("berth_")
    assert json.loads(credentials.read_text())["user"] == "reader"


def test_no_secret_stands_in_an_argument_list_or_an_environment(platform: Platform) -> None:
    secrets = [platform.token.encode()]
    secrets += [file.read_bytes() for file in (platform.data / "passwords").iterdir()]
    secrets += [json.loads(file.read_text())["password"].encode() for file in (platform.data / "nats").glob("*.json")]
    for pid in platform.endpoints["pids"].values():
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert not [secret for secret in secrets if secret in shown]


def test_a_second_supervisor_says_who_holds_the_directory(platform: Platform) -> None:
    holder = platform.endpoints["pids"]["supervisor"]
    second = run_supervisor(BERTH_DATA=str(platform.data))
    assert second.returncode == 1
    assert f"held by the supervisor with process id {holder}" in second.stderr
    assert child.identity(holder) is not None


def test_a_port_that_is_taken_is_said_before_anything_starts(data: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = run_supervisor(BERTH_DATA=str(data), BERTH_PORT=str(port))
    assert refused.returncode == 1
    assert f"Port {port}" in refused.stderr
    assert "BERTH_PORT" in refused.stderr
    assert not (data / "postgres").exists()


def test_a_data_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run_supervisor(BERTH_DATA=str(tmp_path / "file" / "data"))
    assert refused.returncode == 1
    assert str(tmp_path / "file" / "data") in refused.stderr
    assert "BERTH_DATA" in refused.stderr


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("BERTH_PORT", "http", "0…65535"),
        ("BERTH_PORT", "70000", "0…65535"),
        ("BERTH_SAMPLE", "yes", "0 or 1"),
        ("BERTH_SIM_DELAY_MS", "-1", "milliseconds"),
        ("BERTH_SIM_FAIL_RATE", "nan", "from 0 to 1"),
        ("BERTH_ENGINE", "far", "local, remote"),
        ("BERTH_CONTROLLERS", "VM", "a name"),
        ("BERTH_NATS_CREDENTIALS", "/nowhere", "a file that exists"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingRefused, match=f"{variable} is .*{allowed}"):
        Settings.from_environment({variable: value})


def test_settings_survive_the_way_to_a_child(tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path, sample=False, sim_fail_rate=0.25, controllers=("vm", "ipam"), nats_credentials=None
    )
    assert Settings.from_environment(settings.environment()) == settings


def test_a_password_in_a_connection_string_is_refused_and_not_shown(data: Path) -> None:
    refused = run_supervisor(BERTH_DATA=str(data), BERTH_POSTGRES="host=db password=hunter2")
    assert refused.returncode == 2
    assert "BERTH_POSTGRES_PASSWORD_FILE" in refused.stderr
    assert "hunter2" not in refused.stderr


def test_a_process_that_dies_again_and_again_waits_longer_but_not_for_long() -> None:
    delays = [child.back_off_s(deaths) for deaths in (0, 1, 2, 3, 10_000)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 2.0]


def test_a_servers_full_log_is_cut_while_it_writes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarted, "FILE_BYTES_MAX", 1_000)

    def launch(stream: IO[bytes]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=stream)

    kept = restarted.RestartedProcess("postgres", launch, log_file=tmp_path / "postgres.log")
    kept.launch()
    assert kept.process is not None
    assert kept.process.stdin is not None
    (tmp_path / "postgres.log").write_bytes(b"x" * 1_001)
    kept.cut_log()
    kept.process.stdin.write(b"what comes after\n")
    kept.process.stdin.close()
    assert kept.process.wait() == 0
    assert kept.log_file.read_bytes() == b"what comes after\n"
    assert len(kept.log_file.with_suffix(".log.1").read_bytes()) == 1_001
    kept.cut_log()
    assert kept.log_file.read_bytes() == b"what comes after\n"
