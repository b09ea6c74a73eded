"""What each condition promises: place, labels, and the four rules over a named set of VMs."""

import pytest
from msgspec.structs import replace

from domain.errors import NoCapacity
from domain.host import Host
from domain.rack import Rack
from domain.scheduling.index import CapacityIndex
from domain.values import About
from domain.vm import Rule, Vm, Where
from tests.domain.scheduling.building import a_group, a_host, a_rack, a_vm, an_index, placed

RACKS: tuple[Rack, ...] = (
    a_rack("r1", region="north", dc="dc1", room="a"),
    a_rack("r2", region="north", dc="dc1", room="b"),
    a_rack("r3", region="south", dc="dc1"),
)
# Two hosts in r1, one in r2, one in r3 (another dc of the same name), and one that stands in no rack.
HOSTS: tuple[Host, ...] = (
    a_host("h1", rack="r1"),
    a_host("h2", rack="r1", labels={"disk": "ssd", "tier": "gold"}),
    a_host("h3", rack="r2", labels={"disk": "ssd"}),
    a_host("h4", rack="r3"),
    a_host("h5"),
)


def allowed(*rules: Rule, where: Where | None = None, members: tuple[Vm, ...] = ()) -> list[str]:
    """The hosts on which one more VM may be placed: each is asked for by taking the better ones away."""
    hosts = list(HOSTS)
    found: list[str] = []
    while True:
        try:
            host = placed(
                an_index(*hosts, racks=RACKS), where=where, rules=rules, members={r.set: list(members) for r in rules}
            ).host
        except NoCapacity:
            return found
        found.append(host)
        # Full, not gone: a place stays a place.
        hosts = [a_host(h.name, rack=h.rack, labels=h.about.labels, cpu=0) if h.name == host else h for h in hosts]


def refused(index: CapacityIndex, **asked: object) -> dict[str, int]:
    with pytest.raises(NoCapacity) as refusal:
        placed(index, **asked)  # type: ignore[arg-type]
    return {reason["reason"]: reason["hosts"] for reason in refusal.value.reasons}


@pytest.mark.parametrize(
    ("where", "hosts"),
    [
        (Where(region="north"), ["h1", "h2", "h3"]),
        (Where(dc="dc1"), ["h1", "h2", "h3", "h4"]),
        (Where(region="south", dc="dc1"), ["h4"]),
        (Where(room="b"), ["h3"]),
        (Where(rack="r1"), ["h1", "h2"]),
        (Where(host="h5"), ["h5"]),
        (Where(rack="r1", host="h3"), []),
        (Where(labels={"disk": "ssd"}), ["h2", "h3"]),
        (Where(labels={"disk": "ssd", "tier": "gold"}), ["h2"]),
        (Where(region="north", labels={"disk": "hdd"}), []),
        (Where(), ["h1", "h2", "h3", "h4", "h5"]),
    ],
)
def test_where_keeps_the_hosts_that_meet_all_of_it(where: Where, hosts: list[str]) -> None:
    assert allowed(where=where) == hosts


@pytest.mark.parametrize(("level", "hosts"), [("host", ["h1"]), ("rack", ["h1", "h2"]), ("dc", ["h1", "h2", "h3"])])
def test_affinity_goes_where_the_set_stands(level: str, hosts: list[str]) -> None:
    assert allowed(Rule("affinity", "web", level), members=(a_vm("web-1", "h1"),)) == hosts


def test_the_first_of_an_affine_set_may_stand_at_any_place() -> None:
    assert allowed(Rule("affinity", "web", "host")) == ["h1", "h2", "h3", "h4", "h5"]
    assert allowed(Rule("affinity", "web", "rack"), members=(a_vm("failed", None),)) == ["h1", "h2", "h3", "h4"]


def test_affinity_can_not_be_kept_with_members_that_stand_apart() -> None:
    assert allowed(Rule("affinity", "web", "rack"), members=(a_vm("web-1", "h1"), a_vm("web-2", "h3"))) == []


@pytest.mark.parametrize(
    ("level", "hosts"), [("host", ["h2", "h3", "h4", "h5"]), ("rack", ["h3", "h4"]), ("dc", ["h4"])]
)
def test_anti_affinity_keeps_away_from_each_member(level: str, hosts: list[str]) -> None:
    assert allowed(Rule("anti_affinity", "web", level), members=(a_vm("web-1", "h1"),)) == hosts


def test_a_dc_is_told_by_its_region_too() -> None:
    assert allowed(Rule("anti_affinity", "web", "dc"), members=(a_vm("web-1", "h4"),)) == ["h1", "h2", "h3"]


