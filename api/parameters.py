"""Query and header parameters, declared once: read from a request by it, and described in OpenAPI by it."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from api.csv_rows import CLASSES_MAX
from commands.characters import prose
from domain.errors import Validation
from domain.values import AMOUNT_MAX, from_rfc3339

POSITION_MAX = 2**63 - 1
LIMIT_DEFAULT, LIMIT_MAX = 100, 1_000
WAIT_S_MAX = 60
QUERY_ERRORS_MAX = 50
PARAMETERS_MAX = 200
REASON_CHARACTERS_MAX = 2_000
REASON_BYTES_MAX = REASON_CHARACTERS_MAX * 4 * 3  # each of four bytes, each byte as %xx
TEXT_CHARACTERS_MAX = 500
HINTS_MAX = 5  # of what is unknown, the first few get a suggestion: to find one costs more than all else about it
KEY = re.compile(r"[A-Za-z0-9._:-]{1,64}")
CLASS_NAME = r"[a-z][a-z0-9_]{0,62}"
IS_CLASS = re.compile(rf"{CLASS_NAME}\Z").match
BATCH_KEY_CHARACTERS_MAX = 60

Read = Callable[[str], Any]


class Parameter(msgspec.Struct, frozen=True):
    """`read` turns the text into the value, or raises ValueError with what is wrong with it, in words."""

    name: str
    description: str
    read: Read
    schema: dict[str, Any]
    repeatable: bool = False
    required: bool = False


class Moment(msgspec.Struct, frozen=True):
    """A place in the log: a position, or a time (microseconds since 1970)."""

    position: int | None = None
    at: int | None = None


def text(value: str) -> str:
    if "\0" in value:
        raise ValueError("a NUL character is not allowed")
    if len(value) > TEXT_CHARACTERS_MAX:
        raise ValueError(f"at most {TEXT_CHARACTERS_MAX} characters")
    return value


def one_of(*choices: str) -> Read:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value == "true"


def whole(least: int, most: int) -> Read:
    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
            raise ValueError(f"must be a whole number from {least} to {most}")
        return int(value)

    return read


def time(value: str) -> int:
    try:
        return from_rfc3339(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-11-24T15:00:00Z") from None


def moment(value: str) -> Moment:
    if value.isascii() and value.isdigit():
        return Moment(position=whole(0, POSITION_MAX)(value))
    try:
        return Moment(at=time(value))
    except ValueError:
        raise ValueError("must be a position or a time such as 2026-11-24T15:00:00Z") from None


def class_names(value: str) -> list[str]:
    names = value.split(",") if value else []
    if len(names) > CLASSES_MAX or len(set(names)) < len(names) or not all(map(IS_CLASS, names)):
        raise ValueError(f"must be at most {CLASSES_MAX} resource classes, each once, with commas between them")
    return names


def label(value: str) -> tuple[str, str]:
    key, equals, wanted = text(value).partition("=")
    if not equals or not key:
        raise ValueError("must be written as key=value")
    return key, wanted


STRING: dict[str, Any] = {"type": "string", "maxLength": TEXT_CHARACTERS_MAX}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
POSITION: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}
TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
MOMENT: dict[str, Any] = {"anyOf": [POSITION, TIME]}

DRY_RUN = Parameter("dry_run", "true: decide and answer, but write nothing", flag, BOOLEAN)
MIN_POSITION = Parameter(
    "min_position", "Wait until reads have reached this position (5 s at most)", whole(0, POSITION_MAX), POSITION
)
AS_OF = Parameter("as_of", "The state at this position or time", moment, MOMENT)
LIMIT = Parameter(
    "limit",
    f"The most items of a page; {LIMIT_DEFAULT} by default",
    whole(1, LIMIT_MAX),
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
)
ROWS_LIMIT = msgspec.structs.replace(
    LIMIT,
    description=f"The most items of a page; {LIMIT_MAX} by default",
    schema={**LIMIT.schema, "default": LIMIT_MAX},
)
CURSOR = Parameter("cursor", "`next_cursor` of the page before", text, STRING)
SORT = Parameter("sort", "A field to sort by; a leading `-` sorts descending", text, STRING)
BY_POSITION = msgspec.structs.replace(
    SORT,
    schema={"type": "string", "enum": ["position", "-position"], "x-enum-varnames": ["POSITION", "POSITION_FALLING"]},
)
COUNT = Parameter("count", "true: also count all that match", flag, BOOLEAN)
EXCEL = Parameter(
    "excel", "true: CSV for spreadsheets, with a byte-order mark and no cell that begins like a formula", flag, BOOLEAN
)
CLASSES = Parameter(
    "classes",
    "Of CSV: the classes that have columns of their own, with commas between them; the first page's `Link` names them"
    " for the next ones. All that are known by default",
    class_names,
    {"type": "string", "maxLength": 64 * CLASSES_MAX, "pattern": f"^({CLASS_NAME}(,{CLASS_NAME})*)?$"},
)
FULL = Parameter("full", "true: also compare every checkpoint with the replay", flag, BOOLEAN)
SEARCH = Parameter("q", "Free text: in names and descriptions", text, STRING)
LABEL = Parameter("label", "A label that it must have: key=value", label, STRING, repeatable=True)


def filter_by(name: str, description: str = "") -> Parameter:
    return Parameter(name, description or f"Only those of this {name}", text, STRING)


def by_schema(name: str, description: str, schema: Mapping[str, Any]) -> Parameter:
    """A filter, whose texts are read as its schema says."""
    match schema:
        case {"enum": [*choices]}:
            return Parameter(name, description, one_of(*choices), dict(schema))
        case {"type": "boolean"}:
            return Parameter(name, description, flag, BOOLEAN)
        case {"type": "integer"}:
            return Parameter(name, description, whole(0, AMOUNT_MAX), dict(schema))
        case {"format": "date-time"}:
            return Parameter(name, description, time, TIME)
        case {"type": "string"}:
            return Parameter(name, description, text, STRING)
        case _:
            raise AssertionError(f"nobody knows how the filter {name} is written in a query: {schema}")


def query(scope: Mapping[str, Any], declared: Mapping[str, Parameter]) -> dict[str, Any]:
    """The values of the query's parameters; repeatable ones as lists.

    Raises:
        Validation: an unknown or repeated parameter, or a value that can't be read; all of them at once.
    """
    raw: bytes = scope["query_string"]
    if not raw:
        given: list[tuple[str, str]] = []
    else:
        try:
            given = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX
            )
        except ValueError:
            raise Validation([{"field": "query:", "message": "it is not UTF-8, or has too many parameters"}]) from None
    values: dict[str, Any] = {}
    errors: list[dict[str, str]] = []
    for name, value in given:
        parameter = declared.get(name)
        if parameter is None:
            hints = len(errors) < HINTS_MAX
            message = unknown("parameter", name, list(declared), hints=hints)
            errors.append({"field": f"query:{name[:100]}", "message": message})
            continue
        try:
            read = parameter.read(value)
        except ValueError as error:
            errors.append({"field": f"query:{name}", "message": str(error)})
            continue
        if parameter.repeatable:
            values.setdefault(name, []).append(read)
        elif name in values:
            errors.append({"field": f"query:{name}", "message": "is given twice"})
        else:
            values[name] = read
    complained = {error["field"] for error in errors}
    errors += [
        {"field": f"query:{name}", "message": "is needed"}
        for name, parameter in declared.items()
        if parameter.required and name not in values and f"query:{name}" not in complained
    ]
    if errors:
        raise Validation(errors[:QUERY_ERRORS_MAX])
    return values


def names_in(raw: bytes) -> set[bytes]:
    """The names that `query` will find; of a query that it refuses for its length, none."""
    if raw.count(b"&") >= PARAMETERS_MAX:
        return set()
    return {unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")) for part in raw.split(b"&")}


def unknown(what: str, name: str, known: Sequence[str], *, hints: bool = True) -> str:
    if not hints:
        return f"unknown {what}"
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}" if 0 < len(known) <= 20 else ""
    return f"unknown {what}{hint}"


# ── headers ──


def idempotency_key(raw: bytes, *, longest: int = 64) -> str:
    """Raises Validation unless it is 1–`longest` of [A-Za-z0-9._:-], in quotes or not."""
    key = raw.decode("latin-1").strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not KEY.fullmatch(key) or len(key) > longest:
        raise _header("Idempotency-Key", f"must be 1 to {longest} of A-Z, a-z, 0-9 and . _ : -")
    return key


def entity_version(raw: bytes, *, header: str, any_version: int) -> int:
    """The version in `"<version>"`; `*` gives `any_version`."""
    value = raw.decode("latin-1").strip()
    if value == "*":
        return any_version
    number = value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else ""
    if not (number.isascii() and number.isdigit() and len(number) < 20):
        raise _header(header, 'must be one version in quotes as ETag gives it, such as "4711", or *')
    return int(number)


def create_only(raw: bytes) -> bool:
    if raw.strip() != b"*":
        raise _header("If-None-Match", "only * is possible here: do nothing if it exists")
    return True


def wait_s(raw: bytes) -> float:
    """Seconds to wait, from `Prefer: wait=<seconds>`; other preferences are ignored, as RFC 7240 asks."""
    for preference in raw.decode("latin-1").replace(";", ",").split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            value = value.strip().strip('"')
            if not (value.isascii() and value.isdigit()):
                raise _header("Prefer", "wait takes whole seconds, such as wait=10")
            return float(min(int(value[:9]), WAIT_S_MAX))
    return 0.0


def reason(raw: bytes) -> str | None:
    """Berth-Reason: UTF-8, percent-encoded outside printable ASCII."""
    try:
        if not raw.isascii():
            raise ValueError
        if len(raw) > REASON_BYTES_MAX:
            raise _header("Berth-Reason", f"at most {REASON_CHARACTERS_MAX} characters, without NUL")
        words = unquote_to_bytes(raw.decode("ascii")).decode()
    except ValueError:
        raise _header("Berth-Reason", "must be UTF-8, percent-encoded outside printable ASCII") from None
    if len(words) > REASON_CHARACTERS_MAX:
        raise _header("Berth-Reason", f"at most {REASON_CHARACTERS_MAX} characters")
    try:
        return prose(words).strip() or None
    except ValueError as error:
        raise _header("Berth-Reason", str(error)) from None


def _header(name: str, message: str) -> Validation:
    return Validation([{"field": f"header:{name}", "message": message}])
