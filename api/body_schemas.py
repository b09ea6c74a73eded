"""The JSON Schema of a command's body: the model's, without what stands in the path."""

import re
from typing import Any

from commands.model import Command

Schema = dict[str, Any]


def body_schema(model: type[Command], *, ref_template: str = "#/$defs/{model}") -> Schema:
    """With what it refers to in `$defs`; without properties if there is nothing to say."""
    assert model.route is not None, f"{model.kind} is not given over HTTP"
    schema = model.model_json_schema(ref_template=ref_template)
    in_path = path_fields(model.route.path)
    schema["properties"] = {name: field for name, field in schema["properties"].items() if name not in in_path}
    schema["required"] = [name for name in schema.get("required", ()) if name not in in_path]
    if model.route.method == "PATCH":
        _without_defaults(schema, *schema.get("$defs", {}).values())
    return schema


def path_fields(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"{(\w+)", path))


def _without_defaults(*schemas: Schema) -> None:
    """In a merge patch a field that is absent stays as it is: it has no default."""
    for schema in schemas:
        for field in schema.get("properties", {}).values():
            field.pop("default", None)
