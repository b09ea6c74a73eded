"""`berth create`, `set`, `delete`, and every kind's own verbs: the server's commands, with their fields as flags."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cli import flags, kinds, operations, options, schema, terminal, wording
from cli.by_kind import ByKind, Leaf, Named
from cli.connection import ANY_VERSION, ATTEMPTS_MAX, Answer
from cli.errors import Failed, Refused
from cli.flags import Flag
from cli.kinds import Command, Kind, Kinds
from cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Option(
    ["-f", "--file", "file"],
    type=options.FILE,
    metavar="FILE",
    help="The fields as JSON or YAML, or - for stdin; a flag beside it wins.",
)
SECRET_FILE = click.Option(
    ["--secret-file"],
    type=options.FILE,
    metavar="FILE",
    help="If its creation makes a secret: write it there (mode 0600), not to the screen.",
)
# What an operation is when what was asked of it has come about.
ENDS = {"retry": "succeeded", "cancel": "cancelled"}


def _create(kind: Kind, known: Kinds) -> click.Command:
    command = kind.command("create")
    assert command is not None
    fields = flags.of_command(command, kind, known, taken=_taken(waits=command.starts_operation, of=SECRET_FILE))

    @_shared(command)
    @click.pass_obj
    def run(
        session: Session, /, names: tuple[str, ...], file: str | None, secret_file: str | None, **given: Any
    ) -> None:
        body = flags.body_of(fields, given, _read(file, kind))
        name = _name_of(kind, names, body)
        in_name = _in_name(kind, name, command)
        said = {field: value for field, value in body.items() if field not in ("kind", *in_name)}
        body = {**in_name, **said}
        flags.lacking(command, fields, body, kind)
        if secret_file is not None and os.path.exists(secret_file):
            raise Failed(f"{secret_file} is there already; a secret is not written over")
        try:
            answer = session.command(command.method, _path(command, kind, name, given), body)
        except Refused as refused:
            if refused.code == "already_exists":
                _say_what_is_there(session, kind, name, refused)
            raise
        _tell_creation(session, kind, name, answer, secret_file=secret_file)

    params = [Named(kind, optional=True).argument(), *(flag.option for flag in fields), FILE, SECRET_FILE]
    return _leaf(command, kind, fields, params, run, example=_example(command, kind, fields))


def _set(kind: Kind, known: Kinds) -> click.Command:
    command = kind.command("set")
    assert command is not None
    fields = flags.of_command(command, kind, known, taken=_taken(waits=command.starts_operation))
    is_whole = command.method == "PUT"

    @_shared(command)
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...], file: str | None, **given: Any) -> None:
        body = flags.body_of(fields, given, _read(file, kind))
        name = _name_of(kind, names, body)
        said = {field: value for field, value in body.items() if field not in ("kind", *_in_name(kind, name))}
        if not said.keys() - {"force"}:
            first = next(iter(_titles(fields)), "-f FILE")
            raise click.UsageError(
                f"say what to set, for example {first}; `berth set {kind.name} --help` lists all fields"
            )
        if is_whole:
            answer = _put(session, command, kind, name, said=said, fields=fields)
        else:
            answer = session.command(command.method, _path(command, kind, name, given), said)
        session.tell("set", kind, name, answer, about=_said(said))

    params = [Named(kind).argument(), *(flag.option for flag in fields), FILE]
    example = _example(command, kind, [flag for flag in fields if flag.title != "--force"][:1] or fields)
    return _leaf(command, kind, fields, params, run, example=example)


def _delete(kind: Kind, known: Kinds) -> click.Command:
    command = kind.command("delete")
    assert command is not None
    return _of_several(command, kind, known, done="deleted", help=f"{command.summary}. Stops at the first refusal.")


def _own(verb: str) -> Any:
    def make(kind: Kind, known: Kinds) -> click.Command:
        command = kind.command(verb)
        assert command is not None
        return _of_several(command, kind, known, done=wording.done(verb))

    return make


def _of_several(command: Command, kind: Kind, known: Kinds, *, done: str, help: str = "") -> click.Command:
    """A command on each of the named, with the same body."""
    fields = flags.of_command(command, kind, known, taken=_taken(waits=True))

    @_shared(command, waits=command.starts_operation or kind.name == operations.KIND)
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...], file: str | None = None, **given: Any) -> None:
        found = kind.full_names(names)
        if session.key and len(found) > 1:
            raise click.UsageError("one --idempotency-key cannot name several commands")
        body = flags.body_of(fields, given, _read(file, kind))
        flags.lacking(command, fields, body, kind)
        for name, path in [(name, _path(command, kind, name, given)) for name in found]:
            answer = session.command(command.method, path, body if body or command.method != "DELETE" else None)
            _tell(session, command, kind, name, answer, done=done, body=body)

    params = [Named(kind, several=True).argument(), *(flag.option for flag in fields), *([FILE] if fields else [])]
    return _leaf(command, kind, fields, params, run, help=help, example=_example(command, kind, fields))


def _tell(
    session: Session, command: Command, kind: Kind, name: str, answer: Answer, *, done: str, body: dict[str, Any]
) -> None:
    """Say what was done. Of an operation, with --wait, only after its end, and fail unless it ended as it was to."""
    said = _said(body)
    if kind.name != operations.KIND or session.wait_s is None or session.dry_run:
        return session.tell(done, kind, name, answer, doing=f"being {done}", about=said)
    position = answer.json(position=int)["position"]
    found = operations.ended(session.connection, name, timeout_s=session.wait_s, min_position=position)
    wanted = ENDS.get(command.verb, found["state"])
    if found["state"] != wanted:
        why = f": {found['message']}" if found.get("message") else ""
        has = "been cancelled" if found["state"] == "cancelled" else found["state"]
        raise Failed(f"operation {name} was {done} and has {has}{why}")
    session.tell(done, kind, name, answer, about=said, resource=found)


def _put(
    session: Session, command: Command, kind: Kind, name: str, *, said: dict[str, Any], fields: Sequence[Flag]
) -> Answer:
    """A PUT replaces the whole: what stands there beside `said` is said again, for the version that was read.

    Use changes the version too. Of a resource so busy that no version lasts until the PUT, what people wrote is
    compared instead: if it stays the same from look to look, the last attempt is for any version.
    """
    whole: dict[str, Any] | None = None
    position = None
    for attempt in range(1, ATTEMPTS_MAX + 1):
        now = _if_there(session, kind, name, min_position=position)
        kept = kinds.kept(command, now.json(version=int), said) if now else {}
        before, whole = whole, {**kept, **said}
        flags.lacking(command, fields, whole, kind)
        is_last_and_same = attempt == ATTEMPTS_MAX and whole == before
        if_match = (ANY_VERSION if is_last_and_same else now.etag) if now else None
        try:
            path = _path(command, kind, name, {})
            return session.command(command.method, path, whole, if_match=if_match, if_none_match=now is None)
        except Refused as refused:
            if refused.code != "version_mismatch" or session.key or attempt == ATTEMPTS_MAX:
                raise
            position = refused.position
    raise AssertionError("the last attempt answers or raises")


def _if_there(session: Session, kind: Kind, name: str, *, min_position: int | None) -> Answer | None:
    try:
        return session.read(kind, name, min_position=min_position)
    except Refused as refused:
        if refused.code != "not_found":
            raise
        return None


def _tell_creation(session: Session, kind: Kind, name: str, answer: Answer, *, secret_file: str | None) -> None:
    secret = answer.json(secret=str | None).get("secret")
    if session.is_structured or secret is None:
        return session.tell("made", kind, name, answer, doing="being made")
    if secret_file is not None:
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
        return terminal.say(f"{kind.name} {name} made, its secret is in {secret_file}")
    terminal.say(f"{kind.name} {name} made. Keep its secret, it is not shown again:", err=True)
    terminal.data(f"{secret}\n")  # never folded: it is to be copied


def _say_what_is_there(session: Session, kind: Kind, name: str, refused: Refused) -> None:
    """Of what failed in its creation nothing runs, and it is in the way of none but its successor."""
    try:
        state = session.read(kind, name).json(state=str)["state"]
    except Refused:
        return
    if state in kind.failed_states:
        refused.problem["detail"] = (
            f"The {kind.name} {name!r} exists already, and is {state}. Delete it first, then create it again: "
            f"`berth delete {kind.name} {name}`. `berth describe {kind.name} {name}` says why it is {state}."
        )


def _read(file: str | None, kind: Kind) -> dict[str, Any]:
    """The fields that a file says; `kind` may stand there, as in a file for `berth apply`."""
    if file is None:
        return {}
    from cli.site import document

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed(f"{file} is not UTF-8 text") from None
    read = [content for _, content in document.contents(text, file)]
    found = read[0] if len(read) == 1 else None
    if not isinstance(found, dict):
        raise Failed(f"{file}: the fields of one {kind.name} are expected, one `field: value` a line")
    other = found.get("kind")
    if other is not None and str(other).lower() not in kind.words:
        raise Failed(f"{file} is about a {other}, not a {kind.name}")
    return found


def _name_of(kind: Kind, names: Sequence[str], body: dict[str, Any]) -> str:
    """The name that was given, or that the file's own fields are."""
    if names:
        return kind.one_name(names)
    parts = [body.get(kind.field_of(part)) for part in kind.named_by]
    if not all(isinstance(part, str) and part for part in parts):
        raise click.UsageError(f"say the {kind.name}'s name, as {kind.usage}")
    return kind.one_name(["/".join(str(part) for part in parts)])


