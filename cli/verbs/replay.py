"""`berth replay`: a real trace on the running platform, and what came of it."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from cli import options, output, tables, terminal, units
from cli.errors import Failed, Refused
from cli.replay import stage, trace
from cli.replay.player import Player
from cli.replay.stage import Stage
from cli.replay.tally import Tally, percentile
from cli.session import Session
from cli.tables import Table
from cli.verbs import verify


def _speed(text: str) -> float | None:
    """`max`, or how many seconds of the trace pass in one."""
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not (0 < factor < math.inf):
        raise click.BadParameter(f"{text!r} is neither max nor a number above 0")
    return factor


@click.command()
@click.argument("trace_path", type=options.FILE_OR_FOLDER, metavar="TRACE")
@click.option(
    "--hosts", type=options.FILE, metavar="HOSTS", help="The trace's hosts (else hosts.csv beside the trace)."
)
@click.option(
    "--strategy",
    default="least_fragmentation",
    show_default=True,
    metavar="STRATEGY",
    help="Of the group that is made.",
)
@click.option(
    "--speed", type=_speed, default="max", show_default=True, metavar="max|N", help="N s of the trace in one."
)
@click.option("--batch", type=click.IntRange(1, 1000), default=100, show_default=True, help="Creations in one request.")
@click.option(
    "--requests", type=click.IntRange(0), default=200, show_default=True, help="Creations sent singly first, and timed."
)
@options.read_whole
@click.pass_context
def replay(
    ctx: click.Context,
    trace_path: str,
    hosts: str | None,
    strategy: str,
    speed: float | None,
    batch: int,
    requests: int,
) -> None:
    """Replay TRACE (a file, or a folder with requests.csv and hosts.csv) on the running platform.

    Makes a group, racks, hosts and a tenant with ample quota of its own, keeps the trace's order, and checks the
    platform's accounts at the end. Exit 1 if they do not add up.
    """
    session = ctx.find_object(Session)
    assert session is not None
    read = trace.read(trace_path, hosts)
    run = stage.run_name(read.name)
    terminal.say(f"making {run}: {len(read.machines)} hosts", err=True)
    built = stage.build(session.connection, read, strategy=strategy, run=run)
    tally = Tally(built.capacity, requests=len(read.requests))
    player = Player(session.connection, built, tally, singles=requests, batch=batch)
    started = time.monotonic()
    try:
        with _progress(len(read.requests)) as show:
            player.play(read.requests, pace=_pace(speed, read.requests), progress=show)
    except KeyboardInterrupt:
        _print(session, _report(read.name, built, strategy, tally, time.monotonic() - started))
        raise Failed(
            f"interrupted after {tally.done:,} of {len(read.requests):,} requests; "
            f"what was placed by then stays, as tenant {built.tenant} in group {built.group}"
        ) from None
    report = _report(read.name, built, strategy, tally, time.monotonic() - started)
    try:
        report["violations"] = len(verify.ask(session.connection)["violations"])
    except Refused:
        _print(session, report)  # what the replay found is not lost because the caller may not verify
        raise
    _print(session, report)
    ctx.exit(1 if report["violations"] else 0)


def _report(name: str, built: Stage, strategy: str, tally: Tally, elapsed_s: float) -> dict[str, Any]:
    p50_ms, p99_ms = percentile(tally.single_ms, 0.5), percentile(tally.single_ms, 0.99)
    return {
        "trace": name,
        "group": built.group,
        "tenant": built.tenant,
        "strategy": strategy,
        "hosts": built.hosts,
        "requests": tally.done,
        "placed": tally.placed,
        "refused": tally.refused,
        "refused_by_reason": dict(tally.refused_by_reason.most_common()),
        "deleted": tally.deleted,
        "deletions_failed": tally.deletions_failed,
        "deletions_skipped": tally.deletions_skipped,
        "utilisation_at_first_refusal": tally.at_first_refusal,
        "utilisation_at_end": tally.utilisation(),
        "utilisation": [sample._asdict() for sample in tally.samples],
        "elapsed_s": round(elapsed_s, 2),
        "requests_per_s": round(tally.done / elapsed_s, 1) if elapsed_s > 0 else 0.0,
        "p50_ms": None if p50_ms is None else round(p50_ms, 2),
        "p99_ms": None if p99_ms is None else round(p99_ms, 2),
        "violations": None,
    }


def _print(session: Session, report: dict[str, Any]) -> None:
    if session.is_structured:
        return output.data(report, form=session.form, headers=session.headers)
    for line in lines(report):
        terminal.say(line)


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person."""
    yield f"{report['trace']} on {report['hosts']} hosts of group {report['group']}, {report['strategy']}"
    yield ""
    yield f"placed     {report['placed']:,}"
    yield f"refused    {report['refused']:,}"
    for reason, count in report["refused_by_reason"].items():
        yield f"             {count:>7,}  {terminal.printable(reason)}"
    if report["deleted"] or report["deletions_failed"] or report["deletions_skipped"]:
        failed, skipped = report["deletions_failed"], report["deletions_skipped"]
        yield f"deleted    {report['deleted']:,} ({failed:,} failed, {skipped:,} of VMs that were refused)"
    yield ""
    yield "utilisation over the trace"
    classes = units.class_order({name for sample in report["utilisation"] for name in sample["utilisation"]})
    rows = [
        [f"{sample['requests']:,}", f"{sample['time_s']:,.0f}", *_percents(sample["utilisation"], classes)]
        for sample in report["utilisation"]
    ]
    if report["utilisation_at_first_refusal"] is not None:
        rows.append(["first refusal", "", *_percents(report["utilisation_at_first_refusal"], classes)])
    titles = ["requests", "time s", *(units.title(name) for name in classes)]
    yield from (f"  {line}" for line in tables.text_lines(Table(titles, rows, frozenset(range(len(titles))))))
    yield ""
    yield f"time       {report['elapsed_s']:,.1f} s, {report['requests_per_s']:,.1f} requests/s"
    if report["p50_ms"] is not None:
        yield f"a request  p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms (sent singly)"
    yield f"invariants {'not checked' if report['violations'] is None else str(report['violations']) + ' violations'}"


def _percents(utilisation: dict[str, float], classes: list[str]) -> list[str]:
    return [f"{utilisation[name]:.1%}" if name in utilisation else "–" for name in classes]


def _pace(speed: float | None, requests: list[trace.Request]) -> Callable[[float], None] | None:
    if speed is None or not requests:
        return None
    started, first_s, factor = time.monotonic(), requests[0].time_s, speed

    def wait_until_due(time_s: float) -> None:
        time.sleep(max(0.0, started + (time_s - first_s) / factor - time.monotonic()))

    return wait_until_due


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr if a person looks at it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replaying", total=total)
        yield lambda done: progress.update(task, completed=done)
