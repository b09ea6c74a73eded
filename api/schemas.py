"""The JSON Schemas of what is answered, for the description of the API. Requests' are pydantic's own, problems' in
`problem_schemas.py`. Answers are closed: a field that is not told of here is a fault, which the tests of the API find.
"""

from api import problem_schemas
from domain.token import ROLES
from eventlog.codec import FORMER, TOPICS
from projections.field_types import (
    AMOUNTS,
    BOOLEAN,
    INTEGER,
    LABELS,
    MAYBE,
    MAYBE_OBJECT,
    NATURAL,
    OBJECT,
    STRING,
    STRINGS,
    TIME,
    Schema,
    closed,
    enum,
    listed,
    maybe,
    ref,
)
from projections.views import VIEWS

ALL_TOPICS = tuple(sorted({*TOPICS, *FORMER}))


def sorts(*fields: str) -> Schema:
    """Each field, rising and falling; the names are for clients' enums, in which `-name` can't be told from `name`."""
    signed = {
        f"{sign}{field}": f"{field.upper()}{word}" for field in fields for sign, word in (("", ""), ("-", "_FALLING"))
    }
    return {**enum(*signed), "x-enum-varnames": list(signed.values())}


def _list(items: Schema) -> Schema:
    return closed(
        {
            "items": {"type": "array", "items": items},
            "next_cursor": MAYBE,
            "position": NATURAL,
            "count": NATURAL,
            "count_truncated": BOOLEAN,
        },
        optional=("count", "count_truncated"),
    )


# Of resources, their states and what is inside of them.
OF_VIEWS = {name: schema for view in VIEWS.values() for name, schema in view.schemas().items()}

WARNINGS: Schema = {
    "type": "array",
    "description": "What is accepted but probably not intended; absent if nothing is. A repeat has those of the first",
    "items": closed({"field": STRING, "message": STRING, "did_you_mean": STRING}, optional=("did_you_mean",)),
}

EVENT = closed(
    {
        "position": NATURAL,
        "stream": STRING,
        "version": NATURAL,
        "topic": ref("Topic"),
        "at": TIME,
        "actor": STRING,
        "command": STRING,
        "data": OBJECT,
    }
)
CHANGE = closed(
    {
        "position": NATURAL,
        "at": TIME,
        "actor": STRING,
        "command": STRING,
        "topic": ref("Topic"),
        "before": MAYBE_OBJECT,
        "after": MAYBE_OBJECT,
    }
)
AUDIT_ENTRY = closed(
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
        "request": MAYBE_OBJECT,
        "outcome": ref("Outcome"),
        "problem": MAYBE_OBJECT,
        "positions": {"type": "array", "items": NATURAL},
        "operation": MAYBE,
        "created": BOOLEAN,
        "batch": MAYBE,
        "warnings": WARNINGS,
    },
    optional=("warnings",),
)
CAPACITY_ROW = closed(
    {
        "name": MAYBE,
        "hosts": NATURAL,
        "capacity": AMOUNTS,
        "used": AMOUNTS,
        "available": {
            **AMOUNTS,
            "description": "by tenant: without what one of its quotas does not limit, as there is no end to that",
        },
        "largest_fit": AMOUNTS,
        "promised": AMOUNTS,
        "unpromised": AMOUNTS,
    },
    optional=("hosts", "promised", "unpromised"),
)


def answer_to_command(kind: str) -> Schema:
    """The answer of a command on a kind of resource."""
    return closed(
        {
            "command": STRING,
            "position": NATURAL,
            "resource": maybe(ref(kind)),
            "operation": MAYBE,
            "replayed": BOOLEAN,
            "warnings": WARNINGS,
            "secret": {"type": "string", "description": "of a token; in the first answer alone"},
        },
        optional=("warnings", "secret"),
    )


