"""Docks, as they are shown."""

from domain.dock import KIND, Dock
from projections.field_types import INTEGER, STRING, Name
from projections.fields import common, own
from projections.view import View

VIEW: View[Dock] = View(
    kind=KIND,
    fields=(
        *common(KIND),
        own("rack", STRING, column=Name, filters=True, sorts=True),
        own("bays", INTEGER, filters=True, sorts=True),
    ),
    short=("d",),
    columns=("name", "display_name", "state", "rack", "bays"),
    wide=("labels", "version"),
)
