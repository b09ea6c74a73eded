"""A value of a file against the schema of its field: what is wrong with it, in words for whoever wrote the file.

Types are as strict as the API's. What only the API can know (does the rack exist?) is left to it.
"""

import re
from typing import Any

from cli import schema
from cli.schema import Schema, Shape

NAME_OF = re.compile(r"\^\[a-z0-9\]\(\[a-z0-9-\]")  # how the pattern of a name begins


def check(path: str, value: Any, of: Schema, whole: Schema) -> str | None:
    """`path: what to write, not what stands there`, or None if it is right. `whole` has the `$defs` of the schema."""
    return _wrong(path, value, schema.shape(of, whole), whole)


def _wrong(path: str, value: Any, shape: Shape, whole: Schema) -> str | None:
    if value is None:
        return None if shape.is_nullable else f"{path}: write a value, not null"
    match shape.word:
        case schema.TEXT | schema.TIME | schema.CHOICE:
            return _text(path, value, shape)
        case schema.WHOLE:
            return _whole(path, value, shape)
        case schema.NUMBER:
            return _number(path, value, shape)
        case schema.SWITCH:
            return None if isinstance(value, bool) else f"{path}: write true or false, not {value!r}"
        case schema.LIST | schema.RULES | schema.OBJECTS:
            return _entries(path, value, shape, whole)
        case schema.ONE_OR_MORE:
            if isinstance(value, list):
                return _entries(path, value, shape, whole)
            return None if isinstance(value, str) else f"{path}: write text or a list of texts, not {value!r}"
        case schema.OBJECT:
            return _object(path, value, shape, whole)
        case schema.TEXTS | schema.AMOUNTS | schema.RATIOS | schema.MAP:
            return _map(path, value, shape, whole)
    return None


def _text(path: str, value: Any, shape: Shape) -> str | None:
    pattern = str(shape.schema.get("pattern") or "")
    is_name = bool(NAME_OF.match(pattern))
    if not isinstance(value, str):
        wanted = (
            "write the name in quotes, as text"
            if is_name
            else ("write text, in quotes if it looks like a number, a date or yes/no")
        )
        return f"{path}: {wanted}, not {value!r}"
    if pattern and not re.search(pattern.replace("$", r"\Z"), value):
        wanted = (
            "a name has 1 to 63 of a–z, 0–9 and inner hyphens (use display_name for the rest)"
            if is_name
            else f"write what matches {pattern}"
        )
        return f"{path}: {wanted}, not {value!r}"
    if shape.choices and value not in shape.choices:
        return f"{path}: write one of {', '.join(shape.choices)}, not {value!r}"
    return None


def _whole(path: str, value: Any, shape: Shape) -> str | None:
    least = shape.schema.get("minimum")
    if not isinstance(value, int) or isinstance(value, bool) or (isinstance(least, int) and value < least):
        return f"{path}: write a whole number{'' if least is None else f' from {least} on'}, not {value!r}"
    return None


def _number(path: str, value: Any, shape: Shape) -> str | None:
    least = shape.schema.get("exclusiveMinimum")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(least, int | float) and value <= least):
        return f"{path}: write a number{'' if least is None else f' above {least:g}, for example 1.5'}, not {value!r}"
    return None


def _entries(path: str, value: Any, shape: Shape, whole: Schema) -> str | None:
    if not isinstance(value, list):
        return f"{path}: write a list, not {value!r}"
    assert shape.inner is not None
    wrong = (_wrong(f"{path}[{at}]", entry, shape.inner, whole) for at, entry in enumerate(value))
    return next((one for one in wrong if one), None)


def _object(path: str, value: Any, shape: Shape, whole: Schema) -> str | None:
    if not isinstance(value, dict):
        return f"{path}: write a mapping, one key: value a line, not {value!r}"
    known = schema.properties(shape.schema)
    for name, entry in value.items():
        if name not in known:
            return f"{path}.{name}: there is no such field; it has {', '.join(known)}"
        if wrong := _wrong(f"{path}.{name}", entry, schema.shape(known[name], whole), whole):
            return wrong
    missing = [name for name in schema.needed(shape.schema) if value.get(name) is None]
    return f"{path}.{missing[0]}: it is missing" if missing else None


def _map(path: str, value: Any, shape: Shape, whole: Schema) -> str | None:
    if not isinstance(value, dict):
        return f"{path}: write a mapping, one key: value a line, not {value!r}"
    assert shape.inner is not None
    for name, entry in value.items():
        if shape.word == schema.AMOUNTS and _whole(path, entry, shape.inner):
            return (
                f"{path}.{name}: write a whole number without quotes, in the unit of its class (memory_mib: 8192), "
                f"not {entry!r}"
            )
        if wrong := _wrong(f"{path}.{name}", entry, shape.inner, whole):
            return wrong
    return None