def _in_name(kind: Kind, name: str, command: Command | None = None) -> dict[str, Any]:
    """What a body says of the name; with a command, only what does not stand in its path."""
    in_path = command.in_path if command is not None else []
    return {kind.field_of(part): value for part, value in kind.named(name).items() if part not in in_path}


def _path(command: Command, kind: Kind, name: str, given: dict[str, Any]) -> str:
    more = {part: str(given[f"in_path_{part}"]) for part in command.in_path if f"in_path_{part}" in given}
    return kinds.filled(command.path, {**kind.named(name), **more})


def _said(body: dict[str, Any]) -> str:
    """What a command changes, in few words: `cpu=4, memory_mib=8192`."""
    from cli import tables

    said = []
    for field, value in body.items():
        is_of_amounts = isinstance(value, dict) and all(isinstance(entry, int | None) for entry in value.values())
        shown = "none" if value in (None, {}, []) else tables.cell(value, human=True)
        said.append(shown if is_of_amounts and value else f"{field}={shown}")
    return ", ".join(said)


def _titles(fields: Sequence[Flag]) -> list[str]:
    return [flag.title for flag in fields if not flag.option.hidden and flag.title != "--force"]


def _shared(command: Command, *, waits: bool | None = None) -> Callable[[F], F]:
    return options.write_and_wait if (command.starts_operation if waits is None else waits) else options.write


