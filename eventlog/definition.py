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
from copy import deepcopy
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
                waiting += self._note(name)

    def digest(self) -> str:
        found = [sys.version_info[:2], sorted(self._taken.items())]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16]

    def _note(self, symbol: Symbol) -> list[Symbol]:
        """Count the statements that bind it; answers the symbols that they use."""
        module, name = symbol
        known = _module(self._root, module)
        assert known is not None, module
        if name in known.imported:
            self._taken[symbol] = ""
            return [known.imported[name]] if self._is_ours(known.imported[name][0]) else []
        if name not in known.bound:
            raise LookupError(f"{module} has no {name} at its top level")
        nodes = [*known.bound[name], *known.loose]
        kept = [_Kept(self._left_out).visit(deepcopy(node)) for node in nodes]
        self._taken[symbol] = "".join(ast.dump(node) for node in kept)
        return [used for node in kept for used in self._used(module, known, node)]

    def _used(self, module: str, known: "_Module", node: ast.AST) -> Iterator[Symbol]:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id in known.bound:
                yield module, inner.id
            elif isinstance(inner, ast.Name) and inner.id in known.imported:
                of, name = known.imported[inner.id]
                if name and self._is_ours(of):
                    yield of, name
            elif isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                of, name = known.imported.get(inner.value.id, ("", "-"))
                if not name and self._is_ours(of):  # an attribute of an imported module
                    yield of, inner.attr

    def _is_ours(self, module: str) -> bool:
        return bool(module) and _module(self._root, module) is not None


class _Module:
    """A module's top level: which statements bind a name, what is imported (module, name; the module itself has no
    name), and the statements that bind nothing."""

    def __init__(self, root: Path, tree: ast.Module) -> None:
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


class _Kept(ast.NodeTransformer):
    """A statement without docstrings, without the types of a function, and without the arguments that are left out.
    (The types of a class' fields stay: events and states are read by them.)"""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._left_out = left_out

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [given for given in node.keywords if given.arg not in self._left_out]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)


def _symbol(text: str) -> Symbol:
    module, _, name = text.partition(":")
    return module, name


@cache
def _module(root: Path, name: str) -> _Module | None:
    file = _file(root, name)
    return _Module(root, ast.parse(file.read_bytes())) if file is not None else None


@cache
def _file(root: Path, module: str) -> Path | None:
    """Its source, if it is one of ours."""
    path = root.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
