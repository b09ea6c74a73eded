"""What pydantic found wrong, as the contract tells it: a JSON Pointer and a sentence for each."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from pydantic import ValidationError

from api.parameters import HINTS_MAX, unknown

ERRORS_MAX = 50
NAME_CHARACTERS_MAX = 200  # of a field that is told; a stranger's may have a million
MESSAGE_CHARACTERS_MAX = 500

Location = tuple[str | int, ...]


class Most(NamedTuple):
    """So many errors are told, and the first of them with a suggestion."""

    errors: int = ERRORS_MAX
    hints: int = HINTS_MAX


MOST = Most()


def errors_of(
    error: ValidationError, document: Any, *, known: Sequence[str], most: Most = MOST
) -> list[dict[str, str]]:
    """One {`field`, `message`} a field, of the first ones. `known` are the fields that there are."""
    found: dict[Location, tuple[bool, Any]] = {}
    for raw in error.errors(include_url=False, include_context=True, include_input=False):
        location, by_union = _located(raw["loc"], document, names_absent=raw["type"] == "missing")
        # Of a union's branches, the first complaint at a place is enough.
        found.setdefault(location, (by_union, raw))
    # A branch that went deeper came closer to what was meant than those that refused the whole.
    with_more_inside = {location[:length] for location in found for length in range(len(location))}
    closest = (
        (location, raw)
        for location, (by_union, raw) in found.items()
        if not (by_union and location in with_more_inside)
    )
    told = islice(closest, most.errors)
    return [
        {
            "field": "".join(f"/{_escaped(part)}" for part in location),
            "message": _sentence(raw, location, known, hints=n < most.hints)[:MESSAGE_CHARACTERS_MAX],
        }
        for n, (location, raw) in enumerate(told)
    ]


def unknown_members(document: Mapping[str, Any], known: Sequence[str], *, most: Most = MOST) -> list[dict[str, str]]:
    """The first of the members that there are not, at the cost of a look at each: pydantic would make an error of
    every one of a stranger's."""
    strangers = islice((name for name in document if name not in known), most.errors)
    return [
        {"field": f"/{_escaped(name)}", "message": unknown("field", name, known, hints=n < most.hints)}
        for n, name in enumerate(strangers)
    ]


def _located(given: Location, document: Any, *, names_absent: bool) -> tuple[Location, bool]:
    """The location in the document: pydantic's also names branches of unions and `[key]`, which are no fields."""
    path: list[str | int] = []
    here = document
    by_union = False
    for n, part in enumerate(given):
        if (inner := _inside(here, part)) is not OUTSIDE:
            here = inner
        elif not names_absent or n < len(given) - 1:
            by_union = by_union or part != "[key]"
            continue
        path.append(part)
    return tuple(path), by_union


OUTSIDE = object()


def _inside(here: Any, part: str | int) -> Any:
    if isinstance(here, dict):
        return here.get(part, OUTSIDE)
    return here[part] if isinstance(here, list) and isinstance(part, int) and part < len(here) else OUTSIDE


def _sentence(raw: Any, location: Location, known: Sequence[str], *, hints: bool) -> str:
    kind, context = raw["type"], raw.get("ctx") or {}
    match kind:
        case "missing":
            return "is needed"
        case "extra_forbidden":
            return unknown("field", str(location[-1]), known if len(location) == 1 else [], hints=hints)
        case "value_error":
            return str(context["error"])
        case "string_pattern_mismatch" if raw["loc"] and raw["loc"][-1] == "[key]":
            return f"the key must match {context['pattern']}"
        case "string_pattern_mismatch" if "[a-z0-9]([a-z0-9-]" in context["pattern"]:
            return "must be a name: 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
        case "int_type" | "int_from_float" | "int_parsing":
            return "must be a whole number"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "greater_than":
            return f"must be above {context['gt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "string_type":
            return "must be a text"
        case "bool_type":
            return "must be true or false"
        case "dict_type" | "model_type":
            return "must be an object"
        case "list_type":
            return "must be a list"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "string_too_long":
            return f"at most {context['max_length']} characters"
        case "string_too_short":
            return f"at least {context['min_length']} characters"
        case "too_long":
            return f"at most {context['max_length']} entries"
        case "too_short":
            return f"at least {context['min_length']} entries"
        case _:
            return str(raw["msg"])[:1].lower() + str(raw["msg"])[1:]


def _escaped(part: str | int) -> str:
    """RFC 6901; a name that is too long is cut."""
    name = str(part)
    if len(name) > NAME_CHARACTERS_MAX:
        name = name[:NAME_CHARACTERS_MAX] + "…"
    return name.replace("~", "~0").replace("/", "~1")
