"""A problem of the API as lines for a person: what, what to do about it, then the facts that the sentence rests on."""

from string import Formatter
from typing import Any

from cli import operations, tables, terminal, units
from cli.tables import Table

# Shown by the first two lines, or of no use to a person.
QUIET = {"type", "title", "status", "detail", "code", "instance", "command", "did_you_mean", "name", "kind", "resource"}
QUIET |= {"index", "ways_out"}  # the place of a command in a request that the CLI made; said as what to type
FLAGS = {
    "/reason": "--reason",
    "query:as_of": "--as-of",
    "query:sort": "--sort",
    "query:state": "--state",
    "query:updated_since": "--updated-since",
    "header:Idempotency-Key": "--idempotency-key",
    "header:Berth-Reason": "--reason",
}
# code: what one can do about it with this command line, where the problem's own fields fill the blanks.
NEXT = {
    "forbidden": "`berth whoami` shows your role and scope",
    "suspended": "`berth resume tenant {tenant}` lifts it",
    "no_quota": "`berth set quota {group}/{tenant} --cpu 8` gives it one of 8 vCPU",
    "below_use": "with --force, where the verb has it, what runs stays and is over the limit",
    "protected": "`berth set {kind} {name} --no-protected` lifts it",
    "operation_failed": "`berth describe operation {operation}` shows its steps",
    "invalid_state": "`berth describe operation {operation}` shows what is under way",
    "version_mismatch": "repeat it: what is there now is read first",
}


def lines(problem: dict[str, Any]) -> list[str]:
    """The problem, one line each, without a trailing newline."""
    code = str(problem.get("code") or problem.get("status") or "")
    title = str(problem.get("title") or code or "Refused")
    first = title if not code or code.lower() == title.lower().replace(" ", "_") else f"{title} ({code})"
    shown = [f"berth: {terminal.printable(first)}"]
    detail = problem.get("detail") if code != "unauthenticated" else None  # which speaks of headers
    # Of bad input the detail is the first of the errors, which follow all.
    if detail and _text(detail) not in _as_sent(problem.get("errors") or ()):
        shown += _indented(_text(detail).split("\n"))
    for field, value in problem.items():
        if field in QUIET or value is None or value in ([], {}):
            continue
        shown += _indented(FIELDS.get(field, _plain)(field, value))
    suggestion = problem.get("did_you_mean")
    if suggestion and "did you mean" not in str(detail).lower():
        shown += _indented([f"did you mean {_listed(suggestion)}?"])
    if code == "unauthenticated":
        shown += _indented(
            [
                "no token was sent, or one that is unknown, revoked or expired",
                "say who you are: `berth login URL`, BERTH_TOKEN, or --token-file FILE",
            ]
        )
    shown += _indented(_next(code, problem))
    command = problem.get("command")
    if command and problem.get("instance"):  # without it, it only has a number: nothing of it is kept
        shown += _indented([f"recorded as command {_text(command)}"])
    return shown


def _next(code: str, problem: dict[str, Any]) -> list[str]:
    if (ways := problem.get("ways_out")) and problem.get("operation"):
        typed = operations.commands(_text(problem["operation"]), [_text(way) for way in ways])
        return ["the ways out:", *_indented(typed)]
    wanted = NEXT.get(code)
    if wanted is None:
        return []
    blanks = {name for _, name, _, _ in Formatter().parse(wanted) if name}
    values = {name: _text(problem[name]) for name in blanks if isinstance(problem.get(name), str)}
    return [wanted.format(**values)] if len(values) == len(blanks) else []


def _shortfalls(field: str, value: Any) -> list[str]:
    """Per class and tenant of the chain; a tenant above the token's scope has its limit hidden."""
    rows = []
    words = units.titles({str(entry.get("resource")) for entry in value})
    for entry in value:
        name = str(entry.get("resource"))
        word = words[name]
        amounts = (entry.get(part) for part in ("limit", "used", "requested", "short"))
        rows.append([_text(entry.get("tenant")), word, *(units.under_title(amount, name, word) for amount in amounts)])
    return tables.text_lines(
        Table(["tenant", "class", "limit", "used", "requested", "short"], rows, frozenset({2, 3, 4, 5}))
    )


def _reasons(field: str, value: Any) -> list[str]:
    ordered = sorted(value, key=lambda entry: -int(entry.get("hosts") or 0))
    rows = [[_text(entry.get("reason")), str(entry.get("hosts"))] for entry in ordered]
    return tables.text_lines(Table(["why not", "hosts"], rows, frozenset({1})))


def _nearest(field: str, value: Any) -> list[str]:
    return [f"nearest: host {_text(value.get('host'))} lacks {_amounts(value.get('short') or {})}"]


def _amounts_line(field: str, value: Any) -> list[str]:
    words = {"largest_fit": "the largest of this shape that would fit", "requested": "requested"}
    return [f"{words.get(field, field.replace('_', ' '))}: {_amounts(value)}"]


def _alternatives(field: str, value: Any) -> list[str]:
    rows = [
        [_text(entry.get("group")), str(entry.get("hosts")), "yes" if entry.get("quota_ok") else "no"]
        for entry in value
    ]
    return [
        "groups that would take it now:",
        *tables.text_lines(Table(["group", "hosts", "has quota"], rows, frozenset({1}))),
    ]


def _errors(field: str, value: Any) -> list[str]:
    return [f"{_flag(_text(entry.get('field')))}: {_text(entry.get('message'))}" for entry in value]


def _as_sent(errors: Any) -> list[str]:
    """Each of the errors as the server's own sentence has it."""
    return [f"{_text(entry.get('field'))}: {_text(entry.get('message'))}" for entry in errors]


def _flag(field: str) -> str:
    """What this command line calls that part of a request."""
    return FLAGS.get(field, field)


def _considered(field: str, value: Any) -> list[str]:
    return [f"hosts considered: {value}"]


def _groups(field: str, value: Any) -> list[str]:
    """Where the tenant has quota (names), or, of a request for several groups, each one's own problem."""
    if not isinstance(value, dict) and not all(isinstance(entry, dict) for entry in value):
        return [f"has quota in: {_listed(value)}"]
    named = value.items() if isinstance(value, dict) else ((entry.get("group"), entry) for entry in value)
    return [f"{_text(group)}: {_text(problem.get('detail') or problem.get('code'))}" for group, problem in named]


def _plain(field: str, value: Any) -> list[str]:
    """Any other fact, those of codes that are younger than this too: entries as a table, a mapping as pairs."""
    title = field.replace("_", " ")
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        fields = list(dict.fromkeys(name for entry in value for name in entry))
        table = tables.of_fields(value, fields, human=True)
        return [f"{terminal.printable(title)}:", *_indented(tables.text_lines(table))]
    return [f"{terminal.printable(title)}: {tables.cell(value, human=True, field=field)}"]


FIELDS = {
    "errors": _errors,
    "shortfalls": _shortfalls,
    "reasons": _reasons,
    "nearest": _nearest,
    "largest_fit": _amounts_line,
    "requested": _amounts_line,
    "alternatives": _alternatives,
    "considered": _considered,
    "groups": _groups,
}


def _amounts(value: Any) -> str:
    if not isinstance(value, dict):
        return _text(value)
    order = units.class_order(set(value))
    words = units.titles(order)
    return ", ".join(f"{words[name]} {units.under_title(value[name], name, words[name])}" for name in order)


def _listed(value: Any) -> str:
    return ", ".join(_text(entry) for entry in value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    return "–" if value is None else terminal.printable(str(value))


def _indented(given: list[str]) -> list[str]:
    return [f"  {line}" for line in given]
