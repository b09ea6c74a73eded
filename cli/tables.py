"""Resources and answers as rows of text, and rows as what is printed: a table for a person, tab-separated for a pipe.

For a person amounts have units and what is empty is a dash; in a pipe they are the API's own numbers and what is empty
is empty. What came from others is stripped of control characters first: a name must not move the cursor.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import click

from cli import kinds, units
from cli.kinds import Kind

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
# Lists that a table only counts.
COUNTED = ("vms", "children", "hosts")
WRAPPED_MIN = 12  # a column of text is made no narrower to fit the terminal
COLUMN_GAP = 3


class Table(NamedTuple):
    titles: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()  # the columns that are set to the right


def printable(text: str) -> str:
    return _CONTROL.sub(" ", text)


def cell(value: Any, *, human: bool, field: str = "") -> str:
    """One value as the text of a cell."""
    if value is None or value == [] or value == {}:
        return "–" if human else ""
    if isinstance(value, bool):
        yes, no = ("yes", "no") if human else ("true", "false")
        return yes if value else no
    if isinstance(value, list):
        if field in COUNTED:
            return str(len(value))
        return (" > " if field == "path" else ", ").join(cell(entry, human=human) for entry in value)
    if isinstance(value, dict):
        pairs = ((name, units.human(value[name], name) if human else cell(value[name], human=False)) for name in value)
        return ", ".join(f"{name}={printable(str(shown))}" for name, shown in pairs)
    return printable(str(value))


def of_kind(kind: Kind, items: Sequence[dict[str, Any]], *, human: bool, wide: bool = False) -> Table:
    """The table of resources of one kind; a column per resource class that any of them has."""
    fields = list(kind.columns)
    classes = units.class_order({name for item in items for source in kind.amounts for name in item.get(source) or {}})
    after = kind.wide if wide else ()
    titles = [*fields, *(units.title(name) if human else name for name in classes), *after]
    numeric = frozenset(range(len(fields), len(fields) + len(classes)))
    rows = [
        [
            *(_field(kind, item, field, human=human) for field in fields),
            *(_amounts(kind, item, name, human=human) for name in classes),
            *(_field(kind, item, field, human=human) for field in after),
        ]
        for item in items
    ]
    return Table([title.replace("_", " ") for title in titles] if human else titles, rows, numeric)


def of_fields(items: Sequence[dict[str, Any]], fields: Sequence[str], *, human: bool) -> Table:
    """The table of plain entries (audit, events, reasons), the fields as columns."""
    rows = [[cell(item.get(field), human=human, field=field) for field in fields] for item in items]
    numeric = frozenset(
        index for index, field in enumerate(fields) if items and all(isinstance(item.get(field), int) for item in items)
    )
    return Table([field.replace("_", " ") if human else field for field in fields], rows, numeric)


def amounts_of(items: Sequence[dict[str, Any]], fields: Sequence[str], *, by: str, human: bool) -> Table:
    """A row per item and class, for the reads whose point is the amounts (capacity): `fields` are the columns."""
    rows = []
    for item in items:
        classes = units.class_order({name for field in fields for name in item.get(field) or {}})
        for name in classes:
            values = [(item.get(field) or {}).get(name) for field in fields]
            shown = [units.human(value, name) if human else cell(value, human=False) for value in values]
            rows.append([printable(str(item.get("name"))), units.title(name) if human else name, *shown])
    titles = [by, "class", *(field.replace("_", " ") if human else field for field in fields)]
    return Table(titles, rows, frozenset(range(2, 2 + len(fields))))


def for_a_person() -> bool:
    return sys.stdout.isatty()


def show(table: Table, *, headers: bool = True) -> None:
    """Print to stdout, as a table if a person looks at it, else tab-separated with the titles in the first line."""
    if for_a_person():
        return _draw(table)
    if headers:
        click.echo("\t".join(table.titles))
    for row in table.rows:
        click.echo("\t".join(row))


def text_lines(table: Table) -> list[str]:
    """The table as aligned lines of plain text, for stderr."""
    from rich.cells import cell_len

    rows = [table.titles, *table.rows]
    widths = [max(cell_len(row[index]) for row in rows) for index in range(len(table.titles))]
    lines = []
    for row in rows:
        cells = []
        for index, (text, width) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (width - cell_len(text))
            cells.append(padding + text if index in table.numeric else text + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def flat(item: dict[str, Any], *, prefix: str = "") -> Iterable[tuple[str, str]]:
    """The fields of a resource as columns of a CSV file: `capacity.cpu`; a list's entries have spaces between them.

    A list whose entries have fields of their own (rules, steps) is JSON, as in the API's own CSV.
    """
    for field, value in item.items():
        if isinstance(value, dict) and value:
            yield from flat(value, prefix=f"{prefix}{field}.")
        elif isinstance(value, list):
            yield prefix + field, _list(value)
        else:
            yield prefix + field, cell(value, human=False)


def _list(value: list[Any]) -> str:
    if any(isinstance(entry, dict | list) for entry in value):
        return json.dumps(value, ensure_ascii=False)
    return " ".join(str(entry) for entry in value)


def _field(kind: Kind, item: dict[str, Any], field: str, *, human: bool) -> str:
    if field == "name":
        return printable(kinds.full_name(kind, item))
    return cell(item.get(field), human=human, field=field)


def _amounts(kind: Kind, item: dict[str, Any], name: str, *, human: bool) -> str:
    def shown(source: str) -> str:
        amounts = item.get(source) or {}
        # A class that a quota does not name is unlimited, which is not the same as unknown.
        missing = "∞" if source == "limits" else 0
        value = amounts.get(name, missing)
        return units.human(value, name) if human else str(value)

    if len(kind.amounts) == 1:
        amounts = item.get(kind.amounts[0]) or {}
        return shown(kind.amounts[0]) if name in amounts else ("–" if human else "")
    used, limit = kind.amounts
    return f"{shown(used)} / {shown(limit)}" if human else f"{shown(used)}/{shown(limit)}"


def _draw(table: Table) -> None:
    """Names and amounts stand whole, other columns wrap; where even that is too wide, the terminal breaks the lines."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console()
    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    least = 0
    for index, title in enumerate(table.titles):
        stands_whole = index == 0 or index in table.numeric
        longest = max((cell_len(row[index]) for row in table.rows), default=0)
        width = max(cell_len(title), longest if stands_whole else min(longest, WRAPPED_MIN))
        least += width + COLUMN_GAP
        justify: Literal["left", "right"] = "right" if index in table.numeric else "left"
        drawn.add_column(title, justify=justify, no_wrap=stands_whole, min_width=width, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(text) for text in row))  # Text, as a plain string's [brackets] would be taken as markup
    console.width = max(console.width, least)
    console.print(drawn)
