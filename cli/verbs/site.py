"""`berth apply -f` and `berth diff -f`: a site as a file."""

import sys
from pathlib import Path
from typing import Any

import click

from cli import operations, options, output, tables, terminal
from cli.connection import ANY_VERSION, ATTEMPTS_MAX
from cli.errors import Failed, Refused
from cli.options import Verb
from cli.session import Session
from cli.site import document, plan, rehearsal
from cli.site.document import Document
from cli.site.plan import Step

files = click.option(
    "-f",
    "--file",
    "paths",
    multiple=True,
    required=True,
    type=options.FILE,
    metavar="FILE",
    help="A YAML file, or - for stdin; may be repeated.",
)


@click.command(cls=Verb)
@files
@options.write_many_and_wait
@click.pass_obj
def apply(session: Session, paths: tuple[str, ...]) -> None:
    """Make the platform what a file says: what is missing is created, what differs is updated.

    Nothing is sent before all documents are read and checked. Applied again it changes nothing. It deletes nothing.
    Stops at the first refusal; what was done by then stays, and the next run goes on from there. With --wait it
    waits for what was under way before, too. Exit 1 if something is there but has failed or is stuck.
    """
    documents = _read(session, paths)
    steps = plan.steps(documents, plan.current_of(session, documents))
    if session.dry_run:
        refused = _rehearse(session, steps)
        for step in steps if refused is None and not session.is_structured else ():
            _tell(session, step)
        _sum_up(session, steps, refused=refused)
        if refused:
            raise refused[1]
        return _must_be_well(session, steps)
    done: list[Step] = []
    try:
        for step in steps:
            done.append(_carry_out(session, step))
            if not session.is_structured:
                _tell(session, done[-1])
    except Failed:
        where, left = steps[len(done)].document, len(steps) - len(done) - 1
        terminal.say(
            f"berth: {where.place} was not done; {len(done)} done before it, {left} not tried. Mend it and apply "
            "again: what is done stays as it is.",
            err=True,
        )
        raise
    finally:
        _sum_up(session, done)
    _must_be_well(session, done)


def _must_be_well(session: Session, steps: list[Step]) -> None:
    """
    Raises:
        Failed: some of what is there does not become what its file says without a person.
    """
    found: list[str] = []
    for step in steps:
        name = f"{step.document.kind.name} {step.document.name}"
        if step.state in step.document.kind.failed_states:
            why = f" ({step.now['reason']})" if step.now.get("reason") else ""
            found.append(f"{name} is {step.state}{why}: delete it and apply again, `berth delete {name}`")
        else:
            try:
                operations.must_go_on(session.connection, step.operation)
            except operations.Stuck as stuck:
                found.append(f"{name} is {step.state}: {stuck.message}")
    if found:
        raise Failed(terminal.escaped("\n  ".join(found)))


@click.command()
@files
@click.option("--exit-code", is_flag=True, help="Exit 1 if anything differs.")
@options.read_whole
@click.pass_context
def diff(ctx: click.Context, paths: tuple[str, ...], exit_code: bool) -> None:
    """Show field by field what `apply` would change, and whether the server would refuse it."""
    session = ctx.find_object(Session)
    assert session is not None
    documents = _read(session, paths)
    steps = plan.steps(documents, plan.current_of(session, documents))
    if session.is_structured:
        output.data([_entry(step) for step in steps if step.outcome != "unchanged"], form=session.form)
    for step in steps if not session.is_structured else ():
        if step.outcome != "unchanged":
            terminal.say("\n".join(_difference_lines(step)))
    if refused := _rehearse(session, steps, is_reading=True):
        raise refused[1]
    if exit_code and any(step.outcome != "unchanged" for step in steps):
        ctx.exit(1)


def _rehearse(session: Session, steps: list[Step], *, is_reading: bool = False) -> tuple[Step, Refused] | None:
    """Ask the server, and say what the answer rests on. Who only reads may not ask."""
    asked = rehearsal.rehearse(session, steps)
    if asked.refused and is_reading and asked.refused[1].code == "forbidden":
        terminal.say("berth: this token may not do that, so whether the server would take it is not known", err=True)
        return None
    if asked.refused:
        terminal.say(f"berth: {asked.refused[0].document.place} would be refused; nothing was written", err=True)
    elif asked.parts > 1:
        terminal.say(
            f"berth: too many changes to be decided as one: in {asked.parts} parts, each by itself, so that what they "
            "use of quotas and hosts together was not added up",
            err=True,
        )
    return asked.refused


