"""A verb that goes with kinds: a group with a command for each kind that has the verb, made when it is asked for.

berth create host h1 --cpu 4
      │      └─ ByKind.resolve_command: which kind is meant (session.kinds) ─► a Leaf with that kind's flags
      └─ a ByKind
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from cli import flags
from cli.errors import Failed, NotKnown
from cli.flags import Flag
from cli.kinds import Kind, Kinds
from cli.names import completing, within
from cli.options import Verb
from cli.session import Session

Make = Callable[[Kind, Kinds], click.Command]


class Leaf(Verb):
    """The command of a verb for one kind. The flags of its fields may be spelled in several ways."""

    def __init__(self, *args: Any, fields: Sequence[Flag] = (), example: str = "", **more: Any) -> None:
        super().__init__(*args, **{"options_metavar": "[FLAGS]", **more})
        self.fields = fields
        self.example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = [name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)]
        try:
            return super().parse_args(ctx, flags.spelled(args, self.fields, known))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Fields and flags apart, and an example."""
        options = [flag.option for flag in self.fields]
        for title, params in (
            ("Fields", options),
            ("Flags", [param for param in self.get_params(ctx) if not any(param is one for one in options)]),
        ):
            params = [param for param in params if isinstance(param, click.Option)]
            rows = [row for param in params if (row := param.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        if self.example:
            with formatter.section("Example"):
                formatter.write_text(self.example)


class ByKind(click.Group):
    """The verb itself. `of` chooses among the kinds, `make` makes the command of one of them. With `alone`, the kind's
    word may be left out where but one kind has the verb. `plural` says how help and Tab write the kinds."""

    def __init__(
        self,
        name: str,
        *,
        make: Make,
        of: Callable[[Kind], bool],
        help: str,
        usage: str = "KIND NAME [FLAGS]",
        plural: bool = False,
        alone: bool = False,
        refusal: Callable[[Kind], str | None] = lambda kind: None,
    ) -> None:
        super().__init__(name, help=help, subcommand_metavar=usage, options_metavar="")
        self._make, self._of, self._plural, self._alone, self._refusal = make, of, plural, alone, refusal

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Flags may stand before the kind, as in `berth get -o json hosts`."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = self._kind_first(ctx, args)
        return super().parse_args(ctx, args)

    def _kind_first(self, ctx: click.Context, args: list[str]) -> list[str]:
        found = _kinds(ctx)
        if found is None:
            return args
        usable = [kind for kind in found if self._of(kind)]
        words = [at for at, word in enumerate(args) if found.of_word(word) in usable and not word.startswith("-")]
        sure = [at for at in words if not args[at - 1].startswith("-") or "=" in args[at - 1]]  # no flag's value
        if self._alone and len(usable) == 1 and not words:
            return [usable[0].name, *args]
        # Of a word for no kind it is said so; it stands first behind the flags and their values.
        unknown = [
            at for at in range(1, len(args)) if not args[at].startswith("-") and not args[at - 1].startswith("-")
        ]
        for at in (*sure, *words, *unknown):
            return [args[at], *args[:at], *args[at + 1 :]]
        return args

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = _kinds(ctx)
        return [self._word(kind) for kind in found or () if self._of(kind)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _kinds(ctx)
        kind = found.of_word(cmd_name) if found is not None else None
        return self._make(kind, found) if found is not None and kind is not None and self._of(kind) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = _kinds(ctx)
        if found is None:
            return None, None, []
        usable = [kind for kind in found if self._of(kind)]
        kind = found.of_word(args[0])
        if self._alone and len(usable) == 1 and (kind is None or (kind is usable[0] and _is_all_there_is(args))):
            return usable[0].name, self._make(usable[0], found), args
        if kind is not None and (refused := self._refusal(kind)):
            raise click.UsageError(refused, ctx)
        try:
            kind = found.find(args[0], among=usable, verb=str(self.name))
        except NotKnown as error:
            if ctx.resilient_parsing:
                return None, None, []
            error.ctx = ctx
            raise
        return self._word(kind), self._make(kind, found), args[1:]

    def _word(self, kind: Kind) -> str:
        return kind.plural if self._plural else kind.name

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The kinds that the server has; without it the help of the verb still stands."""
        try:
            found = _session(ctx).kinds
        except Failed as failed:
            formatter.write_paragraph()
            formatter.write_text(f"The kinds and their flags are the server's to tell: {failed.message}")
            return
        with formatter.section("Kinds"):
            formatter.write_dl(
                [
                    (" ".join([self._word(kind), *kind.short]), _short_help(self._make(kind, found)))
                    for kind in found
                    if self._of(kind)
                ]
            )
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.command_path} KIND --help` shows the flags of a kind.")


class Named(NamedTuple):
    """The argument by which a resource is named."""

    kind: Kind
    several: bool = False
    optional: bool = False

    def argument(self) -> click.Argument:

        metavar = self.kind.usage + ("..." if self.several else "")
        return click.Argument(
            ["names"],
            nargs=-1,
            required=not self.optional,
            metavar=f"[{metavar}]" if self.optional else metavar,
            shell_complete=completing(self.kind.name),
        )


def _kinds(ctx: click.Context) -> Kinds | None:
    """What the server has; of whoever presses Tab only what comes in time."""
    session = _session(ctx)
    return within(session.recall) if ctx.resilient_parsing else session.kinds


def _session(ctx: click.Context) -> Session:
    session = ctx.find_object(Session)
    assert session is not None
    return session


def _is_all_there_is(args: Sequence[str]) -> bool:
    """Whether the word for the kind is the only one: it is then a resource of that name."""
    return not [word for word in args[1:] if not word.startswith("-")]


def _short_help(command: click.Command) -> str:
    return command.get_short_help_str(80)
