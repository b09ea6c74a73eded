"""The compose file: valid, in step with the processes and NATS' users, and without a secret or an open port."""

import subprocess
import sys
from typing import Any

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


def test_every_process_has_a_user_of_its_own_on_nats() -> None:
    files = [file for service in OURS.values() if (file := service["environment"].get("BERTH_NATS_CREDENTIALS"))]
    users = [file.removeprefix("/var/lib/berth/nats/").removesuffix(".json") for file in files]
    assert len(users) == len(set(users))
    assert set(users) == set(nats_config.users(["vm"])) - {"reader"}


def test_secrets_are_files_that_are_mounted_where_they_are_named() -> None:
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
        named = {value for variable, value in environment.items() if variable.endswith(("PASSWORD_FILE", "TOKEN_FILE"))}
        assert named == mounted, name
        plain = [variable for variable in environment if variable.endswith(("PASSWORD", "TOKEN"))]
        assert not plain, name


def test_ports_are_published_on_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_does_not_run_as_root() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert "\nUSER berth\n" in stages[-1]
