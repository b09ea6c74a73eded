"""The compose file: valid, in step with the processes and NATS' users, and without a secret or an open port."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from workers import nats_config
from workers.__main__ import PROCESSES
from workers.settings import Settings, variable_of

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_the_file_is_a_compose_file() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_process_of_a_deployment_is_in_it() -> None:
    commands = [service["command"] for service in OURS.values()]
    assert sorted(commands) == sorted([name] for name in PROCESSES if name != "supervisor")


def test_every_variable_is_a_setting() -> None:
    known = {variable_of(field) for field in Settings.__struct_fields__}
    given = {variable for service in OURS.values() for variable in service["environment"]}
    assert given <= known


NATS_USERS = set(nats_config.users(["vm"]))


def test_every_process_has_a_user_of_its_own_on_nats_and_sees_no_others_password() -> None:
    held: dict[str, str] = {}
    for name, service in OURS.items():
        users = [secret.removeprefix("nats_") for secret in secrets_of(service) if secret.startswith("nats_")]
        if name == "prepare":  # makes the server's configuration
            assert set(users) == NATS_USERS
            assert all(mount == f"/var/lib/berth/nats/{user}.json" for user, mount in nats_mounts(service).items())
        elif users:
            (held[name],) = users
            assert service["environment"]["BERTH_NATS_CREDENTIALS"] == f"/run/secrets/nats_{users[0]}"
    assert len(set(held.values())) == len(held)
    assert set(held.values()) == NATS_USERS - {"reader"}
    sharing = [
        name for name, service in SERVICES.items() if any("nats-config" in v for v in service.get("volumes", []))
    ]
    assert sorted(sharing) == ["nats", "prepare"]


def test_secrets_are_files_that_are_mounted_where_they_are_named() -> None:
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", []) if isinstance(secret, str)}
        kinds = ("PASSWORD_FILE", "TOKEN_FILE", "CREDENTIALS")
        named = {value for variable, value in environment.items() if variable.endswith(kinds)}
        assert named == mounted, name
        plain = [variable for variable in environment if variable.endswith(("PASSWORD", "TOKEN"))]
        assert not plain, name


def make_secrets(
    directory: Path, *, umask: int = 0o022, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    (directory / "deploy").mkdir(exist_ok=True)
    shutil.copy(ROOT / "Makefile", directory)
    shutil.copy(ROOT / "deploy" / "make_secrets.py", directory / "deploy")
    command = ["make", "secrets", f"PYTHON={python}"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, umask=umask)


def test_make_secrets_makes_every_secret_once(tmp_path: Path) -> None:
    assert make_secrets(tmp_path).returncode == 0
    made = {f"deploy/secrets/{file.name}": file.read_text() for file in (tmp_path / "deploy" / "secrets").iterdir()}
    assert set(made) == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert make_secrets(tmp_path).returncode == 0
    assert all((tmp_path / name).read_text() == text for name, text in made.items())
    for user in NATS_USERS:
        assert json.loads(made[f"deploy/secrets/nats_{user}"])["user"] == user


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_secrets_are_readable_by_the_containers_user_alone(tmp_path: Path, umask: int) -> None:
    assert make_secrets(tmp_path, umask=umask).returncode == 0
    (uid,) = (int(line.partition("=")[2]) for line in (tmp_path / ".env").read_text().splitlines())
    assert uid != 0
    for file in (tmp_path / "deploy" / "secrets").iterdir():
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (uid, 0o400), file.name
    # The image's user has that id, or the containers could not read them.
    assert {service["build"]["args"]["BERTH_UID"] for service in OURS.values()} == {"${BERTH_UID:-10001}"}
    assert 'useradd --uid "$BERTH_UID"' in (ROOT / "Dockerfile").read_text()


def test_secrets_that_others_could_read_are_closed_again(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    file = tmp_path / "deploy" / "secrets" / "admin_token"
    text = file.read_text()
    file.chmod(0o644)
    (tmp_path / ".env").write_text("COMPOSE_PROJECT_NAME=ours\nBERTH_UID=1\n")
    assert make_secrets(tmp_path).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert file.read_text() == text
    assert (tmp_path / ".env").read_text() == f"COMPOSE_PROJECT_NAME=ours\nBERTH_UID={file.stat().st_uid}\n"


@pytest.mark.parametrize("version", ["", "3.9"])
def test_without_a_python_that_is_new_enough_nothing_is_made(tmp_path: Path, version: str) -> None:
    python = ""
    if version:
        old = tmp_path / "old-python"
        old.write_text("#!/bin/sh\nexit 1\n")  # what the question for the version answers
        old.chmod(0o755)
        python = str(old)
    refused = make_secrets(tmp_path, python=python)
    assert refused.returncode != 0
    assert "Berth needs Python 3.11 or newer" in refused.stdout
    assert not (tmp_path / "deploy" / "secrets").exists()


def secrets_of(service: dict[str, Any]) -> list[str]:
    return [secret if isinstance(secret, str) else secret["source"] for secret in service.get("secrets", [])]


def nats_mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where secrets are mounted by another name, by NATS' user."""
    mounted = [secret for secret in service["secrets"] if isinstance(secret, dict)]
    return {secret["source"].removeprefix("nats_"): secret["target"] for secret in mounted}


def test_ports_are_published_on_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_does_not_run_as_root() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert "\nUSER berth\n" in stages[-1]
