"""The forms in which an answer leaves: table, wide, json, yaml, name, csv."""

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from cli import kinds, tables
from cli.kinds import Kind

FORMATS = ("table", "wide", "json", "yaml", "name", "csv")


def resources(kind: Kind, items: Sequence[dict[str, Any]], *, form: str, headers: bool = True) -> None:
    """Print resources of one kind in any of the forms."""
    if form == "name":
        for item in items:
            click.echo(tables.printable(kinds.full_name(kind, item)))
    elif form in ("table", "wide"):
        tables.show(
            tables.of_kind(kind, items, human=tables.for_a_person(), wide=form == "wide"),
            headers=headers,
        )
    else:
        data(items, form=form, headers=headers)


def entries(items: Sequence[dict[str, Any]], fields: Sequence[str], *, form: str, headers: bool = True) -> None:
    """Print entries that are no resources (audit, events); a table shows `fields`, the other forms everything."""
    if form in ("table", "wide", "name"):
        tables.show(tables.of_fields(items, fields, human=tables.for_a_person()), headers=headers)
    else:
        data(items, form=form, headers=headers)


def data(value: Any, *, form: str, headers: bool = True) -> None:
    """Print a value as it came, as json, yaml or csv."""
    if form == "csv":
        return _csv(value if isinstance(value, list) else [value], headers=headers)
    if form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _csv(items: Sequence[dict[str, Any]], *, headers: bool) -> None:
    rows = [dict(tables.flat(item)) for item in items]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
    if headers and columns:
        writer.writeheader()
    writer.writerows(rows)
