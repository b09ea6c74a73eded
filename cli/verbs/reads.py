"""`berth get`, `describe`, `explain`, `history` of any kind; `capacity`, `audit`: looking at things, now and then."""

from collections.abc import Sequence
from typing import Any

import click

from cli import description, options, output, schema, tables, terminal, units
from cli.by_kind import ByKind, Leaf, Named
from cli.connection import Query, inner
from cli.kinds import Filter, Kind, Kinds
from cli.names import completing
from cli.session import Session

AUDIT_FIELDS = ("position", "at", "actor", "outcome", "command", "resource", "reason")
AUDIT_YIELDS = ("position", "actor")
HISTORY_FIELDS = ("position", "at", "actor", "topic")
AUDIT_WIDE = (*AUDIT_FIELDS, "role", "source", "problem", "id")
CAPACITY_FIELDS = ("used", "capacity", "available", "largest_fit")
DIMENSIONS = ("region", "dc", "rack", "group", "tenant", "host")
# How filters that every kind has are also called.
SHORT_FLAGS = {"label": ("-l",), "q": ("-q", "--search")}
METAVARS = {"label": "KEY=VALUE", "q": "TEXT"}
OVERCOMMIT = "overcommit"


def _filter_option(one: Filter, kind: Kind, kinds: Kinds) -> click.Option:
    shape = schema.shape(one.schema, one.schema)
    flag = f"--{one.name.replace('_', '-')}"
    names, dest = [flag, *SHORT_FLAGS.get(one.name, ())], f"filter_{one.name}"
    help = one.description + ("; may be repeated." if one.is_repeatable else ".")
    more: dict[str, Any] = {"multiple": True} if one.is_repeatable else {"default": None}
    named = kinds.named_in(kind, one.name) or (kinds.get("tenant") if one.name in ("owner", "subtree") else None)
    match shape.word:
        case schema.SWITCH:
            return click.Option([f"{flag}/--no-{flag[2:]}", f" /--not-{flag[2:]}", dest], default=None, help=help)
        case schema.TIME:
            more |= {"type": options.past, "metavar": "TIME"}
            help = f"{one.description}: {units.TIMES}."
        case schema.CHOICE:
            more |= {"type": click.Choice(shape.choices)}
        case _:
            more |= {"metavar": METAVARS.get(one.name, "NAME")}
    return click.Option([*names, dest], help=help, shell_complete=completing(named.name) if named else None, **more)


def _get(kind: Kind, kinds: Kinds) -> click.Command:
    def sorts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [sign + name for sign in ("", "-") for name in kind.sorts if (sign + name).startswith(incomplete)]

    amounts = f", or cpu_{kind.amount_sorts[0]} and so on" if kind.amount_sorts else ""
    own = [
        *(_filter_option(one, kind, kinds) for one in kind.filters),
        click.Option(
            ["--sort"],
            metavar="[-]FIELD",
            shell_complete=sorts,
            help=f"{', '.join(kind.sorts)}{amounts}; with - before it falling.",
        ),
        click.Option(["--limit"], type=click.IntRange(1), metavar="N", help="At most so many (else all)."),
    ]

    @options.read_then
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...], sort: str | None, limit: int | None, **given: Any) -> None:
        query = _query(given)
        if names:
            if query or sort or limit:
                raise click.UsageError("filters, --sort and --limit go with a list, not with a name")
            return _show(session, kind, kind.one_name(names))
        _list(session, kind, [*query, *([("sort", sort)] if sort else [])], limit=limit)

    help = f"List {kind.plural}, or show the one of that name."
    params = [Named(kind, optional=True).argument(), *own]
    return _with(click.command(kind.plural, cls=Leaf, help=help)(run), params)


def _with(command: click.Command, params: Sequence[click.Parameter]) -> click.Command:
    """The command with parameters of its own before those that it shares with others."""
    command.params[:0] = params
    return command


def _query(given: dict[str, Any]) -> Query:
    """The filters as the API's query."""
    query: Query = []
    for dest, value in given.items():
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        words = {True: "true", False: "false"}
        query += [(dest.removeprefix("filter_"), words[v] if isinstance(v, bool) else str(v)) for v in values]
    return query


