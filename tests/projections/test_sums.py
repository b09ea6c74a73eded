"""Sums that follow their hosts are what adding all hosts up gives, however the history is cut."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import group, host, rack
from domain.fleet import Fleet
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.host import Host
from domain.rack import KIND as RACK
from domain.recorded import Recorded
from domain.values import Overcommit, Resources, name_of, plus, usable
from projections.amounts import Totals, in_order
from projections.sums import Sums

HOSTS, GROUPS, RACKS, CLASSES = ("h0", "h1", "h2"), ("g0", "g1"), ("r0", "r1", None), ("cpu", "gpu", "licences")

names = st.sampled_from(HOSTS)
groups = st.sampled_from(GROUPS)
racks = st.sampled_from(RACKS)
amounts = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([1, 2, 7, 2**53 - 1]), min_size=1)
overcommits = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([500, 1500, 2000]))
steps = st.one_of(
    st.tuples(st.just("register"), names, groups, racks, amounts),
    st.tuples(st.just("claim"), names, amounts),
    st.tuples(st.just("release"), names, st.sampled_from(CLASSES)),
    st.tuples(st.just("update"), names, amounts, racks),
    st.tuples(st.just("move"), names, groups),
    st.tuples(st.just("cordon"), names),
    st.tuples(st.sampled_from(["uncordon", "delete"]), names),
    st.tuples(st.just("overcommit"), groups, overcommits),
    st.tuples(st.just("elsewhere"), st.sampled_from(RACKS[:2]), st.sampled_from(["d0", "d1"])),
)


def event_of(step: Any, fleet: Fleet) -> tuple[str, Any] | None:
    """None: it can't be, as things stand."""
    kind, name, *values = step
    if kind == "overcommit":
        return f"group/{name}", group.GroupUpdated("best_fit", overcommit=values[0])
    if kind == "elsewhere":
        return f"rack/{name}", rack.RackUpdated("eu", values[0])
    stream, found = f"host/{name}", fleet.get(HOST, name)
    if kind == "register":
        on, at, capacity = values
        return (stream, host.HostRegistered("u", name, on, capacity, at)) if found is None else None
    if found is None:
        return None
    match kind:
        case "claim":
            return stream, host.HostClaimed("vm", values[0])
        case "release":
            held = found.used.get(values[0])
            return (stream, host.HostReleased("vm", {values[0]: held})) if held is not None else None
        case "update":
            return stream, host.HostUpdated(values[0], values[1])
        case "move":
            return stream, host.HostMoved(values[0])
        case _:
            return stream, {
                "cordon": host.HostCordoned(),
                "uncordon": host.HostUncordoned(),
                "delete": host.HostDeleted(),
            }[kind]


def added_up(fleet: Fleet) -> dict[str, tuple[Totals, dict[str, int]]]:
    """By key, the sums, and capacity × over-commit."""
    cells: defaultdict[str, list[tuple[Host, dict[str, int]]]] = defaultdict(list)
    for name in map(name_of, fleet.streams(HOST)):
        one = fleet.get(HOST, name)
        assert one is not None
        on, at = fleet.get(GROUP, one.group), fleet.get(RACK, one.rack) if one.rack is not None else None
        assert on is not None
        place = f"{one.group}/{at.region}/{at.dc}" if at is not None else f"{one.group}//"
        for key in (f"rack/{place}/{one.rack or ''}", f"dc/{place}/"):
            cells[key].append((one, on.overcommit))
    return {key: (sums_over(hosts), usable_in(hosts)) for key, hosts in cells.items()}


def usable_in(hosts: list[tuple[Host, dict[str, int]]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one, overcommit in hosts:
        total = plus(total, usable(one.capacity, overcommit))
    return total


@settings(max_examples=200)
@given(pages=st.lists(st.lists(steps, max_size=6), max_size=12))
def test_sums_are_what_adding_up_all_hosts_gives(pages: list[list[Any]]) -> None:
    fleet, sums = Fleet(), Sums()
    rows: dict[str, dict[str, Any]] = {}
    begin: list[tuple[str, Any]] = [(f"group/{name}", group.GroupCreated("u", name, "best_fit")) for name in GROUPS]
    begin += [(f"rack/{name}", rack.RackCreated("u", str(name), "eu", "d0")) for name in RACKS[:2]]
    begin += [(f"host/{name}", host.HostRegistered("u", name, "g0", {"cpu": 9}, "r0")) for name in HOSTS]
    for page in [None, *pages]:
        streams = []
        for step in begin if page is None else page:
            event = step if page is None else event_of(step, fleet)
            if event is not None:
                position = fleet.position + 1
                fleet.fold(Recorded(event[0], position, position, position, "ann", "c", event[1]))
                streams.append(event[0])
        changed, gone = sums.update(fleet, dict.fromkeys(streams))
        rows |= {row["key"]: row for row in changed}
        for key in gone:
            rows.pop(key, None)
        shown = {
            key: (msgspec.json.decode(row["document"], type=Totals), msgspec.json.decode(row["usable"]))
            for key, row in rows.items()
        }
        assert shown == added_up(fleet)
        assert sums.rows() == [rows[key] for key in sorted(rows)]
        assert Sums.of(fleet).rows() == sums.rows()


def sums_over(hosts: Iterable[tuple[Host, Overcommit]]) -> Totals:
    """The sums of `hosts`, each with its group's over-commit. Touches every one."""
    count = 0
    capacity: Resources = {}
    used: Resources = {}
    free: Resources = {}
    largest: Resources = {}
    for one, overcommit in hosts:
        count += 1
        for name, amount in one.used.items():
            used[name] = used.get(name, 0) + amount
        for name, amount in one.capacity.items():
            room = amount * overcommit.get(name, 1000) // 1000
            left = max(0, room - one.used.get(name, 0)) if one.is_schedulable else 0
            capacity[name] = capacity.get(name, 0) + amount
            free[name] = free.get(name, 0) + left
            largest[name] = max(largest.get(name, 0), left)
    return Totals(count, *map(in_order, (capacity, {**dict.fromkeys(capacity, 0), **used}, free, largest)))
