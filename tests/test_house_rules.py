"""What every file of the product keeps to, read off its syntax."""

import ast
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("domain", "eventlog", "commands", "projections", "messaging", "api", "workers")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_bytes())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also not within a function, nor for a type alone: what needs that is cut at the wrong place."""
    try:
        TopologicalSorter({name: set(_imports(name)) for name in MODULES}).prepare()
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " → ".join(error.args[1])) from None


def test_files_beside_the_code_are_declared_so_that_an_installed_package_has_them() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        globs = declared.get(package, ())
        packed = {path for glob in globs for path in (ROOT / package).glob(glob)}
        beside = {
            path
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "README.md"
        }
        assert beside == packed, f"package-data of {package} in pyproject.toml does not list just these"


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(MODULES[name]):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names if one.name in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                for one in names:
                    yield found if (found := f"{module}.{one.name}") in MODULES else module
