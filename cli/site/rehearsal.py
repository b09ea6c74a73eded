"""What the server would say to a plan, asked in dry run and all at once: a step may refer to what another one makes.

    steps ─► parts of at most 200 commands ─► POST /v1/commands?dry_run=true, atomic ─► nothing, or the first refusal

A plan of more commands is decided in parts, each with all that its steps refer to. What one part uses another does not
see, so that their sums (quotas, room) are not added up; the caller says so.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from cli.errors import Refused
from cli.kinds import Kind
from cli.session import Session
from cli.site.plan import Step

COMMANDS_MAX = 200  # what the server decides as one

Key = tuple[str, str]


class Rehearsal(NamedTuple):
    """How many parts the plan was decided in, and the step that would be refused, if one would."""

    parts: int
    refused: tuple[Step, Refused] | None = None


def rehearse(session: Session, steps: list[Step], *, commands_max: int = COMMANDS_MAX) -> Rehearsal:
    """Let the server decide the plan; nothing is written. What it finds too dear as one is asked in smaller parts.

    Raises:
        Refused: the request itself was refused, say since the token may not write.
    """
    number = 0
    for number, part in enumerate(parts(steps, commands_max=commands_max), start=1):
        owners = [step for step in part for _ in step.requests]
        commands = [request.item() for step in part for request in step.requests]
        try:
            session.rehearse(commands)
        except Refused as refused:
            if commands_max > 1 and _is_of_them_all(refused):
                return rehearse(session, steps, commands_max=commands_max // 2)
            index = refused.problem.get("index")
            if not isinstance(index, int) or not 0 <= index < len(owners):
                raise
            return Rehearsal(number, (owners[index], refused))
    return Rehearsal(number)


def parts(steps: list[Step], *, commands_max: int = COMMANDS_MAX) -> Iterator[list[Step]]:
    """The steps that send something, in parts that hold what their steps refer to; in the plan's order."""
    order = {_key(step): place for place, step in enumerate(steps) if step.requests}
    room: dict[str, list[Key]] = {}  # what has capacity (hosts), by group
    for step in steps:
        if step.requests and "capacity" in step.document.body:
            room.setdefault(str(step.document.body.get("group")), []).append(_key(step))
    by_key = {key: steps[place] for key, place in order.items()}
    part: set[Key] = set()
    for key, step in by_key.items():
        needed = _needed(key, by_key)
        if "resources" in step.document.body:  # which need hosts: as many as leave room for others that need the same
            for host in room.get(str(step.document.body.get("group")), ()):
                more = needed | _needed(host, by_key)
                if _commands(by_key, more) > commands_max // 2:
                    break
                needed = more
        if part and _commands(by_key, part | needed) > commands_max:
            yield [by_key[key] for key in sorted(part, key=order.__getitem__)]
            part = set()
        part |= needed
    if part:
        yield [by_key[key] for key in sorted(part, key=order.__getitem__)]


def _is_of_them_all(refused: Refused) -> bool:
    errors = refused.problem.get("errors") or [{}]
    return refused.code == "validation" and errors[0].get("field") == "/commands"


def _key(step: Step) -> Key:
    return step.document.kind.name, step.document.name


def _commands(by_key: dict[Key, Step], keys: set[Key]) -> int:
    return sum(len(by_key[key].requests) for key in keys)


def _needed(key: Key, by_key: dict[Key, Step]) -> set[Key]:
    """The step and all of the plan that it refers to, at any remove."""
    found: set[Key] = set()
    pending = [key]
    while pending:
        current = pending.pop()
        if current in by_key and current not in found:
            found.add(current)
            pending += _references(by_key[current], by_key)
    return found


def _references(step: Step, by_key: dict[Key, Step]) -> list[Key]:
    """What a document names, by its fields at any depth; and of a workload the limits that hold for it: its tenant's in
    that group, and those of the tenants above."""
    body: dict[str, Any] = step.document.body
    named = list(_named(body, step.document.kind))
    tenant = body.get("tenant")
    while tenant and body.get("group"):
        named.append(("quota", f"{body['group']}/{tenant}"))
        above = by_key.get(("tenant", str(tenant)))
        tenant = above.document.body.get("parent") if above else None
    return named


def _named(body: dict[str, Any], kind: Kind) -> Iterator[Key]:
    """A field is called like the kind that it names, unless the kind says otherwise (`parent`)."""
    for field, value in body.items():
        if isinstance(value, dict):
            yield from _named(value, kind)
        elif isinstance(value, str):
            yield kind.refs.get(field, field), value
