"""Resources and answers as rows of text, and rows as what is printed: a table for a person, tab-separated for a pipe.

A person's table has one line a row and fits the terminal: text is cut, then columns give way. Amounts of a column have
one unit, times are short, what is empty is a dash. In a pipe amounts are the API's own numbers and empty is empty.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from cli import terminal, units
from cli.connection import inner
from cli.kinds import Kind
from cli.terminal import printable, width

# Lists that a table only counts.
COUNTED = ("vms", "children", "hosts")
# Columns of text that a narrow terminal may cut; names stand whole, since they are to be copied.
CUT = frozenset(
    [
        "display_name",
        "description",
        "reason",
        "message",
        "path",
        "labels",
        "addresses",
        "target",
        "resource",
        "stream",
        "changes",
        "problem",
    ]
)
CUT_MIN = 10
GAP = "  "
UNLIMITED = "∞"


class Table(NamedTuple):
    titles: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()  # the columns that are set to the right
    cut: frozenset[int] = frozenset()  # those that may be cut
    yields: tuple[int, ...] = ()  # those that give way, first those that go first


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
        return ", ".join(_pair(name, entry, human=human) for name, entry in value.items())
    if human and isinstance(value, str) and (field == "at" or field.endswith("_at")):
        return short_time(value, today=datetime.now(UTC).date())
    return printable(str(value))


def _pair(name: str, value: Any, *, human: bool) -> str:
    """`memory=4 GiB` for a person, `memory_mib=4096` in a pipe."""
    if not human or isinstance(value, dict | list):
        return f"{printable(name)}={cell(value, human=human)}"
    title = units.title(name) if isinstance(value, int) else name
    return f"{printable(title)}={printable(units.human(value, name))}"


def heading(field: str, *, human: bool) -> str:
    """A field as a title: in words for a person, who is told that times are in UTC."""
    if not human:
        return field
    if field == "at" or field.endswith("_at"):
        return f"{field.removesuffix('_at').replace('_', ' ')} (UTC)"
    return field.replace("_", " ")


def short_time(text: str, *, today: date) -> str:
    """A time (UTC) as `ls -l` shows it: of today the hour, of this year the day and hour, of others the date."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return printable(text)
    if at.date() == today:
        return f"{at:%H:%M:%S}"
    return f"{at:%m-%d %H:%M}" if at.year == today.year else f"{at:%Y-%m-%d}"


def of_kind(
    kind: Kind,
    items: Sequence[dict[str, Any]],
    *,
    human: bool,
    wide: bool = False,
    overcommit: Mapping[str, Mapping[str, float]] | None = None,
) -> Table:
    """The table of resources of one kind; a column per resource class that any of them has."""
    shown = [_for_people(item) for item in items] if human and not wide else items
    fields, after = list(kind.columns), list(kind.wide) if wide else []
    if human and not wide:
        fields = [field for field in fields if field not in kind.yields or any(_has(item, field) for item in shown)]
    classes = units.class_order({name for item in items for source in kind.amounts for name in inner(item, source)})
    words = units.titles(classes) if human else {name: name for name in classes}
    amounts = [
        _amounts(kind, items, name, title=words[name], human=human, overcommit=overcommit or {}) for name in classes
    ]
    rows = [
        [
            *(_field(kind, item, field, human=human) for field in fields),
            *(column[1][index] for column in amounts),
            *(_field(kind, item, field, human=human) for field in after),
        ]
        for index, item in enumerate(shown)
    ]
    names = [*fields, *classes, *after]
    titles = [
        *(heading(field, human=human) for field in fields),
        *(column[0] for column in amounts),
        *(heading(field, human=human) for field in after),
    ]
    # When the fields that yield are gone, the classes at the right do; cpu and memory stay.
    yielding = (*kind.yields, *reversed(classes[2:]))
    return Table(
        titles,
        rows,
        frozenset(range(len(fields), len(fields) + len(classes))),
        frozenset(index for index, name in enumerate(names) if name in CUT),
        tuple(names.index(name) for name in yielding if name in names),
    )


