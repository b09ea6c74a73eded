"""What the study of placement holds against the strategies: the volume bound, and the rules looked at anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.baselines import volume_bound
from bench.placement import BASELINES, STRATEGIES
from bench.replaying import broken_rules, repeated, replay
from cli.replay.trace import Machine, Request, Trace
from domain.host import HostClaimed
from domain.scheduling import registry
from domain.vm import Rule, VmScheduled
from tests.deciding import Site, a_site


def a_trace(*requests: tuple[str, str, int], hosts: tuple[int, ...] = (4, 4)) -> Trace:
    """Of cpu alone: (action, VM, amount)."""
    return Trace(
        "t",
        [Request(float(n), action, vm, {"cpu": cpu}, "", "", 0) for n, (action, vm, cpu) in enumerate(requests)],
        [Machine(f"h{n}", "north", "dc1", "r1", {"cpu": cpu}) for n, cpu in enumerate(hosts)],
    )


def test_the_bound_takes_the_smallest_first() -> None:
    bound = volume_bound(a_trace(("create", "a", 4), ("create", "b", 3), ("create", "c", 2), ("create", "d", 2)))
    assert (bound.placed, bound.refused) == (3, 1)
    assert bound.at_first_refusal == {"cpu": 7 / 8}


def test_the_bound_counts_what_a_deletion_frees() -> None:
    bound = volume_bound(a_trace(("create", "a", 8), ("delete", "a", 8), ("create", "b", 3), ("create", "c", 2)))
    assert (bound.placed, bound.refused, bound.at_first_refusal) == (3, 0, None)
    assert bound.empty_hosts == 0


def test_the_bound_fills_the_largest_hosts_first() -> None:
    assert volume_bound(a_trace(("create", "a", 3), ("create", "b", 3), hosts=(2, 6, 2))).empty_hosts == 2


amounts = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=25)


@given(asked=amounts, hosts=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_no_strategy_beats_the_bound(asked: list[tuple[int, bool]], hosts: list[int]) -> None:
    requests: list[tuple[str, str, int]] = []
    for n, (cpu, is_deleted) in enumerate(asked):
        requests.append(("create", f"vm-{n}", cpu))
        if is_deleted:
            requests.append(("delete", f"vm-{n // 2}", 1))
    trace = a_trace(*requests, hosts=tuple(hosts))
    bound = volume_bound(trace)
    for strategy in ("best_fit", "least_fragmentation"):
        found = replay(trace, strategy)
        assert found.broken == []
        assert found.tally.placed <= bound.placed
        assert found.tally.refused >= bound.refused
        if bound.at_first_refusal is not None:
            assert found.tally.at_first_refusal is not None
            assert found.tally.at_first_refusal["cpu"] <= bound.at_first_refusal["cpu"] + 0.0001  # the tally rounds


def test_a_repeated_trace_deletes_nothing_and_names_nothing_twice() -> None:
    requests = repeated(a_trace(("create", "a", 1), ("delete", "a", 1), ("create", "b", 1)), times=2).requests
    assert [(request.action, request.vm) for request in requests] == [
        ("create", "a-0"),
        ("create", "b-0"),
        ("create", "a-1"),
        ("create", "b-1"),
    ]


@pytest.mark.parametrize(
    ("rules", "hosts", "is_broken"),
    [
        ((Rule("affinity", "s", "host"),) * 2, ("h0", "h0"), False),
        ((Rule("affinity", "s", "host"),) * 2, ("h0", "h1"), True),
        ((Rule("anti_affinity", "s", "host"),) * 2, ("h0", "h1"), False),
        ((Rule("anti_affinity", "s", "host"),) * 2, ("h0", "h0"), True),
        (
            (Rule("partition", "s", "host", partition=0), Rule("partition", "s", "host", partition=1)),
            ("h0", "h1"),
            False,
        ),
        (
            (Rule("partition", "s", "host", partition=0), Rule("partition", "s", "host", partition=1)),
            ("h0", "h0"),
            True,
        ),
        ((Rule("partition", "s", "host", partition=0),) * 2, ("h0", "h0"), False),
    ],
)
def test_a_broken_rule_is_seen(rules: tuple[Rule, Rule], hosts: tuple[str, str], is_broken: bool) -> None:
    """Recorded as no decision would have it."""
    site: Site = a_site()
    tx = site.decider.begin()
    for n, (rule, host) in enumerate(zip(rules, hosts, strict=True)):
        vm = VmScheduled("u", "payments", f"vm-{n}", "std", host, {"cpu": 1}, "o", {}, rules=(rule,))
        tx.record(f"vm/payments/vm-{n}", vm)
        tx.record(f"host/{host}", HostClaimed(f"vm/payments/vm-{n}", {"cpu": 1}))
    assert bool(list(broken_rules(site.fleet))) == is_broken


@pytest.mark.parametrize("strategy", [*STRATEGIES, *BASELINES])
def test_all_that_is_measured_places_what_there_is_room_for(strategy: str) -> None:
    trace = a_trace(*(("create", f"vm-{n}", 1 + n % 2) for n in range(6)), hosts=(6, 6))
    found = replay(trace, strategy)
    assert (found.tally.placed, found.broken) == (6, [])
    assert not registry.STRATEGIES.keys() & set(BASELINES)
