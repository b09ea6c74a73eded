"""The capacity index answers as the plain loop over all hosts does, whatever happened before."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from domain.errors import NoCapacity
from domain.scheduling import changes, shape_scores
from domain.scheduling import table as table_module
from domain.scheduling.index import CapacityIndex
from domain.scheduling.place import Placement, fitting_hosts, load_after, place
from domain.scheduling.request import PlacementRequest
from domain.values import About, Resources, minus, plus
from domain.vm import Rule, Vm, Where
from tests.domain.scheduling import naive
from tests.domain.scheduling.building import a_group, a_host, a_rack, a_vm

GROUPS = ["g0", "g1"]
RACKS = ["r0", "r1", "r2", "r3"]
HOSTS = [f"h{n}" for n in range(9)]
CLASSES = ["cpu", "memory_mib", "gpu", "fpga"]
STATES = ["available", "cordoned", "draining"]
SETS = ["a", "b"]
FILTERS = ["state", "place", "labels", "rule", "insufficient"]  # in the order in which they drop

# Few shapes, so that one is asked again after others have changed hosts.
USUAL: list[tuple[Resources, str]] = [
    ({"cpu": 1}, "worst_fit"),
    ({"cpu": 2, "memory_mib": 3}, "best_fit"),
    ({"memory_mib": 2}, "balanced"),
    ({"cpu": 1, "memory_mib": 1}, "least_fragmentation"),
]
strategies = st.sampled_from(["best_fit", "worst_fit", "first_fit", "balanced", "least_fragmentation"])
shapes = st.one_of(
    st.sampled_from([{"cpu": 1}, {"cpu": 2, "memory_mib": 3}, {"gpu": 1, "cpu": 2}]),
    st.dictionaries(st.sampled_from([*CLASSES, "unheard_of"]), st.integers(1, 9), min_size=1, max_size=4),
)
capacities = st.fixed_dictionaries(
    {"cpu": st.integers(2, 12)},
    optional={"memory_mib": st.integers(1, 12), "gpu": st.integers(0, 3), "fpga": st.integers(0, 2)},
)
overcommits = st.dictionaries(st.sampled_from(CLASSES), st.sampled_from([333, 500, 1000, 1500, 3000]), max_size=2)
labels = st.dictionaries(st.just("disk"), st.sampled_from(["ssd", "hdd"]), max_size=1)
place_names = st.sampled_from(["p0", "p1"])
conditions: list[st.SearchStrategy[dict[str, Any]]] = [
    st.just({}),
    st.fixed_dictionaries({"labels": labels}),
    st.fixed_dictionaries({}, optional={"region": place_names, "dc": place_names, "room": st.just("p0")}),
    st.fixed_dictionaries({"rack": st.sampled_from(RACKS)}),
    st.fixed_dictionaries({"host": st.sampled_from(HOSTS)}, optional={"labels": labels}),
]
wheres = st.one_of(conditions).map(lambda given: Where(**given))
rules = st.builds(
    lambda kind, set, level, number: Rule(
        kind,
        set,
        level,
        max_skew=1 + number if kind == "spread" else None,
        partition=number if kind == "partition" else None,
    ),
    st.sampled_from(["affinity", "anti_affinity", "spread", "spread", "partition"]),
    st.sampled_from(SETS),
    st.sampled_from(["host", "rack", "dc"]),
    st.integers(0, 1),
)


def one_number_a_set(chosen: list[Rule]) -> tuple[Rule, ...]:
    """A VM is in one partition of a set at a level."""
    kept: dict[Any, Rule] = {}
    for one in chosen:
        kept.setdefault((one.set, one.level) if one.type == "partition" else one, one)
    return tuple(kept.values())


own_rules = st.lists(rules, max_size=3).map(one_number_a_set)


class IndexAgainstLoop(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.site = naive.Site()
        self.index = CapacityIndex(lambda: self.site.vms)
        self.vms: dict[str, list[Vm]] = {name: [] for name in SETS}
        self.bounds = pytest.MonkeyPatch()
        self.bounds.setattr(shape_scores, "BLOCK_ROWS", 2)  # so that few hosts stand in several

    def teardown(self) -> None:
        self.bounds.undo()

    @initialize(
        hosts=st.lists(st.tuples(capacities, st.none() | st.sampled_from(RACKS), labels), min_size=3, max_size=9),
        overcommit=overcommits,
    )
    def a_site_stands(self, hosts: list[tuple[Resources, str | None, dict[str, str]]], overcommit: Resources) -> None:
        for name in GROUPS:
            self._group(name, overcommit if name == "g0" else {})
        for n, name in enumerate(RACKS[:3]):
            self._rack(name, f"p{n % 2}", f"p{n // 2}", "p0" if n else None)
        for n, (capacity, rack, words) in enumerate(hosts):
            group = GROUPS[n % 5 == 4]
            self._host(HOSTS[n], replace(a_host(HOSTS[n], rack=rack, group=group, labels=words), capacity=capacity))

    # ── what happens to a site ──

    @rule(host=st.sampled_from(HOSTS), resources=st.sampled_from([shape for shape, _ in USUAL]))
    def a_claim(self, host: str, resources: Resources) -> None:
        if found := self.site.hosts.get(host):
            self._host(host, replace(found, used=plus(found.used, resources)))

    @rule(host=st.sampled_from(HOSTS), share=st.integers(1, 3))
    def a_release(self, host: str, share: int) -> None:
        if found := self.site.hosts.get(host):
            back = {name: -(-amount // share) for name, amount in found.used.items()}
            self._host(host, replace(found, used=minus(found.used, back)))

    @rule(
        host=st.sampled_from(HOSTS),
        change=st.one_of(
            st.fixed_dictionaries({"state": st.sampled_from(STATES)}),
            st.fixed_dictionaries({"capacity": capacities}),
            st.fixed_dictionaries({"rack": st.none() | st.sampled_from(RACKS)}),
            st.fixed_dictionaries({"about": labels.map(lambda words: About(labels=words))}),
        ),
    )
    def a_change_of_a_host(self, host: str, change: dict[str, Any]) -> None:
        if found := self.site.hosts.get(host):
            self._host(host, replace(found, **change))

    @rule(host=st.sampled_from(HOSTS), group=st.sampled_from(GROUPS))
    def a_move(self, host: str, group: str) -> None:
        if found := self.site.hosts.get(host):
            self._host(host, replace(found, group=group))

    @rule(host=st.sampled_from(HOSTS), capacity=capacities, rack=st.none() | st.sampled_from(RACKS))
    def a_registration(self, host: str, capacity: Resources, rack: str | None) -> None:
        if host not in self.site.hosts:
            self._host(host, replace(a_host(host, rack=rack, group="g0"), capacity=capacity))

    @rule(host=st.sampled_from(HOSTS))
    def a_deletion(self, host: str) -> None:
        self._host(host, None)
        for name, vms in self.vms.items():
            self.vms[name] = [vm for vm in vms if vm.host != host]

    @rule(group=st.sampled_from(GROUPS), overcommit=overcommits)
    def a_change_of_overcommit(self, group: str, overcommit: Resources) -> None:
        self._group(group, overcommit)

    @rule(rack=st.sampled_from(RACKS), region=place_names, dc=place_names, room=st.none() | place_names)
    def a_change_of_rack(self, rack: str, region: str, dc: str, room: str | None) -> None:
        self._rack(rack, region, dc, room)

    @rule(rack=st.sampled_from(RACKS))
    def a_rack_that_goes(self, rack: str) -> None:
        if not any(host.rack == rack for host in self.site.hosts.values()):
            self.index.rack_changed(self.site.racks.pop(rack, None), None)

    @rule(host=st.sampled_from(HOSTS), resources=shapes)
    def a_change_that_is_undone(self, host: str, resources: Resources) -> None:
        if found := self.site.hosts.get(host):
            changed = replace(found, used=plus(found.used, resources), state="cordoned")
            self.index.host_changed(found, changed)
            self.index.totals(found.group)
            self.index.host_changed(changed, found)

    @rule(group=st.sampled_from(["g0", "g0", "g1"]), resources=shapes, count=st.integers(1, 3))
    def vms_that_come(self, group: str, resources: Resources, count: int) -> None:
        """Their shapes count for the group, wherever it went since; what hosts have in use is another matter."""
        self._compare(group, {"cpu": 1}, "least_fragmentation", None, ())
        for _ in range(count):
            vm = replace(a_vm(f"vm-{len(self.site.vms)}", "h0"), group=group, resources=dict(resources))
            self.index.vm_changed(None, vm)
            self.site.vms.append(vm)
        self._compare(group, {"cpu": 1}, "least_fragmentation", None, ())

    @rule(which=st.integers(0, 50), change=st.sampled_from(["goes", "fails", "grows", "starts", "undone"]))
    def a_vm_changes(self, which: int, change: str) -> None:
        if not self.site.vms:
            return
        old = self.site.vms.pop(which % len(self.site.vms))
        match change:
            case "goes":
                self.index.vm_changed(old, None)
                return
            case "fails":
                new = replace(old, host=None)
            case "grows":
                new = replace(old, resources=plus(old.resources, {"cpu": 1}))
            case _:
                new = replace(old, state="stopped")
        self.index.vm_changed(old, new)
        if change == "undone":
            self.index.vm_changed(new, None)
            self.index.table(old.group).demand()
            self.index.vm_changed(None, old)
            new = old
        self.site.vms.append(new)

    @rule(set=st.sampled_from(SETS), hosts=st.lists(st.none() | st.sampled_from(HOSTS), max_size=4), chosen=own_rules)
    def members(self, set: str, hosts: list[str | None], chosen: tuple[Rule, ...]) -> None:
        """The set from now on; the first member alone brings rules along."""
        standing = [host for host in hosts if host is None or host in self.site.hosts]
        self.vms[set] = [a_vm(f"{set}-{n}", host, *(() if n else chosen)) for n, host in enumerate(standing)]

    # ── what must hold ──

    @rule(rounds=st.integers(1, 3))
    def usual_placements_are_the_loops(self, rounds: int) -> None:
        """One after the other, each claimed where it was placed."""
        for resources, strategy in USUAL * rounds:
            placed = self._compare("g0", resources, strategy, None, ())
            if placed is not None:
                self.a_claim(placed, resources)

    @rule(
        group=st.sampled_from(["g0", "g0", "g1"]),
        resources=shapes,
        strategy=strategies,
        where=st.none() | wheres,
        chosen=own_rules,
    )
    def a_placement_is_the_loops(
        self, group: str, resources: Resources, strategy: str, where: Where | None, chosen: tuple[Rule, ...]
    ) -> None:
        self._compare(group, resources, strategy, where, chosen)

    @rule(set=st.sampled_from(SETS), where=st.none() | wheres, one=rules)
    def a_condition_is_the_loops(self, set: str, where: Where | None, one: Rule) -> None:
        """Of something so small that capacity rarely decides."""
        self._compare("g0", {"cpu": 1}, "worst_fit", where, (replace(one, set=set),))

    def _compare(
        self, group: str, resources: Resources, strategy: str, where: Where | None, chosen: tuple[Rule, ...]
    ) -> str | None:
        members = {one.set: self.vms[one.set] for one in chosen}
        request = PlacementRequest("acme", resources, where, chosen)
        told = self.site.place(group, resources, strategy, where, chosen, members)
        considered = len(self.site.hosts_of(group))
        assert fitting_hosts(self.index, request, group=group, members=members) == told["fitting"]
        found = _placed_or_refused(self.index, request, group, strategy, members)
        if isinstance(found, NoCapacity):
            assert told["host"] is None
            reasons = found.reasons
            assert sum(reason["hosts"] for reason in reasons) == found.considered == considered
            assert found.nearest == told["nearest"]
            assert found.largest_fit == told["largest_fit"]
            assert found.requested == resources
        else:
            assert found.host == told["host"]
            explanation = found.explanation
            reasons = explanation["reasons"]
            assert explanation["score"] == told["score"]
            assert explanation["runner_up"] == told["runner_up"]
            assert explanation["considered"] == considered
        assert {reason["reason"]: reason["hosts"] for reason in reasons} == told["reasons"]
        stages = [FILTERS.index(reason["reason"].partition(":")[0]) for reason in reasons]
        assert stages == sorted(stages)
        return found.host if isinstance(found, Placement) else None

    @invariant()
    def totals_are_the_sums_over_hosts(self) -> None:
        for group in self.site.groups:
            used, available = self.site.totals(group)
            shown = self.index.totals(group)
            assert [{n: a for n, a in amounts.items() if a} for amounts in shown] == [used, available]

    @invariant()
    def identical_hosts_are_of_one_class(self) -> None:
        """And the numbers of empty classes are reused."""
        for group in self.site.groups:
            hosts, classes = self.site.hosts_of(group), self.index.table(group).host_classes
            alike = [
                (host.state == "available", [(self.site.usable(host, n), self.site.left(host, n)) for n in CLASSES])
                for host in hosts
            ]
            numbers = classes.of.tolist()
            assert [alike.index(one) for one in alike] == [numbers.index(number) for number in numbers]
            assert len(classes.amounts) <= len(hosts)

    @rule(group=st.sampled_from(GROUPS), resources=shapes)
    def answers_do_not_depend_on_the_way(self, group: str, resources: Resources) -> None:
        """A fresh index of what stands says the same, to the byte."""
        fresh = CapacityIndex(lambda: reversed(self.site.vms))
        for name in reversed(self.site.hosts):
            fresh.host_changed(None, self.site.hosts[name])
        for rack in self.site.racks.values():
            fresh.rack_changed(None, rack)
        for one in self.site.groups.values():
            fresh.group_changed(None, one)
        assert [list(a.items()) for a in fresh.totals(group)] == [list(a.items()) for a in self.index.totals(group)]
        request = PlacementRequest("acme", resources)
        assert load_after(fresh, request, group=group) == load_after(self.index, request, group=group)
        for strategy in ("balanced", "least_fragmentation"):
            assert _answer(fresh, request, group, strategy) == _answer(self.index, request, group, strategy)

    # ── both sides at once ──

    def _host(self, name: str, new: Any) -> None:
        self.index.host_changed(self.site.hosts.get(name), new)
        if new is None:
            self.site.hosts.pop(name, None)
        else:
            self.site.hosts[name] = new

    def _rack(self, name: str, region: str, dc: str, room: str | None) -> None:
        new = a_rack(name, region=region, dc=dc, room=room)
        self.index.rack_changed(self.site.racks.get(name), new)
        self.site.racks[name] = new

    def _group(self, name: str, overcommit: Resources) -> None:
        new = a_group(name, overcommit=overcommit)
        self.index.group_changed(self.site.groups.get(name), new)
        self.site.groups[name] = new


def _placed_or_refused(
    index: CapacityIndex, request: PlacementRequest, group: str, strategy: str, members: dict[str, list[Vm]]
) -> Placement | NoCapacity:
    try:
        return place(index, request, group=group, strategy=strategy, members=members)
    except NoCapacity as refusal:
        return refusal


def _answer(index: CapacityIndex, request: PlacementRequest, group: str, strategy: str) -> str:
    found = _placed_or_refused(index, request, group, strategy, {})
    return str(found.problem() if isinstance(found, NoCapacity) else found)


class WithSmallBounds(IndexAgainstLoop):
    """Lists of changes, kept shapes and kinds at once so small that each of them is outgrown."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds.setattr(shape_scores, "CLASSES_AT_ONCE", 2)
        self.bounds.setattr(table_module, "SHAPES_MAX", 6)
        self.bounds.setattr(changes, "CHANGES_MAX", 16)


TestIndexAgainstLoop = IndexAgainstLoop.TestCase
TestIndexAgainstLoop.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestIndexAgainstLoopWithSmallBounds = WithSmallBounds.TestCase
TestIndexAgainstLoopWithSmallBounds.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
