"""What the list of a kind selects, in SQL, made from its view."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.types import TypeEngine

from projections import resources
from projections.field_types import compared_as
from projections.fields import Filter
from projections.view import View


class SortedBy(NamedTuple):
    """A field as a list is sorted by it; see `fields.Field`."""

    sql: str
    type: TypeEngine[Any]
    is_total: bool = False
    is_above: bool = False
    is_hidden: bool = False


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a list selects, in SQL. `facts` come beside key and document; `always` holds of all that is listed;
    `ended` of what had ended at the position `ended_by` and is still listed."""

    name: str
    table: str
    source: str
    facts: Mapping[str, str]
    filters: Mapping[str, Filter]
    sorts: Mapping[str, SortedBy]
    amount_sorts: Mapping[str, str] = {}
    in_scope: str = "false"
    always: str = ""
    ended: str = ""
    hides_amounts: bool = False
    words: str


def listing_of(view: View[Any]) -> Listing:
    # What has ended leaves its table, but for what nothing ends.
    hidden = "" if view.kind.ends else ", ".join(f"'{state}'" for state in sorted(view.kind.ended))
    stays = ", ".join(f"'{state}'" for state in view.stays_with)
    return Listing(
        name=f"{view.kind.name}s",
        table=view.table,
        source=view.source or view.table,
        facts=resources.facts(view),
        filters={one.name: one for one in view.all_filters()},
        sorts={
            field.name: SortedBy(
                sql=view.sql(field),
                type=field.column or compared_as(field.schema),
                is_total=field.is_total,
                is_above=field.is_above,
                is_hidden=field.is_hidden,
            )
            for field in view.fields
            if field.sorts
        },
        amount_sorts=view.amount_sorts.sql if view.amount_sorts is not None else {},
        hides_amounts=view.amount_sorts is not None and view.amount_sorts.is_hidden,
        in_scope=view.in_scope,
        always=f"{view.table}.state NOT IN ({hidden})" if hidden else "",
        ended=f"{view.table}.state IN ({stays}) AND {view.table}.version <= :ended_by" if stays else "",
        words=f"{view.table}.words",
    )
