"""`berth get`, `describe`, `capacity`, `explain`, `history`, `audit`: looking at things, now and then."""

from collections.abc import Sequence
from typing import Any

import click

from cli import description, kinds, options, output, tables, terminal, units
from cli.connection import Query, inner
from cli.kinds import COMMON_FILTERS, Kind
from cli.session import Session

AUDIT_FIELDS = ("position", "at", "actor", "outcome", "command", "resource", "reason")
AUDIT_YIELDS = ("position", "actor")
HISTORY_FIELDS = ("position", "at", "actor", "topic")
AUDIT_WIDE = (*AUDIT_FIELDS, "role", "source", "problem", "id")
CAPACITY_FIELDS = ("used", "capacity", "available", "largest_fit")
DIMENSIONS = ("region", "dc", "rack", "group", "tenant", "host")
FILTER_FLAGS = (
    "tenant",
    "subtree",
    "group",
    "host",
    "region",
    "dc",
    "room",
    "rack",
    "set",
    "cluster",
    "pool",
    "parent",
)


def _filters(function: Any) -> Any:
    flags = [
        *(click.option(f"--{name}", metavar="NAME", help=f"Only those of this {name}.") for name in FILTER_FLAGS),
        click.option("--over/--not-over", default=None, help="Only quotas whose use is over their limit (or is not)."),
        click.option(
            "--rules-broken/--no-rules-broken", default=None, help="Only VMs with (or without) a broken rule."
        ),
        click.option("--target", metavar="KIND/NAME", help="Only operations on this."),
        click.option("--operation-kind", "kind_", metavar="KIND", help="Only operations of this kind."),
        click.option("--state", multiple=True, metavar="STATE", help="Only in this state; may be repeated."),
        click.option("--owner", metavar="TENANT", help="Only what this tenant owns."),
        click.option("--external-id", metavar="ID", help="Only the one with your own key."),
        click.option(
            "--updated-since", type=options.past, metavar="TIME", help=f"Only what changed since: {units.TIMES}."
        ),
        click.option(
            "-l", "--label", multiple=True, metavar="KEY=VALUE", help="Only with this label; may be repeated."
        ),
        click.option("-q", "--search", "q", metavar="TEXT", help="Only where this text occurs."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


@click.command()
@options.kind()
@click.argument("names", nargs=-1, metavar="[NAME]")
@_filters
@click.option("--sort", metavar="FIELD", help="For example name, -cpu_available.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many (else all).")
@options.read_then
@click.pass_obj
def get(
    session: Session, /, kind: str, names: tuple[str, ...], sort: str | None, limit: int | None, **given: Any
) -> None:
    """List resources of a KIND, or show the one of that NAME."""
    of = kinds.find(kind)
    query = _query(of, given)
    if names:
        name = kinds.one_name(of, names)
        if query or sort or limit:
            raise click.UsageError("filters, --sort and --limit go with a list, not with a name")
        resource = session.read(of, name).json(name=str)
        if session.form in ("json", "yaml"):
            return output.data(resource, form=session.form)
        overcommit = _overcommit(session, of, [resource])
        return output.resources(of, [resource], form=session.form, headers=session.headers, overcommit=overcommit)
    if session.as_of:
        raise click.UsageError(
            f"--as-of shows one resource as it was: berth get {of.name} {of.usage} --as-of MOMENT. "
            f"Lists of the past come later; berth history {of.name} {of.usage} shows what changed"
        )
    query += [("sort", sort)] if sort else []
    if session.form == "csv":
        return session.print_csv(kinds.list_path(of), query, limit=limit)
    found = list(session.items(kinds.list_path(of), query, limit=limit))
    overcommit = _overcommit(session, of, found)
    output.resources(of, found, form=session.form, headers=session.headers, overcommit=overcommit)
    if not found and session.form in ("table", "wide"):
        terminal.say(f"no {of.plural} found", err=True)


def _overcommit(session: Session, kind: Kind, items: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The ratios of the groups that these hosts are of: a table shows use against what is promised."""
    if kind is not kinds.HOST or session.form not in ("table", "wide"):
        return {}
    names = {str(item.get("group")) for item in items}
    if len(names) == 1:
        found = [session.read(kinds.GROUP, name).json(name=str) for name in names]
    else:
        found = list(session.items(kinds.list_path(kinds.GROUP), []))
    return {str(group.get("name")): inner(group, "overcommit") for group in found}


def _query(kind: Kind, given: dict[str, Any]) -> Query:
    """The filters as the API's query; one that does not go with the kind is wrong use, with those that do."""
    given = {("kind" if field == "kind_" else field): value for field, value in given.items()}
    allowed = {*kind.filters, *COMMON_FILTERS}
    query: Query = []
    for field, value in given.items():
        if value is None or value == ():
            continue
        if field not in allowed:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in (*kind.filters, "state", "label", "owner"))
            raise click.UsageError(f"{kind.plural} cannot be filtered by {field}; they can by {flags}")
        if isinstance(value, bool):
            query.append((field, "true" if value else "false"))
        elif isinstance(value, tuple):
            query += [(field, entry) for entry in value]
        else:
            query.append((field, str(value)))
    return query


@click.command()
@options.kind()
@options.name
@options.describe
@click.pass_obj
def describe(session: Session, kind: str, names: tuple[str, ...]) -> None:
    """Show everything about one resource, and the operation that is under way on it."""
    of = kinds.find(kind)
    name = kinds.one_name(of, names)
    resource = session.read(of, name).json(name=str)
    if session.is_structured:
        return output.data(resource, form=session.form, headers=session.headers)
    terminal.say("\n".join(description.lines(of, resource)))
    operation = resource.get("operation")
    if isinstance(operation, str) and operation:
        running = session.read(kinds.OPERATION, operation).json(name=str)
        terminal.say(f"\nOperation {operation}")
        terminal.say("\n".join(f"  {line}" for line in description.lines(kinds.OPERATION, running)))


@click.command()
@click.option(
    "--by", type=click.Choice(DIMENSIONS), help="A row for each of these (else group; tenant if the token is scoped)."
)
@click.option("--region", metavar="NAME", help="Only what is in this region.")
@click.option("--dc", metavar="NAME", help="Only what is in this dc.")
@click.option("--group", metavar="NAME", help="Only what is in this group.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant and its descendants.")
@options.read
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
    return "tenant" if session.get("/v1/whoami").json(name=str).get("tenant") else "group"


@click.command()
@options.kind(kinds.VM)
@click.argument("name")
@options.read_whole
@click.pass_obj
def explain(session: Session, kind: str, name: str) -> None:
    """Say why a VM runs where it runs: berth explain vm TENANT/VM."""
    kinds.find(kind, among=(kinds.VM,))
    found = session.get(kinds.explanation_path(name)).json(vm=str)
    if session.is_structured:
        return output.data(found, form=session.form, headers=session.headers)
    terminal.say("\n".join(description.value_lines(found)))


@click.command()
@options.kind()
@options.name
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many (else all).")
@options.read_whole
@click.pass_obj
def history(session: Session, kind: str, names: tuple[str, ...], limit: int | None) -> None:
    """Show a resource's changes: when, by whom, from what to what."""
    of = kinds.find(kind)
    path = f"/v1/history/{of.name}/{kinds.path_name(of, kinds.one_name(of, names))}"
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
