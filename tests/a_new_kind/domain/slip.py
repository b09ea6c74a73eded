"""A slip: some hours of a dock, a tenant's own."""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.kind import Kind
from domain.values import About


class SlipReserved(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    tenant: str
    name: str
    dock: str
    hours: int
    about: About = About()


class SlipChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of what can be changed, as it is from now on."""

    dock: str
    hours: int
    about: About = About()


class SlipReleased(msgspec.Struct, frozen=True):
    pass


SlipEvent = SlipReserved | SlipChanged | SlipReleased


class Slip(msgspec.Struct, frozen=True):
    uid: str
    tenant: str
    name: str
    dock: str
    hours: int
    state: str  # reserved, released
    about: About


def evolve(slip: Slip, event: SlipEvent) -> Slip:
    match event:
        case SlipReserved():
            return Slip(
                uid=event.uid,
                tenant=event.tenant,
                name=event.name,
                dock=event.dock,
                hours=event.hours,
                state="reserved",
                about=event.about,
            )
        case SlipChanged():
            return replace(slip, dock=event.dock, hours=event.hours, about=event.about)
        case SlipReleased():
            return replace(slip, state="released")
        case _:
            assert_never(event)


KIND = Kind(
    name="slip",
    plural="slips",
    named_by=("tenant", "slip"),
    state=Slip,
    states=("reserved", "released"),
    ended=frozenset({"released"}),
    events={
        "slip.reserved": SlipReserved,
        "slip.changed": SlipChanged,
        "slip.released": SlipReleased,
    },
    evolve=evolve,
    ends=frozenset({SlipReleased}),
    owner=lambda slip: slip.tenant,
    refs={"tenant": "tenant", "dock": "dock"},
    rebinds=frozenset({SlipChanged}),
    is_workload=True,
)
