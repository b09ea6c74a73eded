"""One seed, one run."""

import random
from collections.abc import Callable, Iterator

from tests.simulation.world import Report, World

STEPS = 30_000


def run(
    seed: int,
    steps: int = STEPS,
    *,
    alter: Callable[[World], None] | None = None,
    listener: Callable[[str], None] | None = None,
) -> Report:
    world = World(seed, alter=alter)
    world.listener = listener
    return world.run(steps)


def fresh_seeds() -> Iterator[int]:
    """Other ones each time."""
    while True:
        yield random.SystemRandom().randrange(1, 2**31)


def replay_command(seed: int, steps: int) -> str:
    return f".venv/bin/python -m tests.simulation --seed {seed} --steps {steps}"


def summary(report: Report) -> str:
    faults = ", ".join(f"{count} × {kind}" for kind, count in report.faults.items()) or "none"
    return (
        f"seed {report.seed}: {report.steps:,} steps, {report.seconds:,.0f} s of its clock,"
        f" {report.commands:,} commands, {report.answered:,} answers ({report.repeated:,} repeats),"
        f" {report.take_overs} take-overs, {report.made:,} machines made, history {report.digest}"
        f"\n  faults: {faults}"
    )
