"""`berth set`, `delete`, `move`, `resize`, `start`, `stop`, `cordon`, `uncordon`, `suspend`, `resume`."""

from typing import Any

import click

from cli import kinds, options
from cli.connection import ANY_VERSION, ATTEMPTS_MAX, Answer
from cli.errors import Refused
from cli.kinds import Kind
from cli.options import Verb
from cli.session import Session

PROTECTABLE = (kinds.QUOTA, kinds.TENANT, kinds.RACK, kinds.GROUP, kinds.HOST, kinds.VM)
DELETABLE = (kinds.TENANT, kinds.RACK, kinds.GROUP, kinds.HOST, kinds.QUOTA, kinds.VM, kinds.TOKEN)


@click.command(cls=Verb)
@options.kind(*PROTECTABLE)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options.amounts
@click.option("--vms", type=click.IntRange(0), metavar="N", help="How many VMs.")
@click.option("--limit", "more", type=options.assignment, multiple=True, metavar="CLASS=N", help="Any class or count.")
@click.option("--unlimited", is_flag=True, help="No limit in any class: the quota is access alone.")
@click.option("--force", is_flag=True, help="Even below what is used now; the tenant is over quota then.")
@click.option("--protected/--no-protected", default=None, help="Refuse to delete it, or allow it again.")
@options.write
@click.pass_obj
def set_(
    session: Session,
    kind: str,
    names: tuple[str, ...],
    cpu: int | None,
    memory: int | None,
    storage: int | None,
    gpu: int | None,
    vms: int | None,
    more: tuple[tuple[str, int], ...],
    unlimited: bool,
    force: bool,
    protected: bool | None,
) -> None:
    """Set a quota's limits, or the protection of anything.

    \b
    berth set quota GROUP/TENANT --cpu 64 --memory 256GiB
    berth set vm TENANT/VM --protected

    The limits are replaced as a whole: a class that is not named is unlimited, and 0 forbids it.
    """
    of = kinds.find(kind, among=PROTECTABLE)
    name = kinds.one_name(of, names)
    limits = options.resources(cpu, memory, storage, gpu, (*more, *((("vms", vms),) if vms is not None else ())))
    if of is not kinds.QUOTA:
        if protected is None or limits or unlimited or force:
            raise click.UsageError(f"of a {of.name} --protected or --no-protected is set; a VM's amounts: berth resize")
        answer = session.command("PATCH", kinds.path(of, name), {"protected": protected})
        return session.tell("protected" if protected else "no longer protected", of, name, answer)
    if unlimited == bool(limits) and (protected is None or unlimited):
        raise click.UsageError("say at least one limit (--cpu, --memory, --limit class=n …), or --unlimited")
    body: dict[str, Any] = {"force": True} if force else {}
    if limits or unlimited:
        body["limits"] = limits
    if protected is not None:
        body["protected"] = protected
    session.tell("set", of, name, _put_quota(session, name, body))


def _put_quota(session: Session, name: str, body: dict[str, Any]) -> Answer:
    """A PUT replaces all of a quota: what stands there beside `body` is said again, for the version that was read.

    Use changes the version too. Of a quota so busy that no version lasts until the PUT, what people wrote is compared
    instead: if it stays the same from look to look, the last attempt is for any version.
    """
    said: dict[str, Any] | None = None
    position = None
    for attempt in range(1, ATTEMPTS_MAX + 1):
        now = _if_there(session, kinds.QUOTA, name, min_position=position)
        standing = now.json(limits=dict) if now else None
        kept = {"limits": standing["limits"], **kinds.kept(standing, body)} if standing else {}
        before, said = said, {**kept, **body}
        is_last_and_same = attempt == ATTEMPTS_MAX and said == before
        if_match = (ANY_VERSION if is_last_and_same else now.etag) if now else None
        try:
            path = kinds.path(kinds.QUOTA, name)
            return session.command("PUT", path, said, if_match=if_match, if_none_match=now is None)
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


@click.command(cls=Verb)
@options.kind(*DELETABLE)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options.write_and_wait
@click.pass_obj
def delete(session: Session, kind: str, names: tuple[str, ...]) -> None:
    """Delete resources of a KIND by their names (token: revoke it). Stops at the first refusal."""
    of = kinds.find(kind, among=DELETABLE)
    found = kinds.full_names(of, names)
    if session.key and len(found) > 1:
        raise click.UsageError("one --idempotency-key cannot name several deletions")
    paths = [(name, kinds.path(of, name)) for name in found]
    for name, path in paths:
        session.tell("deleted", of, name, session.command("DELETE", path), doing="being deleted")