def of_fields(
    items: Sequence[dict[str, Any]], fields: Sequence[str], *, human: bool, yields: Sequence[str] = ()
) -> Table:
    """The table of plain entries (audit, events, reasons), the fields as columns."""
    rows = [[cell(item.get(field), human=human, field=field) for field in fields] for item in items]
    numeric = frozenset(
        index for index, field in enumerate(fields) if items and all(isinstance(item.get(field), int) for item in items)
    )
    return Table(
        [heading(field, human=human) for field in fields],
        rows,
        numeric,
        frozenset(index for index, field in enumerate(fields) if field in CUT),
        tuple(fields.index(field) for field in yields if field in fields),
    )


def amounts_of(items: Sequence[dict[str, Any]], fields: Sequence[str], *, by: str, human: bool) -> Table:
    """A row per item and class, for the reads whose point is the amounts (capacity): `fields` are the columns."""
    rows = []
    words = units.titles({name for item in items for field in fields for name in inner(item, field)})
    for item in items:
        classes = units.class_order({name for field in fields for name in inner(item, field)})
        for name in classes:
            values = [inner(item, field).get(name) for field in fields]
            word = words[name] if human else name
            shown = [units.under_title(value, name, word) if human else cell(value, human=False) for value in values]
            rows.append([printable(str(item.get("name"))), printable(word), *shown])
    titles = [by, "class", *(heading(field, human=human) for field in fields)]
    return Table(titles, rows, frozenset(range(2, 2 + len(fields))))


def show(table: Table, *, headers: bool = True, wide: bool = False) -> None:
    """Print to stdout, as a table if a person looks at it, else tab-separated with the titles in the first line."""
    if not terminal.for_a_person():
        rows = [table.titles, *table.rows] if headers else table.rows
        if rows:
            terminal.say("\n".join("\t".join(row) for row in rows))
        return
    if not table.rows:
        return
    parts = sections(table, terminal.columns()) if wide else [fit(table, terminal.columns())]
    for number, part in enumerate(parts):
        lines = text_lines(part._replace(titles=[_heading(title) for title in part.titles]))
        terminal.say("\n".join([*([""] if number else []), *(lines if headers else lines[1:])]))
    if not wide and (hidden := [title for title in table.titles if title not in parts[0].titles]):
        terminal.say(f"(no room for: {', '.join(hidden)}; `-o wide` shows all)", err=True)


def fit(table: Table, columns: int) -> Table:
    """The table in so many cells: columns leave in the order in which they yield, then text is cut."""
    natural = [max(width(row[index]) for row in [table.titles, *table.rows]) for index in range(len(table.titles))]
    least = [
        max(width(table.titles[index]), min(cells, CUT_MIN)) if index in table.cut else cells
        for index, cells in enumerate(natural)
    ]
    kept = list(range(len(natural)))
    yielding = iter(table.yields)
    while _total(least, kept) > columns:
        leaving = next(yielding, None)
        if leaving is None:
            break
        kept.remove(leaving)
    spare = max(0, columns - _total(least, kept))
    cells = list(least)
    for index in kept:
        more = min(spare, natural[index] - least[index])
        cells[index], spare = least[index] + more, spare - more
    rows = [
        [terminal.cut(text, cells[index]) if index in table.cut else text for index, text in enumerate(row)]
        for row in table.rows
    ]
    return _only(table._replace(rows=rows), kept)


def sections(table: Table, columns: int) -> list[Table]:
    """All columns of the table, in as many tables below each other as it takes; each begins with the first column."""
    cells = [max(width(row[index]) for row in [table.titles, *table.rows]) for index in range(len(table.titles))]
    found: list[list[int]] = [[0]]
    for index in range(1, len(cells)):
        if len(found[-1]) > 1 and _total(cells, [*found[-1], index]) > columns:
            found.append([0])
        found[-1].append(index)
    return [_only(table, kept) for kept in found]


def _only(table: Table, kept: Sequence[int]) -> Table:
    return Table(
        [table.titles[index] for index in kept],
        [[row[index] for index in kept] for row in table.rows],
        frozenset(at for at, index in enumerate(kept) if index in table.numeric),
    )


def text_lines(table: Table) -> list[str]:
    """The table as aligned lines of plain text."""
    rows = [table.titles, *table.rows]
    widths = [max(width(row[index]) for row in rows) for index in range(len(table.titles))]
    lines = []
    for row in rows:
        cells = []
        for index, (text, cells_wide) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (cells_wide - width(text))
            cells.append(padding + text if index in table.numeric else text + padding)
        lines.append(GAP.join(cells).rstrip())
    return lines


