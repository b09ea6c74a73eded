"""One resource, explanation or change in words: `field: value` lines, amounts and lists of entries as small tables."""

from collections.abc import Iterator
from typing import Any

from cli import tables, terminal, units
from cli.kinds import Kind
from cli.tables import Table

FIRST = ("name", "display_name", "description", "state", "reason")
LAST = ("labels", "owner", "external_id", "uid", "version", "created_at", "updated_at")
AMOUNT_FIELDS = frozenset(
    {"capacity", "used", "available", "resources", "limits", "effective_available", "requested", "largest_fit", "short"}
)
IDS = ("id", "uid")
COLUMNS_MAX = 8
NAMES_MAX = 5  # of a list that is one cell


def lines(kind: Kind, resource: dict[str, Any]) -> list[str]:
    """Everything about a resource; the fields that all have stand first and last, its own between them."""
    resource = {**resource, "name": kind.full_name(resource)}
    # Of what is named by its id, that is said once.
    resource = {field: value for field, value in resource.items() if field not in IDS or value != resource["name"]}
    own = [field for field in resource if field not in FIRST and field not in LAST]
    amounts = [field for field in own if field in AMOUNT_FIELDS and isinstance(resource[field], dict)]
    ordered = [*FIRST, *(field for field in own if field not in amounts), *LAST]
    shown = {field: resource[field] for field in ordered if field in resource}
    return [*value_lines(shown), *_amounts_table(resource, amounts)]


def value_lines(value: dict[str, Any]) -> list[str]:
    """A mapping as aligned lines; what holds more than one line stands indented below its name."""
    width = max((len(field) for field in value), default=0) + 1
    found: list[str] = []
    for field, entry in value.items():
        title = field.replace("_", " ")
        if _is_table(entry):
            found += [f"{title}:", *(f"  {line}" for line in _entries(entry))]
        elif isinstance(entry, dict) and any(isinstance(inner, dict | list) and inner for inner in entry.values()):
            found += [f"{title}:", *(f"  {line}" for line in value_lines(entry))]
        else:
            found.append(f"{title + ':':<{width}} {_value(field, entry)}")
    return found


def changes(entry: dict[str, Any], *, human: bool = True) -> list[str]:
    """What differs between an entry's `before` and `after`, as `field: old → new`; nested fields by their path."""
    before, after = entry.get("before"), entry.get("after")
    if before is None or after is None:
        return ["made"] if after is not None else ["gone"] if before is not None else []
    old, new = dict(_leaves(before)), dict(_leaves(after))
    quiet = {"version", "updated_at"}
    return [
        f"{terminal.printable(field)}: {_change(field, old.get(field), new.get(field), human=human)}"
        for field in dict.fromkeys([*old, *new])
        if old.get(field) != new.get(field) and field not in quiet
    ]


def _change(path: str, old: Any, new: Any, *, human: bool) -> str:
    """With the unit of the class if the path ends with one (`limits.memory_mib`) and the difference shows in it."""
    name = path.rpartition(".")[2]
    told = [units.human(value, name) if _is_amount(value) else tables.cell(value, human=True) for value in (old, new)]
    if not human or told[0] == told[1]:
        told = [tables.cell(value, human=human) for value in (old, new)]
    return " → ".join(told)


def _is_amount(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _leaves(value: dict[str, Any], *, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field, entry in value.items():
        if isinstance(entry, dict):
            yield from _leaves(entry, prefix=f"{prefix}{field}.")
        else:
            yield prefix + field, entry


def _value(field: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value("", entry) for entry in value) or "–"
    if isinstance(value, float):
        return f"{value:g}"
    return tables.cell(value, human=True)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _entries(items: list[dict[str, Any]]) -> list[str]:
    shown = [{field: _first_names(item, field) for field in item if not field.endswith("_truncated")} for item in items]
    fields = list(dict.fromkeys(field for item in shown for field in item if item[field] is not None))[:COLUMNS_MAX]
    return tables.text_lines(tables.of_fields(shown, fields, human=True))


def _first_names(item: dict[str, Any], field: str) -> Any:
    """A list of names as its first few and how many more: whoever is to mend a broken rule needs names."""
    value = item[field]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value) or not value:
        return value
    left = len(value) - NAMES_MAX
    least = "at least " if item.get(f"{field}_truncated") else ""
    more = f" and {least}{left} others" if left > 0 else ""
    return ", ".join(value[:NAMES_MAX]) + more


def _amounts_table(resource: dict[str, Any], fields: list[str]) -> list[str]:
    """The amounts side by side, a line per class."""
    if not fields:
        return []
    classes = units.class_order({name for field in fields for name in resource[field]})
    words = units.titles(classes)
    rows = [
        [words[name], *(_amount(field, resource[field], name, words[name]) for field in fields)] for name in classes
    ]
    titles = ["class", *(field.replace("_", " ") for field in fields)]
    return ["", *tables.text_lines(Table(titles, rows, frozenset(range(1, len(titles)))))] if rows else []


def _amount(field: str, amounts: dict[str, Any], name: str, word: str) -> str:
    if name in amounts:
        return units.under_title(amounts[name], name, word)
    return "∞" if field == "limits" else "–"