def _taken(*, waits: bool, of: click.Option | None = None) -> frozenset[str]:
    """The flags that every such command has, and that no field may have."""
    shared = click.command()((options.write_and_wait if waits else options.write)(lambda: None))
    params = [*shared.params, FILE, *([of] if of is not None else [])]
    return frozenset(name for param in params for name in (*param.opts, *param.secondary_opts)) | {"--help", "-h"}


def _leaf(
    command: Command,
    kind: Kind,
    fields: Sequence[Flag],
    params: Sequence[click.Parameter],
    run: Any,
    *,
    example: str,
    help: str = "",
) -> Leaf:
    text = f"{help or command.summary + '.'}\n\n{command.description}".strip().replace("`", "")
    made = click.command(kind.name, cls=Leaf, help=text, fields=fields, example=example)(run)
    made.params[:0] = params
    return made


def _example(command: Command, kind: Kind, fields: Sequence[Flag]) -> str:
    """A call with all that is needed, and a few amounts."""
    words = [f"berth {command.verb} {kind.name} {kind.usage}"]
    sample = {"--cpu": "4", "--memory": "8GiB"}
    needed = set(schema.needed(command.body))
    for flag in fields:
        if flag.option.hidden or (flag.field.path[0] not in needed and len(fields) > 1):
            continue
        shape = flag.field.shape
        if shape.word == schema.AMOUNTS:
            if flag.title in sample:
                words.append(f"{flag.title} {sample[flag.title]}")
        elif shape.word == schema.SWITCH:
            words.append(flag.title)
        else:
            value = next(iter(shape.choices), flag.option.metavar or "VALUE").partition("[")[0]
            words.append(f"{flag.title} {value}")
    return " ".join(words)


def _why_not_created(kind: Kind) -> str | None:
    if kind.command("create") is None and kind.command("set", "PUT") is not None:
        return f"a {kind.name} is set: berth set {kind.name} {kind.usage} --help"
    return None


create = ByKind(
    "create",
    make=_create,
    of=lambda kind: kind.command("create") is not None,
    help="Make a resource of a KIND. (`berth apply -f` makes many.)",
    refusal=_why_not_created,
)
set_ = ByKind(
    "set",
    make=_set,
    of=lambda kind: kind.command("set") is not None,
    help="Change fields of a resource: berth set host h1 --unit 12. What may be empty is emptied by null or by "
    "--no-FIELD.",
)
delete = ByKind(
    "delete",
    make=_delete,
    of=lambda kind: kind.command("delete") is not None,
    help="Delete resources of a KIND by their names (token: revoke it).",
    usage="KIND NAME... [FLAGS]",
)


def own(verb: str, having: Sequence[Kind]) -> ByKind:
    """A verb that these kinds have of their own. Where but one has it, its word may be left out."""
    words = " or ".join(kind.name for kind in having)
    summaries = [command.summary for kind in having if (command := kind.command(verb)) is not None]
    return ByKind(
        verb,
        make=_own(verb),
        of=lambda kind: kind.command(verb) is not None,
        help=f"{summaries[0]}." if len(having) == 1 else f"{verb.capitalize()} a {words}.",
        usage=("[KIND] " if len(having) == 1 else "KIND ") + "NAME... [FLAGS]",
        alone=True,
    )
