"""What a view is declared with: fields, and filters that are no field. Each says what it is twice, as SQL for the rows
of the read model and as a function for a fleet of the past; a test asks both and wants the same.

Keys are full names: of `vm/acme/web-1` it is `acme/web-1`.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol

import msgspec
from sqlalchemy import BigInteger
from sqlalchemy.types import TypeEngine

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kind import Kind
from domain.kinds import owner_of
from domain.values import to_rfc3339
from projections.field_types import (
    BOOLEAN,
    LABELS,
    MAYBE,
    NATURAL,
    STRING,
    TIME,
    Name,
    Schema,
    ref,
)

OfEntry = Callable[[str, Entry], Any]
OverFleet = Callable[[Fleet, str, Entry], Any]

# Most of a command's times are the command's own: 2 × faster answers for a VM.
shown_time = lru_cache(maxsize=1024)(to_rfc3339)


class Scope(Protocol):
    """What an actor confined to a tenant may read, now or at a time in microseconds since 1970."""

    def has_tenant(self, name: Any, at: int | None = None) -> bool: ...

    def has_group(self, name: Any, at: int | None = None) -> bool: ...


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of what is shown.

    A field of the resource's own has `shown`, a function of the entry alone, so that it can stand in the table; all
    others are told by the view's `others`. Filters and sorts look at `stored` (default: what is shown), or at `joined`
    of what belongs to others; `sql` is the same in the statement of a list (default: its column, or out of the
    document). With a `column` type it has a column of its own. `filter_as` and `filter_sql` replace what its filter is
    described as, and its condition, where they are not the usual ones.

    `is_total`: it is never null, and its falling order is the rising one from behind. `is_above`: it names the tenant
    above, which is out of scope for the scope's own tenant. `is_hidden`: nobody who is confined to a tenant is shown
    it. `is_optional`: it may be absent.
    """

    name: str
    schema: Schema
    description: str = ""
    shown: OfEntry | None = None
    stored: OfEntry | None = None
    joined: OverFleet | None = None
    sql: str = ""
    column: TypeEngine[Any] | None = None
    is_indexed: bool = False
    filters: bool = False
    filter_as: str = ""
    filter_sql: str = ""
    sorts: bool = False
    is_total: bool = False
    is_above: bool = False
    is_hidden: bool = False
    is_optional: bool = False

    def compared(self, fleet: Fleet, key: str, entry: Entry, scope: Scope | None = None) -> Any:
        """The value by which it is filtered and sorted; times are microseconds since 1970."""
        value = self.joined(fleet, key, entry) if self.joined is not None else self.of_entry(key, entry)
        if self.is_above and scope is not None and not scope.has_tenant(value, fleet.at):
            return None
        return value

    @property
    def of_entry(self) -> OfEntry:
        """What its column holds, or would."""
        found = self.stored or self.shown
        assert found is not None, f"{self.name} is no field of the resource's own"
        return found


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter by which a list can be asked for. `sql` is its condition, with the value as a parameter of its own name;
    `over` gives what an entry of a fleet must be to pass. `sql_in_scope` is the condition for whoever is confined to a
    tenant, if it is another one.
    """

    name: str
    description: str
    sql: str
    sql_in_scope: str = ""
    over: Callable[[Fleet, Any, Scope | None], OfEntry]
    schema: Schema = msgspec.field(default_factory=lambda: STRING)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A column that is no field: something that conditions and joins look at."""

    name: str
    type: TypeEngine[Any]
    of: OfEntry
    may_be_null: bool = False
    is_indexed: bool = False


def own(
    name: str,
    schema: Schema,
    of: Callable[[Any], Any] | None = None,
    *,
    stored: Callable[[Any], Any] | None = None,
    over: Callable[[Fleet, Any], Any] | None = None,
    **declared: Any,
) -> Field:
    """A field of the state alone: its attribute of that name, or `of` it. What is compared may be another value:
    `stored` of the state, or `over` a fleet and the state."""
    return Field(
        name=name,
        schema=schema,
        shown=_of_state(of or attrgetter(name)),
        stored=_of_state(stored) if stored is not None else None,
        joined=_over_state(over) if over is not None else None,
        **declared,
    )


