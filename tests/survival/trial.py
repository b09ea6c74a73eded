"""One fault in the middle of load, and what came of it."""

import random
import time

import msgspec

from tests.survival import laws
from tests.survival.faults import FAULTS
from tests.survival.load import Load
from tests.survival.place import Place

BEFORE_S, AFTER_S = 1.0, 1.0


class Outcome(msgspec.Struct, frozen=True):
    """How long it took to recover: `silence_s` is the longest time in which nobody was answered; `caught_up_s` until
    read model and NATS held all that the log held when the fault was over, and no operation ran that ran then."""

    fault: str
    seed: int
    acknowledged: int
    repeats: int
    silence_s: float
    caught_up_s: float
    events: int


def endure(place: Place, fault: str, *, seed: int) -> Outcome:
    """Raises AssertionError when a promise was broken."""
    chance = random.Random(f"{fault}/{seed}")
    token = (place.data / "admin.token").read_text().strip()
    load = Load(place.endpoints["http"], token, seed=seed)
    with load:
        time.sleep(BEFORE_S + chance.random())
        struck_at = time.monotonic()
        FAULTS[fault](place, chance)
        laws.await_caught_up(place)
        caught_up_s = time.monotonic() - struck_at
        time.sleep(AFTER_S + chance.random())
    assert load.failures == []
    silence_s = load.longest_silence_s(struck_at)
    events = laws.check(place, load.acknowledged)
    return Outcome(
        fault, seed, len(load.acknowledged), load.repeats, round(silence_s, 2), round(caught_up_s, 2), events
    )
