"""The forms in which an answer leaves: table, wide, json, yaml, name, csv."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cli import tables, terminal, yaml_text
from cli.kinds import Kind

FORMATS = ("table", "wide", "json", "yaml", "name", "csv")


def resources(
    kind: Kind,
    items: Sequence[dict[str, Any]],
    *,
    form: str,
    headers: bool = True,
    overcommit: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print resources of one kind in any of the forms. `overcommit` is that of each host's group, by its name."""
    if form == "name":
        if items:
            terminal.say("\n".join(terminal.printable(kind.full_name(item)) for item in items))
    elif form in ("table", "wide"):
        human = terminal.for_a_person()
        table = tables.of_kind(kind, items, human=human, wide=form == "wide", overcommit=overcommit or {})
        tables.show(table, headers=headers, wide=form == "wide")
    else:
        data(items, form=form, headers=headers)


def entries(
    items: Sequence[dict[str, Any]],
    fields: Sequence[str],
    *,
    form: str,
    headers: bool = True,
    yields: Sequence[str] = (),
    noun: str = "entries",
) -> None:
    """Print entries that are no resources (audit, events); a table shows `fields`, the other forms everything."""
    if form in ("table", "wide"):
        if not items and terminal.for_a_person():
            return terminal.say(f"no {noun} found", err=True)
        table = tables.of_fields(items, fields, human=terminal.for_a_person(), yields=yields)
        tables.show(table, headers=headers, wide=form == "wide")
    else:
        data(items, form=form, headers=headers)


def data(value: Any, *, form: str, headers: bool = True) -> None:
    """Print a value as it came, as json, yaml or csv."""
    if form == "csv":
        _csv(value if isinstance(value, list) else [value], headers=headers)
    elif form == "yaml":
        terminal.data(yaml_text.text(value))
    else:
        terminal.data(json_text(value, indent=2) + "\n")


def rows(titles: list[list[str]], content: list[list[str]]) -> None:
    """Print rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([*titles, *content])
    terminal.data(file.getvalue())


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that is exact and safe on a terminal: scripts stay readable, what is unprintable is escaped."""
    return terminal.escaped(
        json.dumps(value, ensure_ascii=False, indent=indent), code=lambda sign: json.dumps(sign)[1:-1]
    )


def _csv(items: Sequence[dict[str, Any]], *, headers: bool) -> None:
    found = [dict(tables.flat(item)) for item in items]
    columns = list(dict.fromkeys(column for row in found for column in row))
    rows([columns] if headers and columns else [], [[row.get(column, "") for column in columns] for row in found])