def test_spread_keeps_counts_per_place_within_max_skew() -> None:
    once_in_r1 = (a_vm("web-1", "h1"),)
    assert allowed(Rule("spread", "web", "rack", max_skew=1), members=once_in_r1) == ["h3", "h4"]
    assert allowed(Rule("spread", "web", "rack", max_skew=2), members=once_in_r1) == ["h1", "h2", "h3", "h4"]
    once_everywhere = (*once_in_r1, a_vm("web-2", "h3"), a_vm("web-3", "h4"))
    assert allowed(Rule("spread", "web", "rack", max_skew=1), members=once_everywhere) == ["h1", "h2", "h3", "h4"]


def test_spread_counts_places_whose_hosts_take_nothing_now() -> None:
    index = an_index(a_host("h1", rack="r1"), a_host("h3", rack="r2", state="cordoned"), racks=RACKS)
    spread = Rule("spread", "web", "rack", max_skew=1)
    reasons = refused(index, rules=(spread,), members={"web": [a_vm("web-1", "h1")]})
    assert reasons == {"state": 1, "rule:spread": 1}


def test_spread_lets_an_uneven_set_even_out() -> None:
    uneven = tuple(a_vm(f"web-{n}", "h1") for n in range(4))
    assert allowed(Rule("spread", "web", "rack", max_skew=1), members=uneven) == ["h3", "h4"]


def test_partitions_share_no_place_but_their_own_members_may() -> None:
    def member(name: str, host: str, partition: int) -> Vm:
        return a_vm(name, host, Rule("partition", "db", "rack", partition=partition))

    members = (member("db-1", "h1", 1), member("db-2", "h3", 2))
    assert allowed(Rule("partition", "db", "rack", partition=1), members=members) == ["h1", "h2", "h4"]
    assert allowed(Rule("partition", "db", "rack", partition=2), members=members) == ["h3", "h4"]
    assert allowed(Rule("partition", "db", "rack", partition=3), members=members) == ["h4"]


def test_a_members_rule_binds_who_comes_later() -> None:
    harmless = Rule("spread", "web", "host", max_skew=1000)
    strict = a_vm("web-1", "h1", Rule("anti_affinity", "web", "rack"), Rule("anti_affinity", "other", "dc"))
    assert allowed(harmless, members=(strict,)) == ["h3", "h4"]


def test_a_members_partition_keeps_those_without_a_number_away() -> None:
    harmless = Rule("spread", "db", "host", max_skew=1000)
    numbered = a_vm("db-1", "h1", Rule("partition", "db", "rack", partition=1))
    assert allowed(harmless, members=(numbered,)) == ["h3", "h4"]


@pytest.mark.parametrize(
    "rule",
    [
        Rule("affinity", "web", "rack"),
        Rule("anti_affinity", "web", "rack"),
        Rule("spread", "web", "rack", max_skew=5),
        Rule("partition", "web", "rack", partition=1),
    ],
)
def test_a_host_without_a_rack_keeps_no_rule_of_racks(rule: Rule) -> None:
    assert refused(an_index(a_host("h5")), rules=(rule,)) == {f"rule:{rule.type}": 1}


def test_members_are_found_in_other_groups_too() -> None:
    index = an_index(
        a_host("h1", rack="r1"),
        a_host("h3", rack="r2"),
        a_host("x1", rack="r1", group="other"),
        racks=RACKS,
        groups=(a_group("std"), a_group("other")),
    )
    apart = Rule("anti_affinity", "web", "rack")
    assert placed(index, rules=(apart,), members={"web": [a_vm("web-1", "x1")]}).host == "h3"


def test_a_rack_that_moves_takes_its_hosts_along() -> None:
    index = an_index(a_host("h1", rack="r1"), a_host("h2", rack="r2"), racks=RACKS)
    assert placed(index, where=Where(region="north")).host == "h1"
    index.rack_changed(RACKS[0], a_rack("r1", region="south"))
    assert placed(index, where=Where(region="north")).host == "h2"


def test_new_labels_and_a_new_rack_count_from_the_next_placement_on() -> None:
    index = an_index(a_host("h1", rack="r1", labels={"disk": "hdd"}), a_host("h2", rack="r2"), racks=RACKS)
    assert refused(index, where=Where(labels={"disk": "ssd"})) == {"labels": 2}
    assert refused(index, where=Where(rack="r3")) == {"place": 2}
    index.host_changed(index.hosts["h1"], replace(index.hosts["h1"], about=About(labels={"disk": "ssd"})))
    index.host_changed(index.hosts["h2"], replace(index.hosts["h2"], rack="r3"))
    assert placed(index, where=Where(labels={"disk": "ssd"})).host == "h1"
    assert placed(index, where=Where(rack="r3")).host == "h2"
