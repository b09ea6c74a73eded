"""A resource's changes, each with its document before and after: a fold of its own stream alone."""

from collections.abc import Iterable
from typing import Any

from domain.fleet import Fleet
from domain.values import to_rfc3339
from eventlog.codec import Row, decode
from projections.documents import own


def history(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry an event of the stream, rising. Where it begins, `before` is null; where it ends, `after` is."""
    fleet = Fleet()
    before: dict[str, Any] | None = None
    changes: list[dict[str, Any]] = []
    for row in rows:
        recorded = decode(row)
        entry = fleet.fold(recorded)
        # An operation that is over has left the fleet, and stays to be seen.
        is_there = row.stream in fleet.entries or row.stream.startswith("operation/")
        after = own(row.stream, entry) if entry is not None and is_there else None
        changes.append(
            {
                "position": row.position,
                "at": to_rfc3339(recorded.at),
                "actor": recorded.actor,
                "command": recorded.command,
                "topic": row.topic,
                "before": before,
                "after": after,
            }
        )
        before = after
    return changes
