"""JSON Schema as the command line reads it: what shape a field has, whatever the kind whose field it is.

Only what Berth's own schemas use is understood. What is not is `any`: written as JSON, and checked by the server alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Schema = Mapping[str, Any]

# The shapes. A map has keys that nobody can list beforehand: classes (amounts, ratios) or words of people (texts).
TEXT, CHOICE, TIME, WHOLE, NUMBER, SWITCH = "text", "choice", "time", "whole", "number", "switch"
TEXTS, AMOUNTS, RATIOS, MAP = "texts", "amounts", "ratios", "map"
LIST, ONE_OR_MORE, RULES, OBJECTS, OBJECT, ANY = "list", "one or more", "rules", "objects", "object", "any"
MAPS = frozenset({TEXTS, AMOUNTS, RATIOS, MAP})
_OF_A_MAP = {TEXT: TEXTS, WHOLE: AMOUNTS, NUMBER: RATIOS}
_OF_A_TYPE = {"integer": WHOLE, "number": NUMBER, "boolean": SWITCH}
_A_RULE = ["type", "set", "level"]


class Shape(NamedTuple):
    """What a field is. `schema` is the schema without what was only a reference or a null beside it; `inner` is that of
    a map's values or a list's entries."""

    word: str
    schema: Schema
    is_nullable: bool = False
    inner: "Shape | None" = None

    @property
    def choices(self) -> list[str]:
        return [str(choice) for choice in self.schema.get("enum", ())]

    @property
    def is_of_classes(self) -> bool:
        """Whether a map's keys are resource classes, as their pattern says: cpu and memory may be among them."""
        return any(key.startswith("^[a-z][a-z0-9_]") for key in self.schema.get("patternProperties") or ())


class Field(NamedTuple):
    """One field of a body; those of an object within it have a path of more than one name."""

    path: tuple[str, ...]
    shape: Shape
    is_needed: bool
    description: str

    @property
    def name(self) -> str:
        return self.path[-1]


def shape(schema: Schema, whole: Schema) -> Shape:
    """The shape of a field's schema, which may refer to `$defs` of the whole one."""
    found = _resolved(schema, whole)
    options = [_resolved(option, whole) for option in found.get("anyOf") or found.get("oneOf") or ()]
    if options:
        others = [option for option in options if option.get("type") != "null"]
        is_nullable = len(others) < len(options)
        if len(others) == 1:
            return shape(others[0], whole)._replace(is_nullable=is_nullable)
        shapes = [shape(option, whole) for option in others]
        lists = [one for one in shapes if one.word == LIST]
        if lists and any(one.word == TEXT for one in shapes):
            return Shape(ONE_OR_MORE, lists[0].schema, is_nullable, lists[0].inner)
        return Shape(ANY, found, is_nullable)
    kind = found.get("type")
    if isinstance(kind, list):
        only = [one for one in kind if one != "null"]
        if len(only) != 1:
            return Shape(ANY, found, "null" in kind)
        return shape({**found, "type": only[0]}, whole)._replace(is_nullable="null" in kind)
    if "enum" in found:
        return Shape(CHOICE, found)
    if kind == "string":
        return Shape(TIME if found.get("format") == "date-time" else TEXT, found)
    if kind == "array":
        return _of_a_list(found, whole)
    if kind == "object":
        return _of_an_object(found, whole)
    return Shape(_OF_A_TYPE.get(str(kind), ANY), found)


def fields(body: Schema, *, without: frozenset[str] = frozenset(), depth_max: int = 3) -> list[Field]:
    """All fields of a body; those of an object within it right behind it."""
    found = _fields(body, body, above=(), depth_max=depth_max)
    return [field for field in found if field.path[0] not in without]


def properties(body: Schema) -> Mapping[str, Schema]:
    found = body.get("properties")
    return found if isinstance(found, Mapping) else {}


def needed(body: Schema) -> list[str]:
    found = body.get("required")
    return [str(name) for name in found] if isinstance(found, list) else []


def _fields(schema: Schema, whole: Schema, *, above: tuple[str, ...], depth_max: int) -> list[Field]:
    found: list[Field] = []
    for name, inner in properties(schema).items():
        of = shape(inner, whole)
        said = str(inner.get("description") or "") if "pattern" not in inner else ""
        field = Field((*above, name), of, name in needed(schema), said)
        found.append(field)
        if of.word == OBJECT and depth_max > 1:
            found += _fields(of.schema, whole, above=field.path, depth_max=depth_max - 1)
    return found


def _of_a_list(found: Schema, whole: Schema) -> Shape:
    inner = shape(found.get("items") or {}, whole)
    if inner.word == OBJECT:
        is_rule = needed(inner.schema) == _A_RULE
        return Shape(RULES if is_rule else OBJECTS, found, inner=inner)
    return Shape(LIST if inner.word in (TEXT, CHOICE, TIME, WHOLE, NUMBER) else ANY, found, inner=inner)


def _of_an_object(found: Schema, whole: Schema) -> Shape:
    if properties(found):
        return Shape(OBJECT, found)
    of_values = next(iter((found.get("patternProperties") or {}).values()), found.get("additionalProperties"))
    inner = shape(of_values if isinstance(of_values, Mapping) else {}, whole)
    return Shape(_OF_A_MAP.get(inner.word, MAP), found, inner=inner)


def _resolved(schema: Schema, whole: Schema) -> Schema:
    for _ in range(8):  # a reference to a reference; more is a circle
        target = schema.get("$ref")
        if not isinstance(target, str):
            break
        schema = (whole.get("$defs") or {}).get(target.rpartition("/")[2]) or {}
    return schema
