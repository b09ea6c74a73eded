"""The entry point: which verbs there are, and where. A verb's module is imported when the verb is used."""

import difflib
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import click

from cli import options, terminal
from cli.session import Session

# verb: (module, one line for `berth --help`). The command object in the module has the verb's name.
VERBS = {
    "up": ("up", "Start Berth on this machine."),
    "login": ("contexts", "Save a server and a token as a context."),
    "context": ("contexts", "List, choose, show and delete saved contexts."),
    "whoami": ("contexts", "Say which server is asked, as whom."),
    "get": ("reads", "List resources of a kind, or show one."),
    "describe": ("reads", "Show everything about one resource."),
    "create": ("creation", "Make a tenant, rack, group, host, VM or token."),
    "set": ("changes", "Set a quota's limits, or the protection of anything."),
    "delete": ("changes", "Delete resources."),
    "move": ("changes", "Move a host to another group, a tenant to another parent."),
    "resize": ("changes", "Give a VM other amounts."),
    "start": ("changes", "Start a VM."),
    "stop": ("changes", "Stop a VM; it keeps its claims."),
    "cordon": ("changes", "Place nothing new on a host."),
    "uncordon": ("changes", "Place on a host again."),
    "suspend": ("changes", "Refuse a tenant and its descendants new workload."),
    "resume": ("changes", "Lift a tenant's suspension."),
    "apply": ("site", "Make the platform what a file says."),
    "diff": ("site", "Show what `apply` would change."),
    "wait": ("waiting", "Wait until a resource is in a state."),
    "capacity": ("reads", "Show capacity and use, by place, group, tenant or host."),
    "explain": ("reads", "Say why a VM runs where it runs."),
    "history": ("reads", "Show a resource's changes."),
    "audit": ("reads", "Show who did what, and what came of it."),
    "events": ("events", "Show the event log, or follow it live."),
    "operation": ("operations", "Retry, settle or cancel an operation."),
    "replay": ("replay", "Replay a placement trace on the running platform."),
    "token": ("token", "Get in again: give the admin token another secret."),
    "relay": ("relay", "Make the NATS streams anew from the log."),
    "completion": ("completion", "Print the script that lets bash, zsh or fish complete with Tab."),
    "verify": ("verify", "Prove that the log, the accounts and the read models agree."),
}


class Berth(click.Group):
    """A group whose commands are known by name alone until one is used."""

    def main(  # type: ignore[override]  # click's overloads say when it returns
        self, args: Sequence[str] | None = None, prog_name: str | None = None, standalone_mode: bool = True, **more: Any
    ) -> Any:
        call = partial(super().main, args, prog_name, standalone_mode=False, **more)
        return sys.exit(terminal.run(call)) if standalone_mode else call()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"cli.verbs.{VERBS[cmd_name][0]}")
        command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
        assert isinstance(command, click.Command), cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no verb {args[0]!r}.{hint} `berth --help` lists them.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


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
    berth explain vm payments/web-1
    berth apply -f site.yaml --dry-run

    Kinds may be singular, plural or short. A VM's name is TENANT/VM, a quota's GROUP/TENANT. `-o wide` shows every
    column, `-o json`, `yaml` and `csv` the data. To complete words with Tab: eval "$(berth completion bash)".

    \b
    Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 cannot reach the
    server, 4 timed out waiting.
    """
    ctx.ensure_object(Session)


if __name__ == "__main__":
    main(prog_name="berth")
