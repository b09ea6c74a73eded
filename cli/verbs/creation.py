"""`berth create KIND NAME`: a subcommand per kind, since each kind has its own flags."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from cli import kinds, options, rules, terminal
from cli.errors import Failed, Refused
from cli.options import Verb
from cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
CREATABLE = (kinds.TENANT, kinds.RACK, kinds.GROUP, kinds.HOST, kinds.VM, kinds.TOKEN)
STRATEGIES = ("least_fragmentation", "best_fit", "worst_fit", "first_fit", "balanced")
ROLES = ("viewer", "auditor", "operator", "admin", "controller")


class ByKind(click.Group):
    """Finds the subcommand by any word for the kind."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        if args[0].lower() in (kinds.QUOTA.name, kinds.QUOTA.plural):
            raise click.UsageError("a quota is set: berth set quota GROUP/TENANT --cpu 64", ctx)
        kind = kinds.find(args[0], among=CREATABLE)
        return super().resolve_command(ctx, [kind.name, *args[1:]])


def worded(function: F) -> F:
    """The flags that every creation has."""
    flags = [
        click.option("--display-name", metavar="TEXT", help="For people; any script."),
        click.option("--description", metavar="TEXT"),
        click.option("--external-id", metavar="ID", help="Your own key, for example of the CMDB."),
        click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def described(function: F) -> F:
    """Those of all but tokens."""
    text = "Refuse to delete it until the protection is lifted."
    return worded(click.option("--protected", is_flag=True, default=None, help=text)(function))


@click.group(cls=ByKind)
def create() -> None:
    """Make a tenant, rack, group, host, VM or token. (`berth apply -f` makes many; a quota is set.)"""


@create.command(cls=Verb)
@click.argument("name")
@click.option("--parent", metavar="TENANT", help="The tenant above it.")
@described
@options.write
@click.pass_obj
def tenant(session: Session, /, name: str, **given: Any) -> None:
    """Make a tenant."""
    _create(session, kinds.TENANT, name, _body(given))


@create.command(cls=Verb)
@click.argument("name")
@click.option("--region", required=True, metavar="NAME")
@click.option("--dc", required=True, metavar="NAME")
@click.option("--room", metavar="NAME")
@click.option("--units", type=click.IntRange(1), metavar="N", help="Its height in rack units.")
@described
@options.write
@click.pass_obj
def rack(session: Session, /, name: str, **given: Any) -> None:
    """Make a rack in a dc of a region."""
    _create(session, kinds.RACK, name, _body(given))


@create.command(cls=Verb)
@click.argument("name")
@click.option("--strategy", type=click.Choice(STRATEGIES), default=STRATEGIES[0], show_default=True)
@click.option("--region", metavar="NAME", help="If set, its hosts must be there.")
@click.option("--overcommit", multiple=True, metavar="CLASS=RATIO", help="For example cpu=4; may be repeated.")
@described
@options.write
@click.pass_obj
def group(session: Session, /, name: str, overcommit: tuple[str, ...], **given: Any) -> None:
    """Make a group of hosts."""
    body = _body(given)
    if overcommit:
        ratios = options.pairs(overcommit, "--overcommit")
        body["overcommit"] = {resource_class: _ratio(text) for resource_class, text in ratios.items()}
    _create(session, kinds.GROUP, name, body)


@create.command(cls=Verb)
@click.argument("name")
@click.option("--group", required=True, metavar="GROUP")
@click.option("--rack", metavar="RACK")
@click.option("--unit", type=click.IntRange(1), metavar="N", help="Its position in the rack.")
@options.amounts
@click.option("--resource", "more", type=options.assignment, multiple=True, metavar="CLASS=N", help="Any other class.")
@click.option("--bmc-address", metavar="ADDRESS")
@click.option("--bmc-protocol", metavar="NAME", help="For example redfish.")
@click.option("--bmc-credential", metavar="REFERENCE", help="A reference to the secret, never the secret.")
@described
@options.write
@click.pass_obj
def host(
    session: Session,
    /,
    name: str,
    cpu: int | None,
    memory: int | None,
    storage: int | None,
    gpu: int | None,
    more: tuple[tuple[str, int], ...],
    **given: Any,
) -> None:
    """Register a host with its capacity."""
    bmc = {part: given.pop(f"bmc_{part}") for part in ("address", "protocol", "credential")}
    body = _body(given)
    body["capacity"] = options.resources(cpu, memory, storage, gpu, more)
    if not body["capacity"]:
        raise click.UsageError("say what the host has: --cpu, --memory, --storage, --gpu or --resource class=n")
    if any(bmc.values()):
        body["bmc"] = {part: value for part, value in bmc.items() if value is not None}
    _create(session, kinds.HOST, name, body)


@create.command(cls=Verb)
@click.argument("name", metavar="TENANT/VM")
@click.option(
    "--group", "groups", multiple=True, required=True, metavar="GROUP", help="Repeat to offer several; '*' for all."
)
@options.amounts
@click.option("--resource", "more", type=options.assignment, multiple=True, metavar="CLASS=N", help="Any other class.")
@click.option("--image", metavar="NAME")
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Instead of the group's.")
@click.option("--region", metavar="NAME")
@click.option("--dc", metavar="NAME")
@click.option("--room", metavar="NAME")
@click.option("--rack", metavar="NAME")
@click.option("--host", metavar="NAME")
@click.option(
    "--where-label", multiple=True, metavar="KEY=VALUE", help="Only on hosts with this label; may be repeated."
)
@click.option("--rule", "rule_texts", multiple=True, metavar="TYPE:SET:LEVEL[:N]", help=rules.HELP)
@described
@options.write_and_wait
@click.pass_obj
def vm(
    session: Session,
    /,
    name: str,
    groups: tuple[str, ...],
    cpu: int | None,
    memory: int | None,
    storage: int | None,
    gpu: int | None,
    more: tuple[tuple[str, int], ...],
    where_label: tuple[str, ...],
    rule_texts: tuple[str, ...],
    **given: Any,
) -> None:
    """Ask for a VM: it is placed at once or refused with the reasons."""
    owner, vm_name = kinds.parts(kinds.VM, name)
    where = {part: given.pop(part) for part in ("region", "dc", "room", "rack", "host")}
    where = {part: value for part, value in where.items() if value is not None}
    if where_label:
        where["labels"] = options.pairs(where_label, "--where-label")
    body = _body(given)
    body["tenant"] = owner
    body["group"] = groups[0] if len(groups) == 1 else list(groups)
    body["resources"] = options.resources(cpu, memory, storage, gpu, more)
    if not body["resources"]:
        raise click.UsageError("say what the VM needs: --cpu, --memory, --storage, --gpu or --resource class=n")
    if where:
        body["where"] = where
    if rule_texts:
        body["rules"] = [rules.parse(text) for text in rule_texts]
    _create(session, kinds.VM, name, body, short_name=vm_name)


@create.command(cls=Verb)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--tenant", metavar="TENANT", help="Scope: sees and touches this tenant's subtree alone.")
@click.option(
    "--expires-at", type=options.time, metavar="TIME", help="For example 2027-01-01T00:00:00Z, or 2027-01-01 (UTC)."
)
@click.option(
    "--secret-file", type=options.FILE, metavar="FILE", help="Write the secret there (mode 0600), not to the screen."
)
@worded
@options.write
@click.pass_obj
def token(session: Session, /, name: str, secret_file: str | None, **given: Any) -> None:
    """Make a token. Its secret is shown this once."""
    if secret_file is not None and os.path.exists(secret_file):
        raise Failed(f"{secret_file} is there already; a secret is not written over")
    answer = session.command("POST", kinds.list_path(kinds.TOKEN), {"name": name, **_body(given)})
    secret = answer.json(secret=str | None).get("secret")
    if session.is_structured or secret is None:
        return session.tell("made", kinds.TOKEN, name, answer)
    if secret_file is not None:
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
        return terminal.say(f"token {name} made, its secret is in {secret_file}")
    terminal.say(f"token {name} made. Keep its secret, it is not shown again:", err=True)
    terminal.data(f"{secret}\n")  # never folded: it is to be copied


def _create(
    session: Session, kind: kinds.Kind, name: str, body: dict[str, Any], *, short_name: str | None = None
) -> None:
    kinds.parts(kind, name)
    try:
        answer = session.command("POST", kinds.list_path(kind), {"name": short_name or name, **body})
    except Refused as refused:
        if refused.code == "already_exists":
            _say_what_is_there(session, kind, name, refused)
        raise
    session.tell("made", kind, name, answer, doing="being made")


def _say_what_is_there(session: Session, kind: kinds.Kind, name: str, refused: Refused) -> None:
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


def _body(given: dict[str, Any]) -> dict[str, Any]:
    labels = options.pairs(given.pop("labels"), "--label")
    body = {field: value for field, value in given.items() if value is not None}
    return {**body, "labels": labels} if labels else body


def _ratio(text: str) -> int | float:
    try:
        ratio = float(text)
    except ValueError:
        raise click.UsageError(f"--overcommit takes class=ratio, and {text!r} is no number") from None
    return int(ratio) if ratio.is_integer() else ratio