def _show(session: Session, kind: Kind, name: str) -> None:
    resource = session.read(kind, name).json(name=str)
    if session.form in ("json", "yaml"):
        return output.data(resource, form=session.form)
    overcommit = _overcommit(session, kind, [resource])
    output.resources(kind, [resource], form=session.form, headers=session.headers, overcommit=overcommit)


def _list(session: Session, kind: Kind, query: Query, *, limit: int | None) -> None:
    if session.form == "csv":
        return session.print_csv(kind.list_path, query, limit=limit)
    found = list(session.items(kind.list_path, query, limit=limit))
    overcommit = _overcommit(session, kind, found)
    output.resources(kind, found, form=session.form, headers=session.headers, overcommit=overcommit)
    if not found and session.form in ("table", "wide"):
        terminal.say(f"no {kind.plural} found", err=True)


def _overcommit(session: Session, kind: Kind, items: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The ratios of the groups that these are of: a table shows use against what is promised."""
    group = session.kinds.named_in(kind, "group")
    is_promised = kind.amounts[-1:] == ("capacity",) and OVERCOMMIT not in kind.fields and "group" in kind.fields
    if not is_promised or group is None or session.form not in ("table", "wide"):
        return {}
    names = {str(item.get("group")) for item in items}
    if len(names) == 1:
        found = [session.read(group, name).json(name=str) for name in names]
    else:
        found = list(session.items(group.list_path, []))
    return {str(one.get("name")): inner(one, OVERCOMMIT) for one in found}


def _describe(kind: Kind, kinds: Kinds) -> click.Command:
    @options.describe
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...]) -> None:
        resource = session.read(kind, kind.one_name(names)).json(name=str)
        if session.is_structured:
            return output.data(resource, form=session.form, headers=session.headers)
        terminal.say("\n".join(description.lines(kind, resource)))
        operation = resource.get("operation")
        if isinstance(operation, str) and operation:
            of = session.kinds["operation"]
            running = session.read(of, operation).json(name=str)
            terminal.say(f"\nOperation {operation}")
            terminal.say("\n".join(f"  {line}" for line in description.lines(of, running)))

    help = f"Show everything about one {kind.name}, and the operation that is under way on it."
    return _with(click.command(kind.name, cls=Leaf, help=help)(run), [Named(kind).argument()])


def _explain(kind: Kind, kinds: Kinds) -> click.Command:
    @options.read_whole
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...]) -> None:
        name = kind.one_name(names)
        found = session.get(f"/v1/explain/{kind.plural}/{kind.path_name(name)}").json(explanation=dict)
        if session.is_structured:
            return output.data(found, form=session.form, headers=session.headers)
        terminal.say("\n".join(description.value_lines(found)))

    help = f"Say why a {kind.name} runs where it runs."
    return _with(click.command(kind.name, cls=Leaf, help=help)(run), [Named(kind).argument()])


def _history(kind: Kind, kinds: Kinds) -> click.Command:
    @options.read_whole
    @click.pass_obj
    def run(session: Session, /, names: tuple[str, ...], limit: int | None) -> None:
        _print_history(session, f"/v1/history/{kind.name}/{kind.path_name(kind.one_name(names))}", limit=limit)

    limit = click.Option(["--limit"], type=click.IntRange(1), metavar="N", help="At most so many (else all).")
    help = f"Show a {kind.name}'s changes: when, by whom, from what to what."
    return _with(click.command(kind.name, cls=Leaf, help=help)(run), [Named(kind).argument(), limit])


def _print_history(session: Session, path: str, *, limit: int | None) -> None:
    if session.form == "csv":
        return session.print_csv(path, [], limit=limit)
    found = list(session.items(path, [], limit=limit))
    if session.is_structured:
        return output.data(found, form=session.form, headers=session.headers)
    shown = [{**entry, "changes": "; ".join(description.changes(entry, human=False))} for entry in found]
    if not terminal.for_a_person():
        fields = ("position", "at", "actor", "topic", "changes")
        return output.entries(shown, fields, form=session.form, headers=session.headers, noun="changes")
    for entry in found:
        head = (
            tables.cell(entry.get(field), human=True, field=field) + (" UTC" if field == "at" else "")
            for field in HISTORY_FIELDS
        )
        terminal.say(tables.GAP.join(head))
        terminal.say("\n".join(f"    {line}" for line in description.changes(entry)))


get = ByKind(
    "get",
    make=_get,
    of=lambda kind: True,
    help="List resources of a KIND, or show the one of that NAME.",
    usage="KIND [NAME] [FLAGS]",
    plural=True,
)
describe = ByKind(
    "describe",
    make=_describe,
    of=lambda kind: True,
    help="Show everything about one resource, and the operation that is under way on it.",
)
explain = ByKind(
    "explain",
    make=_explain,
    of=lambda kind: kind.is_placed,
    help="Say why something runs where it runs: berth explain vm TENANT/VM.",
)
history = ByKind(
    "history",
    make=_history,
    of=lambda kind: True,
    help="Show a resource's changes: when, by whom, from what to what.",
)


@click.command()
@click.option(
    "--by", type=click.Choice(DIMENSIONS), help="A row for each of these (else group; tenant if the token is scoped)."
)
@click.option("--region", metavar="NAME", help="Only what is in this region.")
@click.option("--dc", metavar="NAME", help="Only what is in this dc.")
@click.option("--group", metavar="NAME", help="Only what is in this group.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant and its descendants.")
@options.read_then
@click.pass_obj
def capacity(session: Session, /, by: str | None, **given: str | None) -> None:
    """Show used, capacity, available and the largest fit per class."""
    by = by or _dimension(session)
    query = [("by", by), *((name, value) for name, value in given.items() if value is not None)]
    if session.form == "csv":
        return session.print_csv("/v1/capacity", query)
    rows = list(session.items("/v1/capacity", query))
    if session.is_structured:
        return output.data(rows, form=session.form, headers=session.headers)
    if session.form == "name":
        return terminal.say("\n".join(str(row.get("name")) for row in rows))
    more = ("promised", "unpromised") if session.form == "wide" and by == "group" else ()
    table = tables.amounts_of(rows, (*CAPACITY_FIELDS, *more), by=by, human=terminal.for_a_person())
    tables.show(table, headers=session.headers)


def _dimension(session: Session) -> str:
    """What the rows are of if nobody says: a scoped token may see its tenants alone."""
    return "tenant" if session.connection.request("GET", "/v1/whoami").json(name=str).get("tenant") else "group"


@click.command()
@click.option("--actor", metavar="NAME", help="Only what this one did (a token's name).")
@click.option("--resource", metavar="KIND/NAME", help="Only what was done to this.")
@click.option("--command", metavar="COMMAND", help="Only this command, for example vm.provision.")
@click.option("--outcome", type=click.Choice(["accepted", "rejected"]), help="Only these.")
@click.option("--since", type=options.moment, metavar="MOMENT", help=f"From then on: {units.MOMENTS}.")
@click.option("--until", type=options.moment, metavar="MOMENT", help="Up to then, written in the same ways.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="The newest so many.")
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@options.read_entries
@click.pass_obj
def audit(session: Session, /, limit: int, everything: bool, **given: str | None) -> None:
    """Show who did what, when, from where, why, and what came of it; the newest last."""
    query = [(name, value) for name, value in given.items() if value is not None]
    if not everything:
        query.append(("sort", "-position"))
    if session.form == "csv":
        return session.print_csv("/v1/audit", query, limit=None if everything else limit, newest_last=not everything)
    if everything:
        found = list(session.items("/v1/audit", query))
    else:
        found = list(session.items("/v1/audit", query, limit=limit))[::-1]
    if session.is_structured:
        return output.data(found, form=session.form, headers=session.headers)
    shown = [{**entry, "problem": inner(entry, "problem").get("code")} for entry in found]
    fields = AUDIT_WIDE if session.form == "wide" else AUDIT_FIELDS
    if terminal.for_a_person() and session.form != "wide":  # why it was rejected says that it was
        shown = [{**entry, "outcome": entry["problem"] or entry.get("outcome")} for entry in shown]
    output.entries(shown, fields, form=session.form, headers=session.headers, yields=AUDIT_YIELDS, noun="commands")