def flat(item: dict[str, Any], *, prefix: str = "") -> Iterable[tuple[str, str]]:
    """The fields of a resource as columns of a CSV file: `capacity.cpu`; a list's entries have spaces between them.

    Labels are JSON, as is a list whose entries have fields of their own (rules, steps), as in the API's own CSV.
    """
    for field, value in item.items():
        if field == "labels" and isinstance(value, dict):
            yield prefix + field, json.dumps(value, ensure_ascii=False) if value else ""
        elif isinstance(value, dict) and value:
            yield from flat(value, prefix=f"{prefix}{field}.")
        elif isinstance(value, list):
            yield prefix + field, _list(value)
        else:
            yield prefix + field, value if isinstance(value, str) else cell(value, human=False)


def _list(value: list[Any]) -> str:
    if any(isinstance(entry, dict | list) for entry in value):
        return json.dumps(value, ensure_ascii=False)
    return " ".join(str(entry) for entry in value)


def _for_people(item: dict[str, Any]) -> dict[str, Any]:
    """What is said twice, once: an operation of kind vm.provision on vm/acme/web-1 is one on acme/web-1.

    And beside the state what is to be noticed: by whom something is suspended that is so through another above it, and
    how far something is that runs.
    """
    shown = item
    if (above := item.get("suspended_by")) not in (None, item.get("name")):
        shown = {**shown, "state": f"suspended by {above}"}
    if "percent" in item:
        percent = item["percent"]
        is_running = item.get("state") == "running" and percent is not None
        state = f"running {percent}%" if is_running else item.get("state")
        shown = {**shown, "state": state, "percent": None}
    if "kind" in item and "target" in item:
        about = str(item["kind"]).partition(".")[0] + "/"
        shown = {**shown, "target": str(item["target"]).removeprefix(about)}
    return shown


def _has(item: dict[str, Any], field: str) -> bool:
    return item.get(field) not in (None, "", [], {})


def _field(kind: Kind, item: dict[str, Any], field: str, *, human: bool) -> str:
    if field == "name":
        return printable(kind.full_name(item))
    return cell(item.get(field), human=human, field=field)


def _amounts(
    kind: Kind,
    items: Sequence[dict[str, Any]],
    name: str,
    *,
    title: str,
    human: bool,
    overcommit: Mapping[str, Mapping[str, float]],
) -> tuple[str, list[str]]:
    """The column of a class: its title and cells, `used/limit` where the kind has both."""
    whole = [_limits(kind, item, overcommit).get(name) for item in items]
    is_own = human and title == name != units.title(name)  # which names its unit
    scale = units.Scale("", 1) if is_own else units.scale(name, [amount for amount in whole if amount is not None])
    show: Callable[[int], str] = (lambda value: units.scaled(value, scale)) if human else str
    title = f"{printable(title)} {scale.unit}".rstrip() if human else printable(title)
    if len(kind.amounts) == 1:
        return title, [show(amount) if amount is not None else "–" if human else "" for amount in whole]
    used = [inner(item, kind.amounts[0]).get(name, 0) for item in items]
    # A class that limits do not name is unlimited, which is not the same as none.
    missing = UNLIMITED if kind.amounts[-1] == "limits" else "0"
    return title, [
        f"{show(of)}/{missing if amount is None else show(amount)}" for of, amount in zip(used, whole, strict=True)
    ]


def _limits(kind: Kind, item: dict[str, Any], overcommit: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """What the amounts are measured by; capacity counts as often as it is promised: by the resource itself, or by the
    group that it is in."""
    amounts: dict[str, int] = inner(item, kind.amounts[-1])
    if kind.amounts[-1] != "capacity":
        return amounts
    own = inner(item, "overcommit") if "overcommit" in item else overcommit.get(str(item.get("group"))) or {}
    return units.promised(amounts, own)


def _heading(title: str) -> str:
    """In capitals, but for units."""
    return " ".join(word if word in units.UNITS else word.upper() for word in title.split(" "))


def _total(cells: Sequence[int], kept: Sequence[int]) -> int:
    return sum(cells[index] for index in kept) + len(GAP) * (len(kept) - 1)