SCHEMAS: dict[str, Schema] = {
    **OF_VIEWS,
    **{f"{view.title}List": _list(ref(view.title)) for view in VIEWS.values()},
    **{f"{view.title}Answer": answer_to_command(view.title) for view in VIEWS.values()},
    **problem_schemas.schemas(),
    "Topic": enum(*ALL_TOPICS),
    "Outcome": enum("accepted", "rejected"),
    "Event": EVENT,
    "EventList": _list(ref("Event")),
    "Change": CHANGE,
    "ChangeList": _list(ref("Change")),
    "AuditEntry": AUDIT_ENTRY,
    "AuditList": _list(ref("AuditEntry")),
    "CapacityRow": CAPACITY_ROW,
    "CapacityList": _list(ref("CapacityRow")),
    "Receipt": {
        **closed(
            {
                "command": STRING,
                "kind": STRING,
                "outcome": ref("Outcome"),
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
        "additionalProperties": True,
        "description": "of a refused command, the fields of its problem too",
    },
    "Scheduled": closed(
        {
            "position": NATURAL,
            "at": TIME,
            "command": STRING,
            "actor": STRING,
            "group": STRING,
            "host": STRING,
            "resources": AMOUNTS,
        }
    ),
    "Explanation": closed(
        {
            "vm": STRING,
            "state": ref("VmState"),
            "host": MAYBE,
            "group": STRING,
            "scheduled": ref("Scheduled"),
            "rules": {"type": "array", "items": ref("Rule")},
            "broken_rules": listed(ref("BrokenRule")),
            "explanation": OBJECT,
        }
    ),
    "Verification": closed(
        {"position": NATURAL, "events": NATURAL, "violations": STRINGS, "differences": STRINGS},
    ),
    "Readiness": closed({"status": {"const": "ready"}, "components": problem_schemas.COMPONENTS}),
    "Kinds": closed({"kinds": listed(ref("Kind")), "strategies": STRINGS, "roles": STRINGS}),
    "Kind": closed(
        {
            "name": STRING,
            "plural": STRING,
            "short": {**STRINGS, "description": "other words for it on the command line"},
            "named_by": {**STRINGS, "description": "the parts of its full name, which are fields of its path"},
            "path": {"type": "string", "description": "where one is read"},
            "list": {"type": "string", "description": "where all are listed"},
            "states": STRINGS,
            "failed_states": {**STRINGS, "description": "in which it is no use to wait for another"},
            "refs": {**LABELS, "description": "by the field that names another resource, that one's kind"},
            "fields": listed(
                closed({"name": STRING, "schema": OBJECT, "description": STRING}, optional=("description",))
            ),
            "filters": listed(closed({"name": STRING, "description": STRING, "schema": OBJECT, "repeatable": BOOLEAN})),
            "sorts": STRINGS,
            "amount_sorts": {**STRINGS, "description": "of each class, such as cpu_available"},
            "columns": {**STRINGS, "description": "the fields that a table shows"},
            "wide": {**STRINGS, "description": "those that a wide one shows too"},
            "amounts": {**STRINGS, "description": "one field, or two to be shown as used/limit; a column a class"},
            "yields": {**STRINGS, "description": "columns that give way in a narrow terminal, the first ones first"},
            "commands": listed(ref("KindCommand")),
        }
    ),
    "KindCommand": closed(
        {
            "name": {"type": "string", "description": "as POST /v1/commands takes it"},
            "verb": {"type": "string", "description": "create, set, delete, or a word of its own"},
            "method": enum("POST", "PUT", "PATCH", "DELETE"),
            "path": STRING,
            "summary": STRING,
            "description": STRING,
            "body": {**OBJECT, "description": "the JSON Schema of the body; what it refers to is in its $defs"},
            "starts_operation": BOOLEAN,
        }
    ),
    "Whoami": closed({"name": STRING, "role": enum(*ROLES), "tenant": MAYBE, "token": STRING}),
    "BatchResult": {
        "type": "object",
        "additionalProperties": True,
        "properties": {"status": INTEGER},
        "required": ["status"],
        "description": "the answer of the command, or its problem",
    },
    "BatchAnswer": closed({"position": NATURAL, "results": {"type": "array", "items": ref("BatchResult")}}),
    "BatchItem": {
        "type": "object",
        "required": ["command"],
        "properties": {
            "command": {"type": "string", "description": "such as vm.provision"},
            "if_match": {
                "anyOf": [STRING, INTEGER],
                "description": "the version that it must have",
            },
        },
        "additionalProperties": True,
        "description": "beside these, the command's body and path fields",
    },
    "Batch": {
        "type": "object",
        "additionalProperties": False,
        "required": ["commands"],
        "properties": {
            "atomic": {"type": "boolean", "default": False, "description": "All or none; at most 200 then"},
            "commands": {"type": "array", "minItems": 1, "maxItems": 1_000, "items": ref("BatchItem")},
        },
    },
}
