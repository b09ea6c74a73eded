"""A host: a physical server with a capacity, a place, and what the VMs on it claim."""

import re
from ipaddress import IPv6Address, ip_address
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from domain.errors import InvalidState
from domain.kind import Kind
from domain.values import About, Bmc, Overcommit, Resources, minus, plus, usable

WITH_PORT = re.compile(r"(?:\[(?P<inside>[^\[\]]+)\]|(?P<plain>[^\[\]:]+))(?::(?P<port>[0-9]+))?")
USUAL_PORTS = frozenset({"", "80", "443", "623"})
OCTETS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
# What vendors and spreadsheets put where they know no address: it tells nobody apart.
NO_ADDRESSES = frozenset({"", "na", "n/a", "none", "default string", "to be filled by o.e.m", "0.0.0.0", "::"})


class HostRegistered(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    name: str
    group: str
    capacity: Resources
    rack: str | None = None
    unit: int | None = None
    bmc: Bmc | None = None
    about: About = About()


class HostUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of what can be changed, as it is from now on."""

    capacity: Resources
    rack: str | None = None
    unit: int | None = None
    bmc: Bmc | None = None
    about: About = About()


class HostMoved(msgspec.Struct, frozen=True):
    group: str


class HostCordoned(msgspec.Struct, frozen=True):
    pass


class HostUncordoned(msgspec.Struct, frozen=True):
    pass


class HostClaimed(msgspec.Struct, frozen=True, gc=False):
    vm: str
    resources: Resources


class HostReleased(msgspec.Struct, frozen=True, gc=False):
    vm: str
    resources: Resources


class HostDeleted(msgspec.Struct, frozen=True):
    pass


HostEvent = (
    HostRegistered | HostUpdated | HostMoved | HostCordoned | HostUncordoned | HostClaimed | HostReleased | HostDeleted
)


class Host(msgspec.Struct, frozen=True, gc=False):
    uid: str
    name: str
    group: str
    rack: str | None
    unit: int | None
    capacity: Resources
    used: Resources
    state: str  # as `host.state` in the contract
    bmc: Bmc | None
    about: About

    @property
    def is_schedulable(self) -> bool:
        return self.state == "available"


def evolve(host: Host, event: HostEvent) -> Host:
    match event:
        case HostClaimed():
            return replace(host, used=plus(host.used, event.resources))
        case HostReleased():
            return replace(host, used=minus(host.used, event.resources))
        case HostRegistered():
            return Host(
                uid=event.uid,
                name=event.name,
                group=event.group,
                rack=event.rack,
                unit=event.unit,
                capacity=event.capacity,
                used={},
                state="available",
                bmc=event.bmc,
                about=event.about,
            )
        case HostUpdated():
            return replace(
                host,
                capacity=event.capacity,
                rack=event.rack,
                unit=event.unit,
                bmc=event.bmc,
                about=event.about,
            )
        case HostMoved():
            return replace(host, group=event.group)
        case HostCordoned():
            return replace(host, state="cordoned")
        case HostUncordoned():
            return replace(host, state="available")
        case HostDeleted():
            return replace(host, state="deleted")
        case _:
            assert_never(event)


def controller_of(bmc: Bmc | None) -> tuple[str, str | None] | None:
    """The management controller that `bmc` speaks of, the same however its address is written: (address, system)."""
    if bmc is None:
        return None
    address = _canonical(bmc.address)
    return (address, bmc.system) if address not in NO_ADDRESSES else None


def _canonical(address: str) -> str:
    """Without scheme and usual port; an IP address in its one form, a name in lower case."""
    text = address.strip().lower().rpartition("://")[2].rstrip("/")
    port = ""
    if (found := WITH_PORT.fullmatch(text)) is not None:
        text, port = found["inside"] or found["plain"], found["port"] or ""
    if OCTETS.fullmatch(text):  # 010.0.0.9 is read as decimal by some programs, and refused by others
        text = ".".join(str(int(octet)) for octet in text.split("."))
    try:
        ip = ip_address(text)
        text = ((isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip).compressed
    except ValueError:
        text = text.removesuffix(".")  # a name
    return text if port in USUAL_PORTS else f"{text} port {port}"


def cordon(host: Host) -> HostCordoned | None:
    """Take no new workload; what runs stays. None if it is so already.

    Raises:
        InvalidState: not a state from which a host is cordoned.
    """
    if host.state == "cordoned":
        return None
    if host.state != "available":
        raise InvalidState("host", host.name, host.state, ["available", "cordoned"])
    return HostCordoned()


def uncordon(host: Host) -> HostUncordoned | None:
    """Take new workload again. None if it does.

    Raises:
        InvalidState: not a state that `cordon` left.
    """
    if host.state == "available":
        return None
    if host.state != "cordoned":
        raise InvalidState("host", host.name, host.state, ["cordoned", "available"])
    return HostUncordoned()


def would_break(host: Host, *, capacity: Resources, overcommit: Overcommit) -> list[dict[str, Any]]:
    """The classes in which what runs would stand above floor(capacity × over-commit), as `below_use` tells them."""
    room = usable(capacity, overcommit)
    return [
        {"kind": "host", "name": host.name, "resource": name, "limit": room.get(name, 0), "used": amount}
        for name, amount in host.used.items()
        if amount > room.get(name, 0)
    ]


KIND = Kind(
    name="host",
    plural="hosts",
    named_by=("host",),
    state=Host,
    states=("available", "cordoned", "deleted"),
    events={
        "host.registered": HostRegistered,
        "host.updated": HostUpdated,
        "host.moved": HostMoved,
        "host.cordoned": HostCordoned,
        "host.uncordoned": HostUncordoned,
        "host.claimed": HostClaimed,
        "host.released": HostReleased,
        "host.deleted": HostDeleted,
    },
    evolve=evolve,
    ends=frozenset({HostDeleted}),
    refs={"group": "group", "rack": "rack"},
    rebinds=frozenset({HostUpdated, HostMoved}),
)
