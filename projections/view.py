"""What a kind of resource shows, how it is listed, and what a table of it looks like: each file in `kinds/` ends with
its own `VIEW`. It is plain data; what comes of it is made elsewhere, each by one function:

    tables.py     the living table and its rows        documents.py  the document, from a fleet and from a row
    lists.py      the statements of lists              api, GET /v1/kinds   routes, schemas, CSV headers, the CLI

What stands in a row is a function of the resource's own entry alone, and no view imports another: so a table is defined
by the kind's own files and the machinery that all share.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic

import msgspec
from sqlalchemy import Index

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kind import Kind, S
from projections.field_types import Schema, closed, compared_as, enum, not_null
from projections.fields import Field, Filter, OfEntry, Scope, Stored, title_of, updated_since

Document = dict[str, Any]

READERS = frozenset({"viewer", "auditor", "operator", "admin"})
EVERY_ROLE = READERS | {"controller"}
ADMINS = frozenset({"admin"})


class Others(msgspec.Struct, frozen=True, kw_only=True):
    """What others add to a document, where it is more than a fact a field. `facts` are a named tuple of SQL, read with
    each row in the same statement; `from_row` takes the document, the same named tuple of what PostgreSQL wrote, and
    the scope of whoever asks. `from_fleet` gives the same from a fleet, and may complete the document in place.
    """

    facts: Any
    from_row: Callable[[bytes, Any, str | None], bytes]
    from_fleet: Callable[[Fleet, Any, Document], Document]


class AmountSorts(msgspec.Struct, frozen=True, kw_only=True):
    """To sort by amounts of any class, such as `cpu_available`: SQL by `available`, …, with the class as parameter
    `class`; the same over a fleet takes the state, which of them, and the class. `is_hidden` is as a field's."""

    sql: Mapping[str, str]
    over: Callable[[Fleet, Any, str, str], int | None]
    is_hidden: bool = False


class Bearer(msgspec.Struct, frozen=True):
    """Of something shown, what tells whether it is in a scope. `at` is when it was so, None: now."""

    name: str
    owner: str | None
    created_at: int
    at: int | None = None


def out_of_scope(scope: Scope, bearer: Bearer) -> bool:
    return False


def owned_in_scope(scope: Scope, bearer: Bearer) -> bool:
    return scope.has_tenant(bearer.owner, bearer.at)


class View(msgspec.Struct, Generic[S], frozen=True, eq=False, kw_only=True):
    """`fields` are in the order in which they are shown, and head a table; in a document those of others come behind
    the resource's own. `source` is what a list selects from: its table, or that and what is joined to it.

    Whoever is confined to a tenant is shown what fulfils `in_scope`, a condition in which `scope` are that tenant and
    all below it (key, uid, created_at), without what is `redacted`; `is_in_scope` is the same of what was, or is.
    `document` is written out where the fields' own way is too slow. `definitions` are schemas that fields refer to.
    """

    kind: Kind[S]
    fields: tuple[Field, ...]
    filters: tuple[Filter, ...] = ()
    stored: tuple[Stored, ...] = ()
    indexes: tuple[Index, ...] = ()
    is_lively: bool = False
    source: str = ""
    document: Callable[[str, Entry], Document] | None = None
    others: Others | None = None
    amount_sorts: AmountSorts | None = None
    definitions: Mapping[str, Schema] = {}
    in_scope: str = "false"
    is_in_scope: Callable[[Scope, Bearer], bool] = out_of_scope
    redacted: Callable[[Scope, Document, int | None], Document] | None = None
    readers: frozenset[str] = READERS
    # What ends with one of these states has left the fleet, and is listed for ever.
    stays_with: tuple[str, ...] = ()
    # ── in a terminal ──
    short: tuple[str, ...] = ()
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    # Fields with amounts, a column a class: one field alone, or two as `used/limit`.
    amounts: tuple[str, ...] = ()
    # Columns that give way in a narrow terminal, first those that go first; not shown either if all are empty.
    yields: tuple[str, ...] = ("display_name",)
    failed_states: tuple[str, ...] = ("failed",)

    @property
    def table(self) -> str:
        return self.kind.module

    @property
    def title(self) -> str:
        return title_of(self.kind)

    def field(self, name: str) -> Field:
        """Raises LookupError: it has no such field."""
        found = next((field for field in self.fields if field.name == name), None)
        if found is None:
            raise LookupError(f"a {self.kind.name} has no field {name}")
        return found

    def schema(self) -> Schema:
        """The JSON Schema of the resource: closed, with references to `schemas()`."""
        optional = tuple(field.name for field in self.fields if field.is_optional)
        return closed({field.name: field.schema for field in self.fields}, optional=optional)

    def schemas(self) -> dict[str, Schema]:
        """Its own by their names, and those that it refers to."""
        return {self.title: self.schema(), f"{self.title}State": enum(*self.kind.states), **self.definitions}

    def all_filters(self) -> tuple[Filter, ...]:
        """Those of fields and of its own, by which a list can be asked for, but for `state`, `label` and `q`, which
        every list has."""
        of_fields = (self._of_field(field) for field in self.fields if field.filters)
        return (*of_fields, *self.filters, updated_since(self.kind))

    def sorts(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields if field.sorts)

    def sql(self, field: Field) -> str:
        """What the field is filtered and sorted by, in a statement of lists."""
        if field.sql:
            return field.sql
        if field.column is not None:
            return f'{self.table}."{field.name}"'
        text = f"({self.table}.document ->> '{field.name}')"
        type = compared_as(field.schema)
        return text if type.python_type is str else f"{text}::{type}"

    def _of_field(self, field: Field) -> Filter:
        def over(fleet: Fleet, value: Any, scope: Scope | None) -> OfEntry:
            return lambda key, entry: field.compared(fleet, key, entry, scope) == value

        condition = field.filter_sql or f"{self.sql(field)} = :{field.name}"
        return Filter(
            name=field.name,
            description=field.filter_as or f"Only those of this {field.name}",
            schema=not_null(field.schema),
            sql=condition,
            sql_in_scope=f"{condition} AND {self.table}.key <> :scope" if field.is_above else "",
            over=over,
        )
