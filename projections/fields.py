"""What a view is declared with: fields, and filters that are no field. Each says what it is twice, as SQL for the rows
of the read model and as a function for a fleet of the past; a test asks both and wants the same.

Keys are full names: of `vm/acme/web-1` it is `acme/web-1`.
"""

from collections.abc import Callable, Iterable
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
Own = str | OfEntry  # an attribute of the entry, such as `state.region`, or a function of it

# Most of a command's times are the command's own: 2 × faster answers for a VM.
shown_time = lru_cache(maxsize=1024)(to_rfc3339)


class Scope(Protocol):
    """What an actor confined to a tenant may read, now or at a time in microseconds since 1970."""

    def has_tenant(self, name: Any, at: int | None = None) -> bool: ...

    def has_group(self, name: Any, at: int | None = None) -> bool: ...


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field of what is shown.

    A field of the resource's own has `shown`, of the entry alone, so that it can stand in the table; all others are
    told by the view's `others`. Filters and sorts look at `stored` (default: what is shown), or at what is `joined`: of
    a fleet and the state; `sql` is the same in the statement of a list (default: its column, or out of the document).
    With a `column` type it has a column of its own. `filter_as` and `filter_sql` replace what its filter is described
    as, and its condition, where they are not the usual ones.

    `is_total`: it is never null, and its falling order is the rising one from behind. `is_above`: it names the tenant
    above, which is out of scope for the scope's own tenant. `is_hidden`: nobody who is confined to a tenant is shown
    it. `is_optional`: it may be absent.
    """

    name: str
    schema: Schema
    description: str = ""
    shown: Own | None = None
    stored: Own | None = None
    joined: Callable[[Fleet, Any], Any] | None = None
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
        value = self.joined(fleet, entry.state) if self.joined is not None else self.of_entry(key, entry)
        if self.is_above and scope is not None and not scope.has_tenant(value, fleet.at):
            return None
        return value

    @property
    def own(self) -> Own:
        """What its column holds, or would."""
        found = self.stored or self.shown
        assert found is not None, f"{self.name} is no field of the resource's own"
        return found

    @property
    def of_entry(self) -> OfEntry:
        return value_of(self.own)


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
    of: Own
    may_be_null: bool = False
    is_indexed: bool = False


def own(
    name: str,
    schema: Schema,
    of: Callable[[Any], Any] | str | None = None,
    *,
    stored: Callable[[Any], Any] | str | None = None,
    over: Callable[[Fleet, Any], Any] | None = None,
    **declared: Any,
) -> Field:
    """A field of the state alone: its attribute of that name (or `of` another), or what `of` makes of it. What is
    compared may be another value: `stored` of the state, or `over` a fleet and the state."""
    return Field(
        name=name,
        schema=schema,
        shown=_of_state(of or name),
        stored=_of_state(stored) if stored is not None else None,
        joined=over,
        **declared,
    )


def joined(name: str, schema: Schema, *, over: Callable[[Fleet, Any], Any] | None = None, **declared: Any) -> Field:
    """A field that others know: `sql` beside a row, `over` a fleet and the state. Without the two the view's `others`
    alone tell it."""
    return Field(name=name, schema=schema, joined=over, **declared)


def stored(
    name: str,
    type: TypeEngine[Any],
    of: Callable[[Any], Any] | None = None,
    *,
    may_be_null: bool = False,
    is_indexed: bool = False,
) -> Stored:
    """A column of the state alone, as `own` is a field of it."""
    return Stored(name=name, type=type, of=_of_state(of or name), may_be_null=may_be_null, is_indexed=is_indexed)


def common(
    kind: Kind[Any],
    *,
    owner: str = "NULL::text",
    owner_column: TypeEngine[Any] | None = None,
    name: Field | None = None,
) -> tuple[Field, ...]:
    """What every resource shows. `owner` is the SQL of whose it is, unless that has a column of its own; `name` is what
    its key is not."""
    has_words = "about" in kind.state.__struct_fields__
    has_uid = "uid" in kind.state.__struct_fields__
    return (
        Field(name="uid", schema=STRING, shown=_key, sorts=True) if not has_uid else own("uid", STRING, sorts=True),
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
            owner_of if kind.target is not None else kind.owner,
            sql="" if owner_column is not None else owner,
            column=owner_column,
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
            shown="version",
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


def value_of(of: Own) -> OfEntry:
    if not isinstance(of, str):
        return of
    get = attrgetter(of)
    return lambda key, entry: get(entry)


def by_name(named: Iterable[tuple[str, Own]]) -> Callable[[str, Entry], dict[str, Any]]:
    """A function that gives all of them, in their order: attributes in one go, which is 2 × faster than one by one."""
    of = dict(named)
    made = tuple((name, one) for name, one in of.items() if not isinstance(one, str))
    # What is made keeps its place in the order until then. The last is for one alone, of which there is no tuple.
    attributes = attrgetter(*(one if isinstance(one, str) else "version" for one in of.values()), "version")
    names = tuple(of)

    def found(key: str, entry: Entry) -> dict[str, Any]:
        values = dict(zip(names, attributes(entry), strict=False))
        for name, one in made:
            values[name] = one(key, entry)
        return values

    return found


def _of_state(of: Callable[[Any], Any] | str) -> Own:
    return f"state.{of}" if isinstance(of, str) else lambda key, entry: of(entry.state)


def _time(name: str) -> Field:
    at = attrgetter(name)
    return Field(
        name=name,
        schema=TIME,
        shown=lambda key, entry: shown_time(at(entry)),
        stored=name,
        column=BigInteger(),
        sorts=True,
        is_total=True,
    )


def _key(key: str, entry: Entry) -> str:
    return key


def _words(has_words: bool, name: str, schema: Schema, *, otherwise: Any = None, **declared: Any) -> Field:
    """What people say about it; of what nobody says anything, what it would be then."""
    return own(name, schema, f"about.{name}" if has_words else lambda state: otherwise, **declared)
