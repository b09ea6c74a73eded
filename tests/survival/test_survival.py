"""Kill anything at any time: nothing acknowledged is lost, nothing is done twice, and all comes back by itself.

`python -m tests.survival` goes on for as long as it is told to.
"""

import random
from collections.abc import Iterator

import pytest

from tests.survival.faults import QUICK
from tests.survival.place import Place
from tests.survival.trial import endure

RECOVERED_S_MAX = 30.0  # as clients see it, on a machine that has other tests to run


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Place(BERTH_STANDBY="1") as place:
        yield place


@pytest.mark.parametrize("fault", QUICK)
def test_it_survives(place: Place, fault: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: python -m tests.survival --fault '{fault}' --seed {seed}")
    outcome = endure(place, fault, seed=seed)
    assert outcome.silence_s < RECOVERED_S_MAX, outcome
