"""What every file of the product keeps to, read off its syntax."""

import ast
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


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(MODULES[name]):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names if one.name in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                for one in names:
                    yield found if (found := f"{module}.{one.name}") in MODULES else module
