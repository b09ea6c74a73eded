"""The JSON Schema of each problem, by its code, and the answers of each status made from them."""

from api.problem_texts import PROBLEMS
from projections.field_types import AMOUNTS, BOOLEAN, INTEGER, MAYBE, MAYBE_AMOUNTS, STRING, STRINGS, Schema, closed

GROUP: Schema = {
    "description": "as it was asked for: a name, a list of names, or *",
    "anyOf": [STRING, STRINGS],
}
# Of a request that named several groups: the problem of each, with its name in `group`.
GROUPS: Schema = {"type": "array", "items": {"type": "object", "additionalProperties": True}}


def _list_of(fields: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return {"type": "array", "items": closed(fields, optional=optional)}


# How each component of the platform fares, when some is not ready, and when all are.
COMPONENTS = _list_of(
    {
        "name": STRING,
        "state": {"enum": ["ok", "troubled", "stopped", "silent"]},
        "reason": STRING,
        "ready": {"type": "boolean"},
    }
)
ERRORS = _list_of({"field": STRING, "message": STRING})

# code → its own fields; the names of those that may be absent
FIELDS: dict[str, tuple[dict[str, Schema], tuple[str, ...]]] = {
    "malformed": ({"errors": ERRORS}, ()),
    "validation": ({"errors": ERRORS}, ()),
    "unauthenticated": ({}, ()),
    "forbidden": ({"permission": STRING}, ()),
    "not_found": ({"kind": STRING, "name": STRING, "did_you_mean": MAYBE}, ()),
    "method_not_allowed": ({"method": STRING, "allowed": STRINGS}, ()),
    "too_large": ({"limit": INTEGER}, ()),
    "too_slow": ({"bytes_per_s_min": INTEGER}, ()),
    "unsupported_media_type": ({"accepted": STRINGS}, ()),
    "already_exists": ({"kind": STRING, "name": STRING, "used_by": STRINGS}, ("used_by",)),
    "in_use": ({"kind": STRING, "name": STRING, "used_by": STRINGS}, ()),
    "conflict": ({"name": STRING, "used_by": STRINGS}, ("used_by",)),
    "invalid_state": (
        {
            "kind": STRING,
            "name": STRING,
            "state": STRING,
            "allowed": STRINGS,
            "operation": {"type": ["string", "null"], "description": "the one that runs or is stuck there"},
            "ways_out": STRINGS,
        },
        (),
    ),
    "protected": ({"kind": STRING, "name": STRING}, ()),
    "quota_exceeded": (
        {
            "tenant": STRING,
            "group": GROUP,
            "shortfalls": _list_of(
                {
                    "resource": STRING,
                    "limit": {"type": ["integer", "null"]},
                    "used": {"type": ["integer", "null"]},
                    "requested": INTEGER,
                    "short": INTEGER,
                    "tenant": MAYBE,
                    "group": MAYBE,
                }
            ),
            "groups": GROUPS,
            "groups_truncated": BOOLEAN,
        },
        ("groups", "groups_truncated"),
    ),
    "no_quota": ({"tenant": STRING, "group": GROUP, "groups": STRINGS}, ()),
    "no_capacity": (
        {
            "group": GROUP,
            "requested": AMOUNTS,
            "considered": INTEGER,
            "reasons": _list_of({"reason": STRING, "hosts": INTEGER}),
            "nearest": {
                "anyOf": [closed({"host": STRING, "short": AMOUNTS}), {"type": "null"}],
                "description": "the host that lacks least; left out for who is confined to a tenant",
            },
            "largest_fit": MAYBE_AMOUNTS,
            "alternatives": _list_of({"group": STRING, "hosts": INTEGER, "quota_ok": BOOLEAN}),
            "alternatives_truncated": BOOLEAN,
            "groups": GROUPS,
            "groups_truncated": BOOLEAN,
        },
        ("nearest", "alternatives_truncated", "groups", "groups_truncated"),
    ),
    "below_use": ({"would_break": {"type": "array", "items": {"type": "object", "additionalProperties": True}}}, ()),
    "suspended": ({"tenant": STRING}, ()),
    "aborted": ({}, ()),
    "operation_failed": (
        {"operation": STRING, "step": MAYBE, "reason": MAYBE, "resource": {"type": ["object", "null"]}},
        (),
    ),
    "version_mismatch": ({"version": INTEGER}, ()),
    "idempotency_mismatch": ({}, ()),
    "rate_limited": (
        {"limit_per_s": {"type": "number"}, "after_s": {"type": "number"}, "what": STRING, "at_once": INTEGER},
        ("limit_per_s", "after_s", "what", "at_once"),  # too often, or too much at once
    ),
    "unavailable": ({"components": COMPONENTS}, ("components",)),  # of /readyz
    "internal": ({}, ()),
}

# What stands in every problem, or may.
COMMON: dict[str, Schema] = {
    "type": STRING,
    "title": STRING,
    "status": INTEGER,
    "detail": {"type": "string", "description": "what to do next, in words"},
    "instance": {"type": "string", "description": "where a recorded refusal is read"},
    "command": {"type": ["string", "null"], "description": "the command's id"},
    "index": {"type": "integer", "description": "of the item of an atomic batch that failed"},
}
MAY_BE_ABSENT = ("instance", "command", "index")


def name_of(code: str) -> str:
    """The schema's name: `quota_exceeded` → `QuotaExceededProblem`."""
    return "".join(word.capitalize() for word in code.split("_")) + "Problem"


def schemas() -> dict[str, Schema]:
    """One a code."""
    return {name_of(code): _schema(code) for code in PROBLEMS}


def _schema(code: str) -> Schema:
    own, optional = FIELDS[code]
    absent = (*MAY_BE_ABSENT, *optional)
    # Of others' refusals a scope shows the bare fact: only what every problem has is sure to be there.
    fields = {**COMMON, "code": {"const": code, "type": "string"}, **own}
    return {
        **closed(fields, optional=absent),
        "description": PROBLEMS[code][1].replace("<code>", "`").replace("</code>", "`"),
    }


def responses() -> dict[str, Schema]:
    """`Problem409` and so on: what may come with each status."""
    by_status: dict[int, list[str]] = {}
    for code, (status, _, _) in PROBLEMS.items():
        by_status.setdefault(status, []).append(code)
    return {response_name(status): _response(codes) for status, codes in sorted(by_status.items())}


def response_name(status: int) -> str:
    return f"Problem{status}"


def _response(codes: list[str]) -> Schema:
    refs = [{"$ref": f"#/components/schemas/{name_of(code)}"} for code in codes]
    schema: Schema = refs[0]
    if len(refs) > 1:
        schema = {
            "oneOf": refs,
            "discriminator": {
                "propertyName": "code",
                "mapping": {code: ref["$ref"] for code, ref in zip(codes, refs, strict=True)},
            },
        }
    return {
        "description": "Refused: " + ", ".join(f"`{code}`" for code in codes),
        "content": {"application/problem+json": {"schema": schema}},
    }
