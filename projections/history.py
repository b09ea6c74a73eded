"""A resource's changes, each with its document before and after: a fold of its own stream alone."""

from collections.abc import Iterable
from typing import Any

from domain.fleet import Fleet
from domain.kinds import BY_NAME
from domain.values import kind_of, to_rfc3339
from eventlog.codec import Row, decode
from projections.resources import own


class StreamHistory:
    """What each event of one stream changed, told in their order: where it begins, `before` is null; where it ends,
    `after` is."""

    def __init__(self) -> None:
        self._fleet = Fleet()
        self._before: dict[str, Any] | None = None

    def of(self, row: Row) -> dict[str, Any]:
        recorded = decode(row)
        entry = self._fleet.fold(recorded)
        after = own(row.stream, entry) if entry is not None and self._is_shown(row.stream) else None
        before, self._before = self._before, after
        return {
            "position": row.position,
            "at": to_rfc3339(recorded.at),
            "actor": recorded.actor,
            "command": recorded.command,
            "topic": row.topic,
            "before": before,
            "after": after,
        }

    def _is_shown(self, stream: str) -> bool:
        return self._fleet.entry(stream) is not None or BY_NAME[kind_of(stream)].outlives_its_end


def history(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One entry an event of the stream, rising."""
    changes = StreamHistory()
    return [changes.of(row) for row in rows]
