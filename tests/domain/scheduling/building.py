"""Hosts, racks, groups, VMs and an index of them, with defaults for what a test doesn't speak of."""

from typing import Any

from msgspec.structs import replace

from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.index import CapacityIndex
from domain.scheduling.place import Placement, place
from domain.scheduling.request import PlacementRequest
from domain.values import About, minus, plus
from domain.vm import Rule, Vm, Where


def a_group(name: str = "std", **fields: Any) -> Group:
    return Group(
        **{"uid": "u", "name": name, "region": None, "strategy": "best_fit", "overcommit": {}} | fields, **REST
    )


def a_rack(name: str, *, region: str = "north", dc: str = "dc1", room: str | None = None) -> Rack:
    return Rack("u", name, region, dc, room, None, "active", About())


def a_host(name: str, *, rack: str | None = None, group: str = "std", **fields: Any) -> Host:
    """Amounts are given by class: `cpu=8`; so are `used`, `state` and `labels`."""
    used, state = fields.pop("used", {}), fields.pop("state", "available")
    about = About(labels=fields.pop("labels", {}))
    return Host("u", name, group, rack, None, fields or {"cpu": 8}, used, state, None, about)


def a_vm(name: str, host: str | None, *rules: Rule) -> Vm:
    return Vm("u", "acme", name, "std", host, {}, {}, "active", None, None, None, None, rules, (), None, About())


def an_index(*hosts: Host, racks: tuple[Rack, ...] = (), groups: tuple[Group, ...] | None = None) -> CapacityIndex:
    index = CapacityIndex()
    for group in groups if groups is not None else (a_group(),):
        index.group_changed(None, group)
    for rack in racks:
        index.rack_changed(None, rack)
    for host in hosts:
        index.host_changed(None, host)
    return index


def placed(
    index: CapacityIndex,
    *,
    strategy: str = "first_fit",
    group: str = "std",
    where: Where | None = None,
    rules: tuple[Rule, ...] = (),
    members: dict[str, list[Vm]] | None = None,
    **resources: int,
) -> Placement:
    """`place`, of 1 cpu unless the amounts are given."""
    request = PlacementRequest("acme", resources or {"cpu": 1}, where, rules)
    given = {rule.set: [] for rule in rules} | (members or {})
    return place(index, request, group=group, strategy=strategy, members=given)


def claimed(index: CapacityIndex, host: str, **resources: int) -> None:
    old = index.hosts[host]
    index.host_changed(old, replace(old, used=plus(old.used, resources)))


def released(index: CapacityIndex, host: str, **resources: int) -> None:
    old = index.hosts[host]
    index.host_changed(old, replace(old, used=minus(old.used, resources)))


REST: dict[str, Any] = {"state": "active", "about": About()}
