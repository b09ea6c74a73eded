"""The JSON Schemas of what is answered, for the description of the API. Requests' are pydantic's own."""

from typing import Any

from api.pages import PROBLEMS

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
MAYBE: Schema = {"type": ["string", "null"]}
INTEGER: Schema = {"type": "integer"}
NATURAL: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
MAYBE_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
OBJECT: Schema = {"type": "object"}
MAYBE_OBJECT: Schema = {"type": ["object", "null"]}
AMOUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
STRINGS: Schema = {"type": "array", "items": STRING}
LABELS: Schema = {"type": "object", "additionalProperties": STRING}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(fields: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "properties": fields, "required": [name for name in fields if name not in optional]}


def _list(items: Schema) -> Schema:
    return _object(
        {
            "items": {"type": "array", "items": items},
            "next_cursor": MAYBE,
            "position": NATURAL,
            "count": NATURAL,
            "count_truncated": BOOLEAN,
        },
        optional=("count", "count_truncated"),
    )


BASE: dict[str, Schema] = {
    "uid": STRING,
    "name": STRING,
    "display_name": MAYBE,
    "external_id": MAYBE,
    "owner": MAYBE,
    "state": STRING,
    "labels": LABELS,
    "description": MAYBE,
    "protected": BOOLEAN,
    "version": NATURAL,
    "created_at": TIME,
    "updated_at": TIME,
}
STEP = _object(
    {"name": STRING, "controller": STRING, "state": STRING, "attempt": INTEGER, "message": MAYBE},
)

RESOURCES: dict[str, Schema] = {
    "Tenant": _object(
        {**BASE, "parent": MAYBE, "suspended": BOOLEAN, "suspended_by": MAYBE, "path": STRINGS, "children": STRINGS}
    ),
    "Rack": _object(
        {
            **BASE,
            "region": STRING,
            "dc": STRING,
            "room": MAYBE,
            "units": {"type": ["integer", "null"]},
            "hosts": NATURAL,
        }
    ),
    "Group": _object(
        {
            **BASE,
            "region": MAYBE,
            "strategy": STRING,
            "overcommit": {"type": "object", "additionalProperties": {"type": "number"}},
            "hosts": NATURAL,
            "capacity": AMOUNTS,
            "used": AMOUNTS,
            "available": AMOUNTS,
        },
        # Sums are not shown to whoever is confined to a tenant.
        optional=("hosts", "capacity", "used", "available"),
    ),
    "Quota": _object(
        {
            **BASE,
            "tenant": STRING,
            "group": STRING,
            "limits": AMOUNTS,
            "used": AMOUNTS,
            "available": AMOUNTS,
            "effective_available": AMOUNTS,
            "over": BOOLEAN,
        }
    ),
    "Host": _object(
        {
            **BASE,
            "group": STRING,
            "rack": MAYBE,
            "unit": {"type": ["integer", "null"]},
            "region": MAYBE,
            "dc": MAYBE,
            "room": MAYBE,
            "capacity": AMOUNTS,
            "used": AMOUNTS,
            "available": AMOUNTS,
            "vms": STRINGS,
            "bmc": MAYBE_OBJECT,
        }
    ),
    "Vm": _object(
        {
            **BASE,
            "tenant": STRING,
            "group": STRING,
            "resources": AMOUNTS,
            "host": MAYBE,
            "rack": MAYBE,
            "dc": MAYBE,
            "region": MAYBE,
            "cluster": MAYBE,
            "pool": MAYBE,
            "image": MAYBE,
            "rules": {"type": "array", "items": OBJECT},
            "rules_broken": BOOLEAN,
            "broken_rules": {
                "type": "array",
                "items": _object(
                    {
                        "type": STRING,
                        "set": STRING,
                        "level": STRING,
                        "max_skew": INTEGER,
                        "vms": STRINGS,
                        "vms_truncated": BOOLEAN,
                    },
                    optional=("set", "max_skew", "vms_truncated"),
                ),
            },
            "addresses": STRINGS,
            "operation": MAYBE,
            "reason": MAYBE,
        }
    ),
    "Operation": _object(
        {
            **BASE,
            "id": STRING,
            "kind": STRING,
            "target": STRING,
            "waiting_for": MAYBE,
            "steps": {"type": "array", "items": STEP},
            "percent": {"type": ["integer", "null"]},
            "message": MAYBE,
            "started_at": TIME,
            "ended_at": MAYBE_TIME,
        }
    ),
    "Token": _object({**BASE, "role": STRING, "tenant": MAYBE, "expires_at": MAYBE_TIME}),
}

WARNINGS: Schema = {
    "type": "array",
    "description": "What is accepted and hardly meant so; absent if nothing is. A repeat has those of the first answer",
    "items": _object({"field": STRING, "message": STRING, "did_you_mean": STRING}, optional=("did_you_mean",)),
}