def joined(name: str, schema: Schema, *, over: Callable[[Fleet, Any], Any] | None = None, **declared: Any) -> Field:
    """A field that others know: `sql` beside a row, `over` a fleet and the state. Without the two the view's `others`
    alone tell it."""
    return Field(name=name, schema=schema, joined=_over_state(over) if over is not None else None, **declared)


def stored(
    name: str, type: TypeEngine[Any], of: Callable[[Any], Any], *, may_be_null: bool = False, is_indexed: bool = False
) -> Stored:
    return Stored(name=name, type=type, of=_of_state(of), may_be_null=may_be_null, is_indexed=is_indexed)


def common(kind: Kind[Any], *, owner: str = "NULL::text", name: Field | None = None) -> tuple[Field, ...]:
    """What every resource shows. `owner` is the SQL of whose it is; `name` is what its key is not."""
    has_words = "about" in kind.state.__struct_fields__
    has_uid = "uid" in kind.state.__struct_fields__
    return (
        Field(name="uid", schema=STRING, shown=_of_state(attrgetter("uid")) if has_uid else _key, sorts=True),
        name or Field(name="name", schema=STRING, shown=_key, sql=f"{kind.module}.key", sorts=True, is_total=True),
        _words(has_words, "display_name", MAYBE, sorts=True),
        _words(
            has_words,
            "external_id",
            MAYBE,
            column=Name,
            filters=True,
            filter_as="Only the one with this external_id",
            sorts=True,
        ),
        own(
            "owner",
            MAYBE,
            owner_of,
            sql=owner,
            filters=True,
            filter_as="Only those that belong to this tenant",
            sorts=True,
            is_above=kind.refs.get("parent") == kind.name,
        ),
        own("state", ref(f"{title_of(kind)}State"), column=Name, sorts=True, is_total=True),
        _words(has_words, "labels", LABELS, otherwise={}),
        _words(has_words, "description", MAYBE, sorts=True),
        _words(has_words, "protected", BOOLEAN, otherwise=False, sorts=True),
        Field(
            name="version",
            schema=NATURAL,
            shown=lambda key, entry: entry.version,
            column=BigInteger(),
            sorts=True,
            is_total=True,
        ),
        _time("created_at"),
        _time("updated_at"),
    )


def updated_since(kind: Kind[Any]) -> Filter:
    return Filter(
        name="updated_since",
        description="Only those that changed at or after this time",
        schema=TIME,
        sql=f"{kind.module}.updated_at >= :updated_since",
        over=lambda fleet, at, scope: lambda key, entry: entry.updated_at >= at,
    )


def title_of(kind: Kind[Any]) -> str:
    """What its schema is called: `MaintainerGroup`."""
    return "".join(part.capitalize() for part in kind.name.split("_"))


def _of_state(of: Callable[[Any], Any]) -> OfEntry:
    return lambda key, entry: of(entry.state)


def _over_state(over: Callable[[Fleet, Any], Any]) -> OverFleet:
    return lambda fleet, key, entry: over(fleet, entry.state)


def _time(name: str) -> Field:
    at = attrgetter(name)
    return Field(
        name=name,
        schema=TIME,
        shown=lambda key, entry: shown_time(at(entry)),
        stored=lambda key, entry: at(entry),
        column=BigInteger(),
        sorts=True,
        is_total=True,
    )


def _key(key: str, entry: Entry) -> str:
    return key


def _words(has_words: bool, name: str, schema: Schema, *, otherwise: Any = None, **declared: Any) -> Field:
    """What people say about it; of what nobody says anything, what it would be then."""
    return own(name, schema, attrgetter(f"about.{name}") if has_words else lambda state: otherwise, **declared)