@click.command(cls=Verb)
@options.kind(kinds.HOST, kinds.TENANT)
@click.argument("name")
@click.option("--group", metavar="GROUP", help="Where a host goes.")
@click.option("--parent", metavar="TENANT", help="Under which tenant a tenant goes.")
@click.option("--top", is_flag=True, help="Make the tenant one without a parent.")
@click.option("--force", is_flag=True, help="Even if what runs breaks a limit or over-commit then.")
@options.write
@click.pass_obj
def move(session: Session, kind: str, name: str, group: str | None, parent: str | None, top: bool, force: bool) -> None:
    """Move a host to another group, or a tenant to another parent, with all that is in use."""
    of = kinds.find(kind, among=(kinds.HOST, kinds.TENANT))
    if of is kinds.HOST:
        if group is None or parent or top:
            raise click.UsageError("a host moves to a group: berth move host NAME --group GROUP")
        body: dict[str, Any] = {"group": group}
    else:
        if group or top == (parent is not None):
            raise click.UsageError("a tenant moves to a parent: berth move tenant NAME --parent TENANT (or --top)")
        body = {"parent": parent}
    if force:
        body["force"] = True
    where = f"to group {group}" if group else f"under tenant {parent}" if parent else "to the top"
    session.tell(f"moved {where}", of, name, session.command("POST", f"{kinds.path(of, name)}/move", body))


@click.command(cls=Verb)
@options.kind(kinds.VM)
@click.argument("name")
@options.amounts
@click.option("--resource", "more", type=options.assignment, multiple=True, metavar="CLASS=N", help="Any other class.")
@options.write_and_wait
@click.pass_obj
def resize(
    session: Session,
    kind: str,
    name: str,
    cpu: int | None,
    memory: int | None,
    storage: int | None,
    gpu: int | None,
    more: tuple[tuple[str, int], ...],
) -> None:
    """Give a VM other amounts; classes that are not named stay as they are, 0 removes one."""
    of = kinds.find(kind, among=(kinds.VM,))
    wanted = options.resources(cpu, memory, storage, gpu, more)
    if not wanted:
        raise click.UsageError("say at least one amount: --cpu, --memory, --storage, --gpu or --resource class=n")
    answer = session.command("POST", f"{kinds.path(of, name)}/resize", {"resources": wanted})
    session.tell("resized", of, name, answer, doing="being resized")


def _single(
    kind: Kind, action: str, done: str, text: str, *, doing: str | None = None, waits: bool = False
) -> click.Command:
    """A verb that is one POST without a body, for one kind, whose word may be left out: `berth cordon [host] NAME…`."""

    def run(session: Session, words: tuple[str, ...]) -> None:
        names = words
        if len(words) > 1 and words[0].lower() in (kind.name, kind.plural, *kind.short):
            names = words[1:]
        elif len(words) > 1 and kinds.is_a_word_for_one(words[0]):
            kinds.find(words[0], among=(kind,))
        if session.key and len(names) > 1:
            raise click.UsageError("one --idempotency-key cannot name several commands")
        paths = [(name, f"{kinds.path(kind, name)}/{action}") for name in names]
        for name, path in paths:
            session.tell(done, kind, name, session.command("POST", path, {}), doing=doing)

    decorated = (options.write_and_wait if waits else options.write)(click.pass_obj(run))
    decorated = click.argument("words", nargs=-1, required=True, metavar=f"[{kind.name}] {kind.usage}...")(decorated)
    return click.command(action, cls=Verb, help=text)(decorated)


start = _single(kinds.VM, "start", "started", "Start a VM.", doing="starting", waits=True)
stop = _single(kinds.VM, "stop", "stopped", "Stop a VM; it keeps its claims.", doing="stopping", waits=True)
cordon = _single(kinds.HOST, "cordon", "cordoned", "Place nothing new on a host; what runs there stays.")
uncordon = _single(kinds.HOST, "uncordon", "uncordoned", "Place on a host again.")
suspend = _single(
    kinds.TENANT, "suspend", "suspended", "Refuse a tenant and its descendants new workload; nothing is stopped."
)
resume = _single(kinds.TENANT, "resume", "resumed", "Lift a tenant's suspension.")