EVENT = _object(
    {
        "position": NATURAL,
        "stream": STRING,
        "version": NATURAL,
        "topic": STRING,
        "at": TIME,
        "actor": STRING,
        "command": STRING,
        "data": OBJECT,
    }
)
CHANGE = _object(
    {
        "position": NATURAL,
        "at": TIME,
        "actor": STRING,
        "command": STRING,
        "topic": STRING,
        "before": MAYBE_OBJECT,
        "after": MAYBE_OBJECT,
    }
)
AUDIT_ENTRY = _object(
    {
        "id": STRING,
        "position": NATURAL,
        "at": TIME,
        "actor": STRING,
        "role": STRING,
        "token": MAYBE,
        "source": MAYBE,
        "command": STRING,
        "resource": MAYBE,
        "reason": MAYBE,
        "request": {},
        "outcome": {"enum": ["accepted", "rejected"]},
        "problem": MAYBE_OBJECT,
        "positions": {"type": "array", "items": NATURAL},
        "warnings": WARNINGS,
    },
    optional=("warnings",),
)
CAPACITY_ROW = _object(
    {
        "name": MAYBE,
        "capacity": AMOUNTS,
        "used": AMOUNTS,
        "available": AMOUNTS,
        "largest_fit": AMOUNTS,
        "promised": AMOUNTS,
        "unpromised": AMOUNTS,
    },
    optional=("promised", "unpromised"),
)

PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457, with the fields of its code; /problems/{code} says what it means.",
    "properties": {
        "type": STRING,
        "title": STRING,
        "status": INTEGER,
        "detail": STRING,
        "code": {"enum": sorted(PROBLEMS)},
        "instance": STRING,
        "command": MAYBE,
        "errors": {"type": "array", "items": _object({"field": STRING, "message": STRING})},
    },
    "required": ["type", "title", "status", "detail", "code"],
}


def answer_to_command(kind: str) -> Schema:
    """The answer of a command on a kind of resource."""
    return _object(
        {
            "command": STRING,
            "position": NATURAL,
            "resource": {"oneOf": [ref(kind), {"type": "null"}]},
            "operation": MAYBE,
            "replayed": BOOLEAN,
            "warnings": WARNINGS,
            "secret": {"type": "string", "description": "of a token; in the first answer alone"},
        },
        optional=("warnings", "secret"),
    )


SCHEMAS: dict[str, Schema] = {
    **RESOURCES,
    **{f"{name}List": _list(ref(name)) for name in RESOURCES},
    **{f"{name}Answer": answer_to_command(name) for name in RESOURCES},
    "Event": EVENT,
    "EventList": _list(ref("Event")),
    "Change": CHANGE,
    "ChangeList": _list(ref("Change")),
    "AuditEntry": AUDIT_ENTRY,
    "AuditList": _list(ref("AuditEntry")),
    "CapacityRow": CAPACITY_ROW,
    "CapacityList": _list(ref("CapacityRow")),
    "Problem": PROBLEM,
    "Receipt": _object(
        {
            "command": STRING,
            "kind": STRING,
            "outcome": {"enum": ["accepted", "rejected"]},
            "position": NATURAL,
            "at": TIME,
            "actor": STRING,
            "resource": MAYBE_OBJECT,
            "operation": MAYBE,
            "problem": MAYBE_OBJECT,
            "replayed": BOOLEAN,
            "warnings": WARNINGS,
        },
        optional=("warnings",),
    ),
    "Explanation": _object(
        {
            "vm": STRING,
            "state": STRING,
            "host": MAYBE,
            "group": STRING,
            "scheduled": OBJECT,
            "explanation": OBJECT,
        }
    ),
    "Verification": {
        "type": "object",
        "properties": {
            "position": NATURAL,
            "events": NATURAL,
            "violations": {"type": "array"},
            "differences": {"type": "array"},
        },
        "required": ["position", "events", "violations", "differences"],
    },
    "Whoami": _object({"name": STRING, "role": STRING, "tenant": MAYBE, "token": STRING}),
    "BatchAnswer": _object(
        {"position": NATURAL, "results": {"type": "array", "items": _object({"status": INTEGER})}},
    ),
    "Batch": {
        "type": "object",
        "additionalProperties": False,
        "required": ["commands"],
        "properties": {
            "atomic": {"type": "boolean", "default": False, "description": "All or none; at most 200 then"},
            "commands": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1_000,
                "items": {
                    "type": "object",
                    "required": ["command"],
                    "properties": {
                        "command": {"type": "string", "description": "such as vm.provision"},
                        "if_match": {"type": ["string", "integer"], "description": "the version that it must have"},
                    },
                    "description": "beside these, the command's body and path fields",
                },
            },
        },
    },
}
