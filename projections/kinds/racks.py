"""Racks, as they are shown."""

from domain.host import KIND as HOST
from domain.rack import KIND, Rack
from projections.field_types import MAYBE, MAYBE_INTEGER, NATURAL, STRING, Name
from projections.fields import common, joined, own
from projections.sums import BY_RACK
from projections.view import View

_HOSTS = f"""
(SELECT coalesce(sum((document ->> 'hosts')::bigint), 0)::bigint FROM sums
WHERE level = '{BY_RACK}' AND sums.rack = racks.key)
"""

VIEW: View[Rack] = View(
    kind=KIND,
    fields=(
        *common(KIND),
        own("region", STRING, column=Name, filters=True, sorts=True),
        own("dc", STRING, column=Name, filters=True, sorts=True),
        own("room", MAYBE, column=Name, filters=True, sorts=True),
        own("units", MAYBE_INTEGER, sorts=True),
        joined(
            "hosts",
            NATURAL,
            sql=_HOSTS,
            over=lambda fleet, rack: len(fleet.streams(HOST, rack=rack.name)),
            sorts=True,
        ),
    ),
    short=("r",),
    columns=("name", "display_name", "region", "dc", "room", "units", "hosts"),
    wide=("state", "labels", "external_id", "version"),
    yields=("units", "room", "display_name", "region"),
)
