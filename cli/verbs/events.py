"""`berth events`: the log itself, and the log as it grows (server-sent events)."""

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from cli import options, output, tables, terminal, units
from cli.connection import NOT_BERTH, Connection, Query
from cli.errors import Failed, Unreachable
from cli.session import Session

FIELDS = ("position", "at", "actor", "stream", "topic")
# Of an endless table nobody knows how wide its columns will be.
LINE_WIDTHS = (7, 8, 10, 32, 0)
SILENCE_S_MAX = 40.0  # the server comments every 15 s; after two missed ones the line is taken for dead
RECONNECTS_MAX = 10
BEFORE_FOLLOWING = 10


@click.command()
@click.option("--after", type=options.moment, metavar="MOMENT", help=f"After then (exclusive): {units.MOMENTS}.")
@click.option("--until", type=options.moment, metavar="MOMENT", help="Up to then (inclusive), in the same ways.")
@click.option("--stream", metavar="KIND/NAME", help="Only of this resource.")
@click.option("--topic", metavar="TOPIC", help="Only of this topic, for example vm.scheduled.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="At most so many (else the newest 50, or all after). With --follow it ends after so many, the next ones if "
    "--after does not say from where.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on as events happen, until Ctrl-C.")
@options.read_entries
@click.pass_obj
def events(
    session: Session,
    after: str | None,
    until: str | None,
    stream: str | None,
    topic: str | None,
    limit: int | None,
    follow: bool,
) -> None:
    """Show the event log; with --follow, live. `-o json` prints one event a line then."""
    if follow and until:
        raise click.UsageError("--follow has no end; leave --until out")
    named = {"after": after, "until": until, "stream": stream, "topic": topic}
    query = [(name, value) for name, value in named.items() if value is not None]
    if after is None:
        query.append(("sort", "-position"))
        limit, awaited = (1 if limit else BEFORE_FOLLOWING, limit) if follow else (limit or 50, None)
    else:
        awaited = limit if follow else None
    if session.form == "csv" and not follow:
        return session.print_csv("/v1/events", query, limit=limit, newest_last=after is None)
    found = list(session.items("/v1/events", query, limit=limit))
    if after is None:
        found.reverse()
    if not follow:
        return output.entries(found, FIELDS, form=session.form, headers=session.headers, noun="events")
    if awaited is not None and after is None:  # what was found is only where the next ones begin
        after, found = str(found[-1].get("position")) if found else None, []
    try:
        _follow(session, found, after=after, stream=stream, topic=topic, limit=awaited)
    except KeyboardInterrupt:  # the way in which one ends it
        return


def _follow(
    session: Session,
    found: list[dict[str, Any]],
    *,
    after: str | None,
    stream: str | None,
    topic: str | None,
    limit: int | None,
) -> None:
    """Print what was found, then events as they happen, until `limit` or until the reader goes."""
    left = None if limit is None else limit - len(found)
    for event in found:
        if not _print(session, event):
            return
    last = str(found[-1].get("position")) if found else after
    if left == 0:
        return
    for event in live(session.connection, after=last):
        is_wanted = (stream is None or event.get("stream") == stream) and (topic is None or event.get("topic") == topic)
        if not is_wanted:
            continue
        left = None if left is None else left - 1
        if not _print(session, event) or left == 0:
            return


class Message(NamedTuple):
    """One server-sent event: `id` and `data` as they came."""

    id: str | None
    data: str


def messages(lines: Iterable[bytes]) -> Iterator[Message]:
    """Server-sent events from the lines of a stream; comments are skipped, a message ends with an empty line."""
    identity: str | None = None
    data: list[str] = []
    for raw in lines:
        line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        if not line:
            if data:
                yield Message(identity, "\n".join(data))
            data = []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "id":
            identity = value


def live(connection: Connection, *, after: str | None) -> Iterator[dict[str, Any]]:
    """Events as they happen, after that position; a broken line is taken up again where it broke, so none is missed.

    Raises:
        Unreachable: the server stayed away.
    """
    last, failures = after, 0
    while True:
        own = connection.another()
        try:
            query: Query = [("after", last)] if last else []
            response = own.stream("/v1/events/stream", query=query, headers={}, timeout_s=SILENCE_S_MAX)
            for message in messages(response):
                failures = 0
                event = _event(message)
                last = message.id or last
                yield event
        except (OSError, http.client.HTTPException) as error:
            if failures >= RECONNECTS_MAX:
                raise Unreachable(f"{connection.url} is gone: {error}") from None
        finally:
            own.close()
        failures += 1
        if failures > RECONNECTS_MAX:
            raise Unreachable(f"{connection.url} keeps ending the stream")
        time.sleep(min(0.2 * 2.0**failures, 5.0))


def _event(message: Message) -> dict[str, Any]:
    try:
        event = json.loads(message.data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise Failed(NOT_BERTH)
    return event


def _print(session: Session, event: dict[str, Any]) -> bool:
    """One event a line; False if the reader is gone."""
    if session.is_structured:
        return terminal.data(output.json_text(event) + "\n")
    human = terminal.for_a_person()
    cells = [tables.cell(event.get(field), human=human, field=field) for field in FIELDS]
    if not human:
        return terminal.data("\t".join(cells) + "\n")
    line = tables.GAP.join(text.ljust(wide) for text, wide in zip(cells, LINE_WIDTHS, strict=True))
    return terminal.data(terminal.cut(line.rstrip(), terminal.columns()) + "\n")
