"""What a refusal tells: every host once, the nearest, and what would fit. And what a placement tells."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import NoCapacity
from domain.scheduling.index import CapacityIndex
from domain.scheduling.place import fitting_hosts, load_after
from domain.scheduling.request import PlacementRequest
from domain.vm import Rule, Where
from tests.domain.scheduling.building import a_group, a_host, a_rack, a_vm, an_index, claimed, placed, released


def refusal(index: CapacityIndex, **asked: object) -> NoCapacity:
    with pytest.raises(NoCapacity) as raised:
        placed(index, **asked)  # type: ignore[arg-type]
    return raised.value


def test_each_host_is_counted_under_the_first_filter_that_dropped_it() -> None:
    index = an_index(
        a_host("h1", rack="r2", state="cordoned", cpu=1),
        a_host("h2", rack="r2", cpu=1),
        a_host("h3", rack="r1", cpu=1),
        a_host("h4", rack="r1", labels={"disk": "ssd"}, cpu=1),
        a_host("h5", rack="r1", labels={"disk": "ssd"}, cpu=1, memory_mib=9),
        a_host("h6", rack="r1", labels={"disk": "ssd"}, cpu=9, memory_mib=1),
        racks=(a_rack("r1"), a_rack("r2")),
    )
    found = refusal(
        index,
        where=Where(rack="r1", labels={"disk": "ssd"}),
        rules=(Rule("anti_affinity", "web", "host"),),
        members={"web": [a_vm("web-1", "h4")]},
        cpu=4,
        memory_mib=4,
    )
    assert found.reasons == [
        {"reason": "state", "hosts": 1},
        {"reason": "place", "hosts": 1},
        {"reason": "labels", "hosts": 1},
        {"reason": "rule:anti_affinity", "hosts": 1},
        {"reason": "insufficient:cpu", "hosts": 1},
        {"reason": "insufficient:memory_mib", "hosts": 1},
    ]
    assert found.considered == 6


def test_the_first_class_that_is_short_is_told_also_if_no_host_has_it() -> None:
    index = an_index(a_host("h1", zeta=1))
    assert refusal(index, zeta=2, alpha=1).reasons == [{"reason": "insufficient:alpha", "hosts": 1}]
    assert refusal(index, zeta=2, cpu=1).reasons == [{"reason": "insufficient:cpu", "hosts": 1}]
    assert refusal(index, zeta=2, zz=1).reasons == [{"reason": "insufficient:zeta", "hosts": 1}]


def test_nearest_lacks_least_relative_to_the_request_and_names_only_what_lacks() -> None:
    index = an_index(
        a_host("a-lacks-half-the-cpu", cpu=4, memory_mib=100),
        a_host("b-lacks-a-fifth-of-memory", cpu=8, memory_mib=80),
        a_host("c-would-fit-but-is-cordoned", cpu=8, memory_mib=100, state="cordoned"),
    )
    found = refusal(index, cpu=8, memory_mib=100)
    assert found.nearest == {"host": "b-lacks-a-fifth-of-memory", "short": {"memory_mib": 20}}


def test_nearest_ties_go_to_the_least_name() -> None:
    # 1/3 + 2/3 and 3/3: the same, though not when floats are added up.
    index = an_index(a_host("b", cpu=2, memory_mib=1, gpu=3), a_host("a", cpu=3, memory_mib=3, gpu=0))
    nearest = refusal(index, cpu=3, memory_mib=3, gpu=3).nearest
    assert nearest == {"host": "a", "short": {"gpu": 3}}


def test_without_a_host_that_only_lacks_capacity_nothing_is_near() -> None:
    found = refusal(an_index(a_host("h1", state="cordoned")), cpu=100)
    assert (found.nearest, found.largest_fit) == (None, None)
    assert refusal(an_index(), cpu=1).considered == 0


def test_largest_fit_is_the_shape_scaled_down() -> None:
    index = an_index(a_host("h1", cpu=8, memory_mib=64), a_host("h2", cpu=16, memory_mib=30))
    assert refusal(index, cpu=10, memory_mib=100).largest_fit == {"cpu": 6, "memory_mib": 64}


def test_largest_fit_keeps_at_least_one_of_each_class() -> None:
    index = an_index(a_host("h1", cpu=8, gpu=1))
    assert refusal(index, cpu=100, gpu=1).largest_fit == {"cpu": 8, "gpu": 1}


def test_nothing_of_a_shape_fits_where_one_class_is_used_up() -> None:
    index = an_index(a_host("h1", cpu=8, gpu=1, used={"gpu": 1}), a_host("h2", gpu=4))
    assert refusal(index, cpu=4, gpu=1).largest_fit is None


amounts = st.fixed_dictionaries({"cpu": st.integers(1, 200), "memory_mib": st.integers(1, 2**53 - 1)})


@given(hosts=st.lists(amounts, min_size=1, max_size=5), asked=amounts)
def test_what_is_told_as_largest_fit_fits_and_a_larger_part_does_not(
    hosts: list[dict[str, int]], asked: dict[str, int]
) -> None:
    index = an_index(*(a_host(f"h{n}", **capacity) for n, capacity in enumerate(hosts)))
    try:
        placed(index, **asked)
        return
    except NoCapacity as found:
        largest = found.largest_fit
    assert largest is not None
    placed(index, **largest)
    # Any part of the request that has more of some class than what was told fits nowhere.
    for name, amount in largest.items():
        if amount > 1:
            larger = {other: -(-asked[other] * (amount + 1) // asked[name]) for other in asked}
            refusal(index, **larger)


@given(hosts=st.lists(amounts, min_size=1, max_size=5), asked=amounts)
def test_what_nearest_lacks_is_all_that_was_missing_there(hosts: list[dict[str, int]], asked: dict[str, int]) -> None:
    index = an_index(*(a_host(f"h{n}", **capacity) for n, capacity in enumerate(hosts)))
    try:
        placed(index, **asked)
        return
    except NoCapacity as found:
        nearest = found.nearest
    assert nearest is not None
    capacity = index.hosts[nearest["host"]].capacity
    assert nearest["short"] == {name: asked[name] - capacity[name] for name in asked if asked[name] > capacity[name]}


def test_over_commit_is_used_to_the_last_unit_and_not_beyond() -> None:
    index = an_index(a_host("h1", cpu=3), groups=(a_group(overcommit={"cpu": 1500}),))
    assert placed(index, cpu=4).host == "h1"
    assert refusal(index, cpu=5).nearest == {"host": "h1", "short": {"cpu": 1}}


def test_a_host_whose_use_stands_above_its_capacity_takes_nothing_of_that_class() -> None:
    index = an_index(a_host("h1", cpu=4, memory_mib=10, used={"cpu": 6}))
    assert refusal(index, cpu=1).nearest == {"host": "h1", "short": {"cpu": 1}}
    assert placed(index, memory_mib=10).host == "h1"


def test_amounts_at_the_bound_are_told_apart_exactly() -> None:
    most = 2**53 - 1
    index = an_index(a_host("h1", cpu=most), groups=(a_group(overcommit={"cpu": 1_000_000}),))
    claimed(index, "h1", cpu=most * 1000 - most)
    assert placed(index, cpu=most).host == "h1"
    claimed(index, "h1", cpu=1)
    assert refusal(index, cpu=most).nearest == {"host": "h1", "short": {"cpu": 1}}


def test_an_explanation_is_json_and_names_all_that_was_weighed() -> None:
    index = an_index(a_host("h1", cpu=8), a_host("h2", cpu=4), a_host("h3", cpu=1), a_host("h4", state="draining"))
    explanation = placed(index, strategy="worst_fit", cpu=2).explanation
    assert msgspec.json.decode(msgspec.json.encode(explanation)) == {
        "strategy": "worst_fit",
        "group": "std",
        "considered": 4,
        "reasons": [{"reason": "state", "hosts": 1}, {"reason": "insufficient:cpu", "hosts": 1}],
        "score": -0.75,
        "runner_up": {"host": "h2", "score": -0.5},
    }
    assert placed(index, cpu=6).explanation["runner_up"] is None


def test_load_is_what_would_be_used_of_all_that_is_there() -> None:
    index = an_index(a_host("h1", cpu=8, memory_mib=100), a_host("h2", cpu=8, used={"cpu": 4}, state="cordoned"))
    # cpu: (4 + 2) of the 4 used and the 8 available; what is free on a cordoned host is not there.
    assert load_after(index, PlacementRequest("acme", {"cpu": 2, "memory_mib": 10}), group="std") == 0.5
    assert load_after(index, PlacementRequest("acme", {"gpu": 1}), group="std") == 1.0


def test_what_is_given_back_can_be_placed_again() -> None:
    index = an_index(a_host("h1", cpu=4))
    request = PlacementRequest("acme", {"cpu": 4})
    assert fitting_hosts(index, request, group="std", members={}) == 1
    claimed(index, "h1", cpu=4)
    assert fitting_hosts(index, request, group="std", members={}) == 0
    assert index.totals("std") == ({"cpu": 4}, {"cpu": 0})
    released(index, "h1", cpu=4)
    assert fitting_hosts(index, request, group="std", members={}) == 1
    assert index.totals("std") == ({"cpu": 0}, {"cpu": 4})
