"""The flags that many verbs share, as decorators. Their values land in the call's `Session`, not in the arguments."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from cli import output, units
from cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
WAIT_S_DEFAULT = "60"
_DURATION_WORD = re.compile(r"\d+(\.\d+)?(ms|s|m|h)?")


#: Files and folders complete with Tab. Whether they are there is said when they are opened.
FILE = click.Path(dir_okay=False, allow_dash=True)
FOLDER = click.Path(file_okay=False, readable=False)  # who may use it is said where it is used
FILE_OR_FOLDER = click.Path()


class Verb(click.Command):
    """A command in which `--wait` may stand alone: it takes the next word only if that is a duration."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spelled = []
        for index, word in enumerate(args):
            following = args[index + 1] if index + 1 < len(args) else ""
            is_bare = word == "--wait" and not _DURATION_WORD.fullmatch(following)
            spelled.append(f"--wait={WAIT_S_DEFAULT}" if is_bare else word)
        return super().parse_args(ctx, spelled)


def duration(text: str) -> float:
    """A flag's type: `90s`, `2m`."""
    return _or_wrong_use(units.duration_s, text)


def moment(text: str) -> str:
    """A flag's type: a position, a time, or how long ago, as the API takes it."""
    return _or_wrong_use(lambda value: units.moment(value, now=datetime.now(UTC)), text)


def past(text: str) -> str:
    """A flag's type: a time or how long ago."""
    return _or_wrong_use(lambda value: units.past(value, now=datetime.now(UTC)), text)


def time(text: str) -> str:
    """A flag's type: a time or a date."""
    return _or_wrong_use(units.time, text)


def assignment(text: str) -> tuple[str, int]:
    """A flag's type: `class=amount`."""
    return _or_wrong_use(units.assignment, text)


def amount_of(resource_class: str) -> Callable[[str], int]:
    """A flag's type: an amount of this class, with or without a unit."""
    return lambda text: _or_wrong_use(lambda value: units.amount(value, resource_class), text)


def _or_wrong_use(convert: Callable[[str], T], text: str) -> T:
    try:
        return convert(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _stored(attribute: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        session = ctx.find_object(Session)
        if session is None:
            session = ctx.obj = Session()
        if value is not None:
            setattr(session, attribute, value)

    return store


def _option(*names: str, attribute: str, **more: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_stored(attribute), default=None, **more)


def _all(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


#: Where and who. There is no `--token`: the process list shows everybody's arguments.
where = _all(
    _option("--url", attribute="url", metavar="URL", help="The server's address (else BERTH_URL, else a context)."),
    _option(
        "--token-file",
        attribute="token_file",
        type=FILE,
        metavar="FILE",
        help="The file with the token (else BERTH_TOKEN).",
    ),
    _option("--context", attribute="context", metavar="NAME", help="A saved context, instead of the one in use."),
)


def form_among(*forms: str) -> Callable[[F], F]:
    """The forms that an answer can have: not all have a name, or columns that only `wide` shows."""
    return _all(
        _option("-o", "--output", attribute="form", type=click.Choice(forms), help="The form of the answer."),
        _option("--headers/--no-headers", attribute="headers", help="The titles above a table in a pipe."),
    )


form = form_among(*output.FORMATS)
as_of = _option(
    "--as-of",
    attribute="as_of",
    type=moment,
    metavar="MOMENT",
    help=f"As it was then instead of now: {units.MOMENTS}.",
)
dry_run = _option(
    "--dry-run", attribute="dry_run", is_flag=True, flag_value=True, help="Decide and say, write nothing."
)
reason = _option("--reason", attribute="reason", metavar="TEXT", help="Why; kept in the audit.")
wait = _option(
    "--wait",
    attribute="wait_s",
    type=duration,
    metavar="[=DURATION]",
    help=f"Wait for the operation to end ({WAIT_S_DEFAULT} s if no duration is given).",
)
key = _option("--idempotency-key", attribute="key", metavar="KEY", help="Your own key, to send the same again safely.")

read = _all(where, form)
read_then = _all(where, form, as_of)
describe = _all(where, form_among("table", "json", "yaml", "csv"), as_of)
read_whole = _all(where, form_among("table", "json", "yaml", "csv"))
read_entries = _all(where, form_among("table", "wide", "json", "yaml", "csv"))
write = _all(where, form, dry_run, reason, key)
write_many_and_wait = _all(where, form_among("table", "json", "yaml", "csv", "name"), dry_run, reason, wait)
write_and_wait = _all(where, form, dry_run, reason, key, wait)

amounts = _all(
    click.option("--cpu", type=amount_of("cpu"), metavar="N", help="vCPU."),
    click.option("--memory", type=amount_of("memory_mib"), metavar="N|8GiB", help="Memory; MiB without a unit."),
    click.option("--storage", type=amount_of("storage_gib"), metavar="N|2TiB", help="Storage; GiB without a unit."),
    click.option("--gpu", type=amount_of("gpu"), metavar="N", help="GPUs."),
)


def resources(
    cpu: int | None, memory: int | None, storage: int | None, gpu: int | None, more: tuple[tuple[str, int], ...]
) -> dict[str, int]:
    """The amounts of the flags as the API's `resources`, `capacity` or `limits`; a class given twice is wrong use."""
    named = [("cpu", cpu), ("memory_mib", memory), ("storage_gib", storage), ("gpu", gpu), *more]
    given: dict[str, int] = {}
    for name, value in named:
        if value is None:
            continue
        if name in given:
            raise click.UsageError(f"{name} is given twice")
        given[name] = value
    return given


def pairs(given: tuple[str, ...], flag: str) -> dict[str, str]:
    """`key=value` flags as a mapping."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.UsageError(f"{flag} takes key=value, not {text!r}")
        found[name] = value
    return found
