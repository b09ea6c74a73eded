"""The types of fields, as JSON Schema. Objects are closed: a field that is not told of is a fault."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Text
from sqlalchemy.types import TypeEngine

Schema = dict[str, Any]

# Names compare by their bytes, as Python compares them, so that order and cursors are the same on any machine.
Name = Text(collation="C")

STRING: Schema = {"type": "string"}
MAYBE: Schema = {"type": ["string", "null"]}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
MAYBE_INTEGER: Schema = {"type": ["integer", "null"]}
NATURAL: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
STRINGS: Schema = {"type": "array", "items": STRING}
LABELS: Schema = {"type": "object", "additionalProperties": STRING}
AMOUNTS: Schema = {"type": "object", "additionalProperties": INTEGER}
MAYBE_AMOUNTS: Schema = {"type": ["object", "null"], "additionalProperties": INTEGER}
RATIOS: Schema = {"type": "object", "additionalProperties": {"type": "number"}}
# A document of another time or kind: what it holds is its own schema's matter.
OBJECT: Schema = {"type": "object", "additionalProperties": True}
MAYBE_OBJECT: Schema = {"type": ["object", "null"], "additionalProperties": True}


def enum(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def ref(name: str) -> Schema:
    """To a schema that is told of once, under a name of its own."""
    return {"$ref": f"#/components/schemas/{name}"}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def closed(fields: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": fields,
        "required": [name for name in fields if name not in optional],
    }


def may_be_null(schema: Schema) -> bool:
    return "null" in schema.get("type", ()) or any(may_be_null(one) for one in schema.get("anyOf", ()))


def not_null(schema: Schema) -> Schema:
    """The same without null: what it can be asked for."""
    types = schema.get("type")
    if not isinstance(types, list):
        return schema
    rest = [one for one in types if one != "null"]
    return {**schema, "type": rest[0] if len(rest) == 1 else rest}


def compared_as(schema: Schema) -> TypeEngine[Any]:
    """The type of the column (or expression) by which a field of this type is filtered and sorted: times are
    microseconds since 1970."""
    types = schema.get("type", "string")
    if "integer" in types or schema.get("format") == "date-time":
        return BigInteger()
    return Boolean() if "boolean" in types else Text()