def _difference_lines(step: Step) -> list[str]:
    is_new = step.outcome == "created"
    lines = [f"{'+' if is_new else '~'} {step.document.kind.name} {step.document.name}"]
    for field, old, new in step.differences:
        before = "" if is_new else f"{tables.cell(old, human=False) or '–'} → "
        lines.append(f"    {field}: {before}{tables.cell(new, human=False) or '–'}")
    return lines


def _read(session: Session, paths: tuple[str, ...]) -> list[Document]:
    found: dict[tuple[str, str], Document] = {}
    for path in paths:
        for entry in document.read(_text(path), file="stdin" if path == "-" else path, kinds=session.kinds):
            key = (entry.kind.name, entry.name)
            if key in found:
                raise Failed(f"{entry.place}: {entry.kind.name} {entry.name} stands already in {found[key].place}")
            found[key] = entry
    if not found:
        raise Failed(f"{', '.join(paths)}: there is no document in it")
    return document.in_order(list(found.values()), session.kinds)


def _text(path: str) -> str:
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed(f"{path} is not UTF-8 text") from None


def _carry_out(session: Session, step: Step, *, attempt: int = 1) -> Step:
    if session.wait_s is not None and step.operation:
        operations.ended(session.connection, step.operation, timeout_s=session.wait_s)
        step = plan.step(step.document, plan.read(session, step.document))
    try:
        for request in step.requests:
            is_put = request.method == "PUT" and request.if_match is None  # of a quota that is not there yet
            session.command(request.method, request.path, request.body, if_match=request.if_match, if_none_match=is_put)
    except Refused as refused:
        if refused.code not in ("already_exists", "version_mismatch") or attempt == ATTEMPTS_MAX:
            raise
        # It was made or changed between our look and now, or the read model had not caught up with the run before.
        now = plan.read(session, step.document, min_position=refused.position)
        again = plan.step(step.document, now)
        if attempt + 1 == ATTEMPTS_MAX and [r.body for r in again.requests] == [r.body for r in step.requests]:
            # A quota so busy that no version lasts until the PUT: what people wrote stays the same from look to look.
            again = again._replace(requests=[r._replace(if_match=r.if_match and ANY_VERSION) for r in again.requests])
        return _carry_out(session, again, attempt=attempt + 1)
    return step


def _tell(session: Session, step: Step) -> None:
    name = f"{step.document.kind.name} {step.document.name}"
    if session.form == "name":
        return terminal.say(step.document.name)
    would = "would be " if session.dry_run and step.outcome != "unchanged" else ""
    fields = ", ".join(difference.field for difference in step.differences) if step.outcome == "updated" else ""
    said = f"{name} {would}{step.outcome}" + (f" ({fields})" if fields else "")
    if step.outcome == "unchanged" and step.state not in (None, "active", "available"):
        said += f", {step.state}" + (f", under way: operation {step.operation}" if step.operation else "")
    terminal.say(terminal.printable(said))


def _sum_up(session: Session, done: list[Step], *, refused: tuple[Step, Refused] | None = None) -> None:
    if session.is_structured:
        entries = [_entry(step) for step in done]
        for step, entry in zip(done, entries, strict=True):
            if refused and step is refused[0]:
                entry |= {"outcome": "refused", "problem": refused[1].problem}
        return output.data(entries, form=session.form)
    if refused:
        return
    counts = [f"{sum(step.outcome == word for step in done)} {word}" for word in ("created", "updated", "unchanged")]
    terminal.say(f"{', '.join(counts)}" + (" (dry run, nothing written)" if session.dry_run else ""), err=True)


def _entry(step: Step) -> dict[str, Any]:
    return {
        "kind": step.document.kind.name,
        "name": step.document.name,
        "outcome": step.outcome,
        "state": step.state,
        "differences": [difference._asdict() for difference in step.differences],
    }
