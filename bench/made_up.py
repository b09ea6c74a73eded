"""`python -m bench.made_up`: the strategies on twelve made-up sites, which had no part in the making of any of them.

`least_fragmentation` was shaped on the four traces of placement.py, and these tell what that is worth elsewhere.
Seeded: every run prints the same.
"""

import sys
from random import Random

from bench.baselines import RANDOM
from bench.placement import STRATEGIES
from bench.replaying import replay
from cli.replay.trace import Machine, Request, Trace

SEEDS = range(100, 112)
HOSTS = 200
SHAPES = 15
REQUESTS = 8000  # more than fit
COMPARED = (*STRATEGIES, "smallest_leftover", RANDOM)


def main() -> int:
    found: dict[str, list[float]] = {strategy: [] for strategy in COMPARED}
    print("site", *COMPARED)
    for seed in SEEDS:
        asked = site(seed)
        for strategy in COMPARED:
            used = replay(asked, strategy, stop_at_first_refusal=True).tally.at_first_refusal
            assert used is not None, "the sequence is too short"
            found[strategy].append(max(used.values()))
        print(seed, *(f"{found[strategy][-1]:.3f}" for strategy in COMPARED), flush=True)
    print("mean", *(f"{sum(values) / len(values):.3f}" for values in found.values()))
    best = [max(values) for values in zip(*found.values(), strict=True)]
    print("first or level", *(sum(map(float.__eq__, values, best)) for values in found.values()))
    return 0


def site(seed: int) -> Trace:
    """Hosts of three kinds; shapes of which the n-th is asked for 1/n times as often as the first."""
    chance = Random(seed)
    kinds = [_kind(chance) for _ in range(3)]
    machines = [Machine(f"h{n:03}", "n", "d", f"r{n // 20}", chance.choice(kinds)) for n in range(HOSTS)]
    has_gpus = any("gpu" in machine.capacity for machine in machines)
    shapes = []
    for _ in range(SHAPES):
        cpu = chance.choice([1, 2, 4, 8, 16, 32])
        shape = {"cpu": cpu, "memory_mib": 1024 * cpu * chance.choice([1, 2, 4, 8])}
        if has_gpus and chance.random() < 0.4:
            shape["gpu"] = chance.choice([1, 1, 1, 2, 4])
        if any(all(amount <= m.capacity.get(name, 0) for name, amount in shape.items()) for m in machines):
            shapes.append(shape)
    drawn = chance.choices(shapes, [1 / (n + 1) for n in range(len(shapes))], k=REQUESTS)
    requests = [Request(0.0, "create", f"vm-{n}", shape, "", "", 0) for n, shape in enumerate(drawn)]
    return Trace("made-up", requests, machines)


def _kind(chance: Random) -> dict[str, int]:
    cpu, memory_gib = chance.choice([32, 48, 64, 96, 128]), chance.choice([128, 192, 256, 512, 768])
    kind = {"cpu": cpu, "memory_mib": 1024 * memory_gib}
    if chance.random() < 0.4:
        kind["gpu"] = chance.choice([2, 4, 8])
    return kind


if __name__ == "__main__":
    sys.exit(main())
