"""Hosts, as they are shown: with where they stand, what is free on them, and which VMs they carry."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import JSONB

from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND, Host
from domain.values import Overcommit, Resources, name_of
from domain.vm import KIND as VM
from projections.amounts import BIGINT_MAX, free_on, with_zeros
from projections.field_types import AMOUNTS, BOOLEAN, MAYBE, MAYBE_INTEGER, STRING, STRINGS, Name, closed, maybe, ref
from projections.fields import common, joined, own, stored
from projections.inner_lists import READ_MAX, cut
from projections.members import text_or_none, with_members
from projections.places import Place, place_field, place_of
from projections.view import AmountSorts, Document, Others, View, owned_in_scope

T = TypeVar("T")

SOURCE = """
hosts LEFT JOIN racks ON racks.key = hosts.rack JOIN groups ON groups.key = hosts.group
"""
_VMS = f"array_to_json(ARRAY(SELECT vms.key FROM vms WHERE vms.host = hosts.key ORDER BY 1 LIMIT {READ_MAX}))"

_CAPACITY = "coalesce((hosts.capacity ->> :class)::bigint, 0)"
_USED = "coalesce((hosts.used ->> :class)::bigint, 0)"
_USABLE = f"div({_CAPACITY}::numeric * coalesce((groups.overcommit ->> :class)::bigint, 1000), 1000)"
AMOUNT_SQL = {
    "available": f"""
        least(CASE WHEN hosts.state = 'available' THEN greatest(0, {_USABLE} - {_USED}) ELSE 0 END, {BIGINT_MAX})
    """,
    "used": _USED,
    "capacity": _CAPACITY,
}


class Facts(NamedTuple, Generic[T]):
    region: T
    dc: T
    room: T
    overcommit: T
    vms: T


class HostPart(msgspec.Struct):
    """What of a host's document is needed to tell what is free on it."""

    name: str
    state: str
    capacity: Resources
    used: Resources


host_part = msgspec.json.Decoder(HostPart).decode
_names = msgspec.json.Decoder(list[str]).decode
_overcommit = msgspec.json.Decoder(Overcommit).decode


def _members(*, place: Place, free: Resources, vms: Sequence[str]) -> Document:
    return cut({"region": place.region, "dc": place.dc, "room": place.room, "available": free, "vms": vms}, "vms")


def _from_row(document: bytes, facts: Facts[bytes | None], scope: str | None) -> bytes:
    place = Place(None, None, text_or_none(facts.region), text_or_none(facts.dc), text_or_none(facts.room))
    free = free_in_row(host_part(document), facts.overcommit)
    return with_members(document, _members(place=place, free=free, vms=_names(facts.vms or b"")))


def free_in_row(host: HostPart, overcommit: bytes | None) -> Resources:
    ratios = _overcommit(overcommit or b"")
    return free_on(host.capacity, ratios, host.used, is_schedulable=host.state == "available")


def _from_fleet(fleet: Fleet, host: Host, document: Document) -> Document:
    vms = sorted(name_of(stream) for stream in fleet.streams(VM, host=host.name))
    return document | _members(place=place_of(fleet, host), free=free_in_fleet(fleet, host), vms=vms)


def free_in_fleet(fleet: Fleet, host: Host) -> Resources:
    group = fleet.get(GROUP, host.group)
    overcommit = group.overcommit if group is not None else {}
    return free_on(host.capacity, overcommit, host.used, is_schedulable=host.is_schedulable)


def amount(fleet: Fleet, host: Host, what: str, of: str) -> int:
    amounts = {"capacity": host.capacity, "used": host.used}.get(what)
    return min((free_in_fleet(fleet, host) if amounts is None else amounts).get(of, 0), BIGINT_MAX)


VIEW: View[Host] = View(
    kind=KIND,
    fields=(
        *common(KIND),
        own("group", STRING, column=Name, is_indexed=True, filters=True, sorts=True),
        own("rack", MAYBE, column=Name, is_indexed=True, filters=True, sorts=True),
        own("unit", MAYBE_INTEGER, sorts=True),
        place_field("racks.region", place_of),
        place_field("racks.dc", place_of),
        place_field("racks.room", place_of),
        own("capacity", AMOUNTS),
        own("used", AMOUNTS, lambda host: with_zeros(host.used, host.capacity)),
        joined("available", AMOUNTS),
        joined("vms", STRINGS),
        joined("vms_truncated", BOOLEAN, is_optional=True),
        own("bmc", maybe(ref("Bmc")), lambda host: msgspec.to_builtins(host.bmc) if host.bmc is not None else None),
    ),
    stored=(
        stored("capacity", JSONB()),
        stored("used", JSONB()),
    ),
    indexes=(Index("hosts_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),),
    is_lively=True,
    source=SOURCE,
    others=Others(
        facts=Facts(region="racks.region", dc="racks.dc", room="racks.room", overcommit="groups.overcommit", vms=_VMS),
        from_row=_from_row,
        from_fleet=_from_fleet,
    ),
    amount_sorts=AmountSorts(sql=AMOUNT_SQL, over=amount),
    definitions={
        "Bmc": closed(
            {"address": STRING, "protocol": STRING, "credential": STRING, "system": STRING},
            optional=("protocol", "credential", "system"),
        )
    },
    is_in_scope=owned_in_scope,
    short=("h",),
    columns=("name", "display_name", "state", "group", "rack", "vms"),
    wide=("dc", "region", "room", "unit", "owner", "available", "labels", "external_id", "version"),
    amounts=("used", "capacity"),
    yields=("display_name", "vms", "rack"),
)
