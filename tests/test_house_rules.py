"""What every file of the product keeps to, read off its syntax."""

import ast
import re
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("domain", "eventlog", "commands", "projections", "messaging", "api", "workers", "cli")
POSITIONAL_MAX = 5
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
SOURCES = {name: path.read_text().splitlines() for name, path in FILES.items()}
MODULES = {name: ast.parse("\n".join(lines)) for name, lines in SOURCES.items()}
# Functions of any number of arguments of one sort: a table's columns, the states in which something is possible.
ANY_NUMBER = {"Table"} | {
    node.name
    for tree in MODULES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef) and node.args.vararg is not None
}


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Also not within a function, nor for a type alone: what needs that is cut at the wrong place. The command line's
    own modules apart, which import late so that `berth get` is quick."""
    try:
        TopologicalSorter({name: set(_imports(name)) for name in MODULES if not name.startswith("cli.")}).prepare()
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " → ".join(error.args[1])) from None


def test_calls_with_many_arguments_name_them() -> None:
    """Or say in a comment `# positional: …` above, or at the end of the line, what is gained without names."""
    found = []
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) <= POSITIONAL_MAX:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            lines = SOURCES[name][max(0, node.lineno - 2) : node.lineno]
            if called not in ANY_NUMBER and not any("# positional: " in line for line in lines):
                found.append(f"{FILES[name].relative_to(ROOT)}:{node.lineno}: {called} has {len(node.args)}")
    assert not found, "more than {} arguments without a name:\n{}".format(POSITIONAL_MAX, "\n".join(found))


def test_what_the_type_checker_is_told_to_overlook_has_its_reason() -> None:
    """`# type: ignore[code]  # why`"""
    ignores = re.compile(r"# type: ignore(?!\[[a-z-]+\]  # \S)")
    found = [
        f"{name}:{n}" for name, lines in SOURCES.items() for n, line in enumerate(lines, 1) if ignores.search(line)
    ]
    assert not found


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
