"""The entry point: which verbs there are, and where. A verb's module is imported when the verb is used."""

import contextlib
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from cli import options, terminal
from cli.errors import NotKnown
from cli.kinds import Kind
from cli.names import within
from cli.session import Session

# verb: (module, one line for `berth --help`). The command object in the module has the verb's name. The verbs that some
# kinds have of their own (move, stop, cordon …) are the server's to tell.
VERBS = {
    "up": ("up", "Start Berth on this machine."),
    "login": ("contexts", "Save a server and a token as a context."),
    "context": ("contexts", "List, choose, show and delete saved contexts."),
    "whoami": ("contexts", "Say which server is asked, as whom."),
    "get": ("reads", "List resources of a kind, or show one."),
    "describe": ("reads", "Show everything about one resource."),
    "create": ("changes", "Make a resource."),
    "set": ("changes", "Change fields of a resource, or a quota's limits."),
    "delete": ("changes", "Delete resources."),
    "apply": ("site", "Make the platform what a file says."),
    "diff": ("site", "Show what `apply` would change."),
    "wait": ("waiting", "Wait until a resource is in a state."),
    "capacity": ("reads", "Show capacity and use, by place, group, tenant or host."),
    "explain": ("reads", "Say why a VM runs where it runs."),
    "history": ("reads", "Show a resource's changes."),
    "audit": ("reads", "Show who did what, and what came of it."),
    "events": ("events", "Show the event log, or follow it live."),
    "replay": ("replay", "Replay a placement trace on the running platform."),
    "token": ("token", "Get in again: give the admin token another secret."),
    "relay": ("relay", "Make the NATS streams anew from the log."),
    "completion": ("completion", "Print the script that lets bash, zsh or fish complete with Tab."),
    "verify": ("verify", "Prove that the log, the accounts and the read models agree."),
}
COMPLETING = "_BERTH_COMPLETE"
WHERE = {"--url": "url", "--token-file": "token_file", "--context": "context"}


class Berth(click.Group):
    """A group whose commands are known by name alone until one is used."""

    def main(  # type: ignore[override]  # click's overloads say when it returns
        self, args: Sequence[str] | None = None, prog_name: str | None = None, standalone_mode: bool = True, **more: Any
    ) -> Any:
        session = Session()
        _say_where(session, list(sys.argv[1:] if args is None else args))
        more = {"obj": session, **more}
        parent: Any = super().main

        def call() -> Any:
            return parent(args, prog_name, standalone_mode=False, **more)

        def learning() -> Any:
            """Once more if the server has other kinds than those that were kept: nothing was sent before this."""
            try:
                return call()
            except (NotKnown, click.NoSuchOption):
                if not session.learns_more():
                    raise
                return call()

        if not standalone_mode:
            return learning()
        with contextlib.ExitStack() as silence:
            if COMPLETING in os.environ:  # whoever presses Tab is told of no fault
                silence.enter_context(contextlib.redirect_stderr(silence.enter_context(open(os.devnull, "w"))))
            return sys.exit(terminal.run(learning))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *self._own_verbs(ctx)]

    def _own_verbs(self, ctx: click.Context) -> dict[str, list[Kind]]:
        """The verbs of the kinds, if the server tells them at once: help and Tab wait for nobody."""
        session = ctx.find_object(Session)
        assert session is not None
        found = within(session.recall)
        own = found.own_verbs() if found is not None else {}
        return {verb: having for verb, having in own.items() if verb not in VERBS}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return self._own_verb(ctx, cmd_name)
        module = import_module(f"cli.verbs.{VERBS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
        assert isinstance(command, click.Command), cmd_name
        return command

    def _own_verb(self, ctx: click.Context, verb: str) -> click.Command | None:
        session = ctx.find_object(Session)
        assert session is not None
        found = within(session.recall) if ctx.resilient_parsing else session.kinds
        having = found.own_verbs().get(verb) if found is not None else None
        if having is None:
            return None
        from cli.verbs import changes

        return changes.own(verb, having)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in VERBS or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        command = self._own_verb(ctx, args[0])
        if command is None:
            raise NotKnown(self._no_such_verb(ctx, args[0]), ctx)
        return args[0], command, args[1:]

    def _no_such_verb(self, ctx: click.Context, word: str) -> str:
        session = ctx.find_object(Session)
        assert session is not None
        own = session.kinds.own_verbs()
        kind = session.kinds.of_word(word)
        if kind is not None:
            verbs = [verb for verb, having in own.items() if kind in having]
            example = verbs[0] if verbs else "describe"
            return f"{word!r} is a kind; the verb stands first, as in `berth {example} {kind.name} {kind.usage}`."
        near = difflib.get_close_matches(word, [*VERBS, *own], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"there is no verb {word!r}.{hint} `berth --help` lists them."

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])
        own = self._own_verbs(ctx)
        if not own:
            formatter.write_paragraph()
            formatter.write_text("The kinds have verbs of their own; the server lists them here when it can be asked.")
            return
        with formatter.section("Verbs of some kinds"):
            formatter.write_dl([(verb, _summary(verb, having)) for verb, having in own.items()])


def _summary(verb: str, having: list[Kind]) -> str:
    command = having[0].command(verb)
    assert command is not None
    return f"{command.summary} ({', '.join(kind.name for kind in having)})."


def _whole_words() -> list[str]:
    """Of a call that Tab is to complete, the words before the one that is not whole yet: fish says that word itself,
    the others its place."""
    from click.shell_completion import split_arg_string

    words, current = split_arg_string(os.environ.get("COMP_WORDS", "")), os.environ.get("COMP_CWORD", "")
    if os.environ[COMPLETING].startswith("fish"):
        return words[:-1] if current and words[-1:] == [current] else words
    return words[: int(current)] if current.isdigit() else words


def _say_where(session: Session, args: list[str]) -> None:
    """Which server is meant has to be known before the flags are parsed, for it tells which there are."""
    if COMPLETING in os.environ:
        args = _whole_words()
    for at, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name in WHERE and (equals or at + 1 < len(args)):
            setattr(session, WHERE[name], value if equals else args[at + 1])


@click.group(cls=Berth, context_settings={"help_option_names": ["-h", "--help"]})
@options.where
@click.version_option(package_name="berth-cloud", prog_name="berth", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Berth: who has what, where it runs, and the proof of it.

    \b
    berth <verb> <kind> [name] [flags]
    berth get hosts --group std --state available --sort -cpu_available
    berth create vm payments/web-1 --group std --cpu 4 --memory 8GiB --wait
    berth set host tpe1-r1-h01 --unit 12
    berth explain vm payments/web-1
    berth apply -f site.yaml --dry-run

    `berth <verb> --help` lists the kinds, `berth <verb> <kind> --help` the flags, with an example. Kinds may be
    singular, plural or short. A VM's name is TENANT/VM, a quota's GROUP/TENANT. `-o wide` shows every column, `-o
    json`, `yaml` and `csv` the data. To complete words with Tab: eval "$(berth completion bash)".

    \b
    Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 cannot reach the
    server, 4 timed out waiting.
    """
    ctx.ensure_object(Session)


if __name__ == "__main__":
    main(prog_name="berth")
