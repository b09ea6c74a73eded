"""The views of all kinds, found by the kinds: `projections/kinds/<plural>.py` of each, which ends with its `VIEW`."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from domain.kind import Kind
from domain.kinds import KINDS
from projections.view import View


def views_of(kinds: Iterable[Kind[Any]]) -> dict[str, View[Any]]:
    """By the kinds' names.

    Raises:
        ImportError: a kind has no such file, or no view in it, or another kind's; says what to write.
    """
    return {kind.name: _view_of(kind) for kind in kinds}


def _view_of(kind: Kind[Any]) -> View[Any]:
    file, name = f"projections/kinds/{kind.module}.py", f"projections.kinds.{kind.module}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        message = f"the kind {kind.name!r} has no view: write {file}, with VIEW at its end"
        raise ModuleNotFoundError(message, name=name) from None
    view: View[Any] | None = getattr(module, "VIEW", None)
    if view is None or view.kind is not kind:
        raise ImportError(f"{file} needs VIEW = View(kind=KIND, …) at its end, of the kind {kind.name!r}", path=file)
    return view


VIEWS: dict[str, View[Any]] = views_of(KINDS)
