"""What pydantic found wrong, as the contract tells it: a JSON Pointer and a sentence for each."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from api.parameters import unknown

ERRORS_MAX = 50

Location = tuple[str | int, ...]


def errors_of(error: ValidationError, document: Any, *, known: Sequence[str], under: str = "") -> list[dict[str, str]]:
    """One {`field`, `message`} a field. `known` are the fields that there are; `under` is where `document` stands."""
    found: dict[Location, tuple[bool, str]] = {}
    for raw in error.errors(include_url=False, include_context=True, include_input=False):
        location, by_union = _located(raw["loc"], document, names_absent=raw["type"] == "missing")
        # Of a union's branches, the first complaint at a place is enough.
        found.setdefault(location, (by_union, _sentence(raw, location, known)))
    # A branch that went deeper came closer to what was meant than those that refused the whole.
    closest = {
        location: message
        for location, (by_union, message) in found.items()
        if not (by_union and any(len(other) > len(location) and other[: len(location)] == location for other in found))
    }
    return [
        {"field": under + "".join(f"/{_escaped(part)}" for part in location), "message": message}
        for location, message in list(closest.items())[:ERRORS_MAX]
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


def _sentence(raw: Any, location: Location, known: Sequence[str]) -> str:
    kind, context = raw["type"], raw.get("ctx") or {}
    match kind:
        case "missing":
            return "is needed"
        case "extra_forbidden":
            return unknown("field", str(location[-1])[:100], known if len(location) == 1 else [])
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
    """RFC 6901."""
    return str(part).replace("~", "~0").replace("/", "~1")
