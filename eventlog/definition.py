"""A hash of some definitions: of their syntax trees and of all that they use, without comments and docstrings.

    "domain.vm:evolve" ──► its statement ──► the names in it ──► their statements, here or where they come from ──► hash

Caches are named after it: tables of the read model, and parts of checkpoints, a kind each. So what a kind's state,
events and rows do not use rebuilds nothing: a comment, a decision, a message, another kind. Only packages of ours are
followed. Python's own version counts too, as syntax trees differ between versions.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

Symbol = tuple[str, str]  # module, name at its top level


def definition(*symbols: str, left_out: Iterable[str] = (), not_followed: Iterable[str] = (), root: Path = ROOT) -> str:
    """The hash of `module:name` symbols and of what they use, 16 hex digits. `left_out` are keywords whose arguments
    say nothing about what is cached: they are neither followed nor counted. Nor are symbols `not_followed`.

    Cost: some milliseconds a file that is met for the first time. Raises LookupError: there is no such symbol.
    """
    sources = Sources(root, left_out=frozenset(left_out), not_followed=frozenset(map(_symbol, not_followed)))
    for symbol in symbols:
        sources.take(_symbol(symbol))
    return sources.digest()


class Sources:
    """The statements that were taken so far, each once."""

    def __init__(self, root: Path, *, left_out: frozenset[str], not_followed: frozenset[Symbol]) -> None:
        self._root = root
        self._left_out = left_out
        self._not_followed = not_followed
        self._taken: dict[Symbol, str] = {}

    def take(self, symbol: Symbol) -> None:
        """It and all that it uses.

        Raises:
            LookupError: its module has no such name.
        """
        waiting = [symbol]
        while waiting:
            name = waiting.pop()
            if name not in self._taken and name not in self._not_followed:
                self._taken[name], used = _statements(self._root, self._left_out, name)
                waiting += used

    def digest(self) -> str:
        found = [sys.version_info[:2], sorted(self._taken.items())]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


@cache
def _statements(root: Path, left_out: frozenset[str], symbol: Symbol) -> tuple[str, list[Symbol]]:
    """What the statements that bind a symbol say, and the symbols that they use."""
    module, name = symbol
    known = _module(root, module)
    assert known is not None, module
    if name in known.imported:
        return "", [known.imported[name]] if _module(root, known.imported[name][0]) is not None else []
    if name not in known.bound:
        raise LookupError(f"{module} has no {name} at its top level")
    reader = _Reader(left_out)
    for statement in (*known.bound[name], *known.loose):
        reader.read(statement, local=frozenset())
    return "".join(reader.said), [used for word, attribute in reader.used for used in known.meant(word, attribute)]


class _Reader:
    """Reads statements without docstrings, without the types of functions, and without the arguments that are left out.
    (The types of a class' fields stay: events and states are read by them.)"""

    def __init__(self, left_out: frozenset[str]) -> None:
        self.said: list[str] = []
        self.used: list[tuple[str, str]] = []  # names, and of `name.attribute` the attribute
        self._left_out = left_out

    def read(self, node: ast.AST, *, local: frozenset[str]) -> None:
        """`local` are names that mean something in a function alone."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            local = local | _bound_in(node)
        self.said.append(type(node).__name__)
        for field, value in ast.iter_fields(node):
            if field == "returns" or (field == "annotation" and isinstance(node, ast.arg)):
                continue
            for part in value if isinstance(value, list) else (value,):
                if not isinstance(part, ast.AST):
                    self.said.append(repr(part))
                elif not (isinstance(part, ast.keyword) and part.arg in self._left_out):
                    self.read(part, local=local)
        if isinstance(node, ast.Name) and node.id not in local:
            self.used.append((node.id, ""))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in local:
            self.used.append((node.value.id, node.attr))


def _bound_in(function: ast.AST) -> frozenset[str]:
    """The names that a function binds: its arguments and whatever is assigned in it."""
    found = set()
    for node in ast.walk(function):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.MatchAs(name=str(name)):
                found.add(name)
    return frozenset(found)


class _Module:
    """A module's top level: which statements bind a name, what is imported (module, name; the module itself has no
    name), and the statements that bind nothing."""

    def __init__(self, root: Path, name: str, tree: ast.Module) -> None:
        self.name = name
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, Symbol] = {}
        self.loose: list[ast.stmt] = []
        for statement in tree.body:
            match statement:
                case ast.Import(names=aliases):
                    for alias in aliases:
                        self.imported[alias.asname or alias.name] = (alias.name, "")
                case ast.ImportFrom(module=str(module), names=aliases, level=0):
                    for alias in aliases:
                        inside = f"{module}.{alias.name}"
                        of = (inside, "") if _file(root, inside) is not None else (module, alias.name)
                        self.imported[alias.asname or alias.name] = of
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    self.bound.setdefault(name, []).append(statement)
                case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                    names = [
                        inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)
                    ]
                    for name in names:
                        self.bound.setdefault(name, []).append(statement)
                case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
                    pass  # a docstring, or for the type checker alone
                case _:
                    self.loose.append(statement)
        self._root = root

    def meant(self, word: str, attribute: str) -> Iterator[Symbol]:
        """What a name in it is at a top level of ours, or an attribute of that name if it is a module."""
        if word in self.bound:
            if not attribute:
                yield self.name, word
        elif word in self.imported:
            module, name = self.imported[word]
            of = _module(self._root, module)
            if of is not None and name and not attribute:
                yield module, name
            elif of is not None and not name and attribute:
                yield module, attribute


def _symbol(text: str) -> Symbol:
    module, _, name = text.partition(":")
    return module, name


@cache
def _module(root: Path, name: str) -> _Module | None:
    file = _file(root, name)
    return _Module(root, name, ast.parse(file.read_bytes())) if file is not None else None


@cache
def _file(root: Path, module: str) -> Path | None:
    """Its source, if it is one of ours."""
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
