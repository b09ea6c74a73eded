"""What each strategy prefers, and that one host alone is scored as among many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.scheduling.demand import SHAPES_MAX, Demand
from domain.scheduling.registry import STRATEGIES, reads_demand
from domain.scheduling.shape_scores import BLOCK_ROWS
from tests.domain.scheduling.building import a_host, a_vm, an_index, claimed, placed

EMPTY = a_host("a-empty", cpu=8, memory_mib=80)
HALF = a_host("b-half", cpu=8, memory_mib=80, used={"cpu": 4, "memory_mib": 40})
FULLER = a_host("c-fuller", cpu=8, memory_mib=80, used={"cpu": 6, "memory_mib": 60})


@pytest.mark.parametrize(
    ("strategy", "host"), [("best_fit", "c-fuller"), ("worst_fit", "a-empty"), ("first_fit", "a-empty")]
)
def test_best_fit_leaves_least_room_worst_fit_most_and_first_fit_goes_by_name(strategy: str, host: str) -> None:
    index = an_index(FULLER, HALF, EMPTY)
    assert placed(index, strategy=strategy, cpu=1, memory_mib=10).host == host


def test_balanced_takes_the_host_whose_classes_come_into_proportion() -> None:
    much_memory_used = a_host("b", cpu=8, memory_mib=80, used={"cpu": 1, "memory_mib": 40})
    much_cpu_used = a_host("a", cpu=8, memory_mib=80, used={"cpu": 4, "memory_mib": 10})
    index = an_index(much_memory_used, much_cpu_used)
    assert placed(index, strategy="balanced", cpu=3).host == "b"
    assert placed(index, strategy="balanced", memory_mib=30).host == "a"


def test_balanced_looks_only_at_classes_that_the_host_has() -> None:
    index = an_index(
        a_host("a-with-idle-gpu", cpu=8, memory_mib=80, gpu=4),
        a_host("b-without-gpu", cpu=8, memory_mib=80),
    )
    assert placed(index, strategy="balanced", cpu=4, memory_mib=40).host == "b-without-gpu"


def test_a_class_that_a_host_lacks_counts_as_nothing_free() -> None:
    index = an_index(a_host("a-with-gpu", cpu=8, gpu=4), a_host("b-without", cpu=8))
    placement = placed(index, strategy="best_fit", cpu=4)
    assert placement.host == "b-without"
    assert placement.explanation["score"] == 0.25
    assert placement.explanation["runner_up"] == {"host": "a-with-gpu", "score": 0.75}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_ties_go_to_the_least_name(strategy: str) -> None:
    index = an_index(*(a_host(name) for name in ("h2", "h10", "h1")))
    placement = placed(index, strategy=strategy)
    assert placement.host == "h1"
    assert placement.explanation["runner_up"] == {"host": "h10", "score": placement.explanation["score"]}


amounts = st.lists(st.tuples(st.integers(0, 2**53), st.integers(0, 2**53)), min_size=3, max_size=3)


@given(hosts=st.lists(amounts, min_size=1, max_size=40))
def test_a_host_alone_is_scored_to_the_bit_as_among_others(hosts: list[list[tuple[int, int]]]) -> None:
    capacity = np.array([[max(pair) for pair in host] for host in hosts], dtype=np.float64).T
    free = np.array([[min(pair) for pair in host] for host in hosts], dtype=np.float64).T
    counts = {(("cpu", 3), ("memory_mib", 2**20)): 9, (("gpu", 1),): 2, (("memory_mib", 2**52),): 1}
    demand = Demand(counts, {"cpu": 2**53, "memory_mib": 2**53, "gpu": 2**53})
    for strategy in STRATEGIES.values():
        more = (np.array([[1.0], [5.0], [0.0]]), demand) if reads_demand(strategy) else ()
        together = strategy(free, capacity, *more)
        for row in range(len(hosts)):
            alone = strategy(list(free[:, row : row + 1]), list(capacity[:, row : row + 1]), *more)
            assert alone.tobytes() == together[row : row + 1].tobytes()


def test_a_claim_moves_the_next_choice() -> None:
    index = an_index(a_host("a", cpu=8), a_host("b", cpu=8))
    assert placed(index, strategy="worst_fit", cpu=2).host == "a"
    claimed(index, "a", cpu=2)
    assert placed(index, strategy="worst_fit", cpu=2).host == "b"


def test_the_best_is_found_in_whatever_block_of_hosts_it_stands() -> None:
    names = [f"h{n:03}" for n in range(3 * BLOCK_ROWS)]
    index = an_index(*(a_host(name, cpu=8) for name in names))
    for _ in range(2):
        for name, following in zip(names, [*names[1:], names[0]], strict=True):
            placement = placed(index, strategy="worst_fit", cpu=1)
            assert (placement.host, placement.explanation["runner_up"]["host"]) == (name, following)
            claimed(index, name, cpu=1)


def test_asking_again_without_a_claim_gives_the_same_answer() -> None:
    index = an_index(*(a_host(f"h{n:03}", cpu=8) for n in range(3 * BLOCK_ROWS)))
    claimed(index, "h100", cpu=1)
    first = placed(index, strategy="best_fit", cpu=1)
    assert first.host == "h100"
    assert placed(index, strategy="best_fit", cpu=1) == first


def test_least_fragmentation_keeps_room_for_the_shapes_seen_lately() -> None:
    """Best fit would take the fuller host; there the newcomer costs the group one more large VM."""
    index = an_index(a_host("a", cpu=8, used={"cpu": 1}), a_host("b", cpu=8, used={"cpu": 4}))
    assert placed(index, strategy="least_fragmentation", cpu=1).host == "b"
    large = replace(a_vm("large", "a"), resources={"cpu": 4})
    index.vm_changed(None, large)
    assert placed(index, strategy="least_fragmentation", cpu=1).host == "a"
    assert placed(index, strategy="best_fit", cpu=1).host == "b"


def test_what_was_seen_lately_is_what_lives() -> None:
    index = an_index(a_host("a", cpu=8, used={"cpu": 1}), a_host("b", cpu=8, used={"cpu": 4}))
    before = placed(index, strategy="least_fragmentation", cpu=1)
    large = replace(a_vm("large", "a"), resources={"cpu": 4})
    index.vm_changed(None, large)
    assert placed(index, strategy="least_fragmentation", cpu=1) != before
    index.vm_changed(large, replace(large, host=None, state="failed"))
    assert placed(index, strategy="least_fragmentation", cpu=1) == before


def test_a_shape_that_no_host_could_take_is_no_demand() -> None:
    shapes = {(("cpu", 9),): 1, (("cpu", 1), ("fpga", 1)): 1, (("cpu", 8),): 1}
    assert Demand(shapes, {"cpu": 8}).weighed == [(1000, (("cpu", 8),))]


def test_more_shapes_than_are_kept_leave_out_those_of_least_weight() -> None:
    shapes = {(("cpu", amount),): 1 for amount in range(1, SHAPES_MAX + 3)}
    kept = {shape for _, shape in Demand(shapes, {"cpu": 1000}).weighed}
    assert kept == {(("cpu", amount),) for amount in range(3, SHAPES_MAX + 3)}
