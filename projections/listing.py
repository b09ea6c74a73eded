"""What a list of the past is asked for and gives, and the order of its rows: the same as that of `pages.py` in SQL."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

COUNT_MAX = 100_000  # rows of a list; counting more would take longer than the page itself
# Of a portion, which goes over the wire as one message; a page is made of as many as it takes.
PORTION_BYTES_MAX = 4 * 1024 * 1024


class ScopeThen(msgspec.Struct, frozen=True):
    """What an actor confined to a tenant may read: names, with the time since when today's bearer has each."""

    root: str
    tenants: dict[str, int]
    groups: dict[str, int]

    def has_tenant(self, name: Any, at: int | None = None) -> bool:
        return _began(self.tenants.get(name), at)

    def has_group(self, name: Any, at: int | None = None) -> bool:
        return _began(self.groups.get(name), at)


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of one kind; what `queries.py` takes, each value as it is compared. `after` are the sort value and the key
    that the page before ended with."""

    kind: str
    filters: dict[str, Any] = {}
    sort: str = "name"
    after: tuple[Any, Any] | None = None
    limit: int = 100
    q: str | None = None
    labels: list[str] = []
    count: bool = False
    scope: ScopeThen | None = None


class CapacityQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity by anything but host, of which there is a list. `after` are the amount and the name that the page before
    ended with."""

    by: str
    filters: dict[str, str] = {}
    sort: str = "name"
    after: tuple[int, str | None] | None = None
    limit: int = 1_000
    q: str | None = None
    count: bool = False
    scope: ScopeThen | None = None


class Portion(msgspec.Struct, frozen=True):
    """The next rows of a list. `more`: others follow. `count`, if it was asked for, is COUNT_MAX + 1 at most."""

    rows: list[tuple[Any, Any, msgspec.Raw]]
    more: bool
    count: int | None = None


class Order(NamedTuple):
    """By a value, then by key. A null comes last either way, unless the order `is_total`: then there is none, and what
    is falling falls by key, too."""

    is_falling: bool
    is_total: bool

    def sorted(self, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows that begin with value and key, of which no two have one key."""
        if self.is_total:
            return sorted(rows, key=_value_and_key, reverse=self.is_falling)
        by_key = sorted(rows, key=_key)
        found = [row for row in by_key if row[0] is not None]
        found.sort(key=_value, reverse=self.is_falling)  # equals stay in the order of their keys
        return found + [row for row in by_key if row[0] is None]

    def is_behind(self, row: tuple[Any, ...], after: tuple[Any, Any]) -> bool:
        """Whether the row comes after the place where a page ended."""
        value, key = row[0], row[1]
        last, last_key = after
        if self.is_total:
            return (value, key) < (last, last_key) if self.is_falling else (value, key) > (last, last_key)
        if last is None:
            return value is None and key > last_key
        if value is None:
            return True
        is_further = value < last if self.is_falling else value > last
        return bool(is_further or (value == last and key > last_key))


def filled(rows: Iterable[tuple[Any, Any, bytes]]) -> list[tuple[Any, Any, msgspec.Raw]]:
    """The first of them, as many as a portion holds: sort value, key, document. No other is made."""
    found = []
    size = 0
    for value, key, document in rows:
        found.append((value, key, msgspec.Raw(document)))
        size += len(document)
        if size >= PORTION_BYTES_MAX:
            break
    return found


def capped(count: int) -> int:
    return min(count, COUNT_MAX + 1)


def _began(began_at: int | None, at: int | None) -> bool:
    return began_at is not None and (at is None or at >= began_at)


def _value(row: tuple[Any, ...]) -> Any:
    return row[0]


def _key(row: tuple[Any, ...]) -> Any:
    return row[1]


def _value_and_key(row: tuple[Any, ...]) -> tuple[Any, Any]:
    return row[:2]
