"""Slips, as they are shown: to whoever may see their tenant."""

from domain.slip import KIND, Slip
from projections.field_types import INTEGER, STRING, Name
from projections.fields import common, own
from projections.subtree import subtree_filter
from projections.view import View, owned_in_scope

VIEW: View[Slip] = View(
    kind=KIND,
    fields=(
        *common(KIND, owner="slips.tenant", name=own("name", STRING, column=Name, sorts=True, is_total=True)),
        own("tenant", STRING, column=Name, is_indexed=True, filters=True, sorts=True),
        own("dock", STRING, column=Name, filters=True, sorts=True),
        own("hours", INTEGER, sorts=True),
    ),
    filters=(subtree_filter("slips.tenant"),),
    in_scope="slips.tenant IN (SELECT key FROM scope)",
    is_in_scope=owned_in_scope,
    columns=("name", "display_name", "dock", "hours", "state"),
    wide=("tenant", "labels", "version"),
)
