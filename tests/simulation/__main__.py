"""`python -m tests.simulation --seed 7 --steps 100000` runs one seed, and says what it did; without a seed, new ones
for as long as `--minutes` says. Ends with 1 as soon as a law is broken, and says how to see that again."""

import argparse
import sys
import time

from tests.simulation.canaries import CANARIES, find
from tests.simulation.run import STEPS, fresh_seeds, replay_command, run, summary
from tests.simulation.world import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"with faults, of each seed (default {STEPS})")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to try new seeds (default 1)")
    parser.add_argument("--trace", action="store_true", help="print what happens as it happens")
    parser.add_argument("--canaries", action="store_true", help="put bugs in on purpose, and see each one found")
    given = parser.parse_args()
    if given.canaries:
        return _find_canaries()
    if given.seed is not None:
        return _tell(run(given.seed, given.steps, listener=print if given.trace else None), given.steps)
    ends_at = time.monotonic() + given.minutes * 60
    began, runs, steps, commands = time.monotonic(), 0, 0, 0
    faults: dict[str, int] = {}
    for seed in fresh_seeds():
        report = run(seed, given.steps)
        if report.broken:
            return _tell(report, given.steps)
        runs, steps, commands = runs + 1, steps + report.steps, commands + report.commands
        for kind, count in report.faults.items():
            faults[kind] = faults.get(kind, 0) + count
        if time.monotonic() > ends_at:
            break
    took_s = time.monotonic() - began
    print(f"{runs} runs, {steps:,} steps ({steps / took_s:,.0f}/s), {commands:,} commands, no law broken")
    for kind, count in sorted(faults.items(), key=lambda item: -item[1]):
        print(f"  {count:8,} {kind}")
    return 0


def _find_canaries() -> int:
    missed = 0
    for canary in CANARIES:
        found = find(canary)
        missed += found is None
        said = (
            f"{found.steps:9,} steps  {found.law[:110]}" if found is not None else f"not found in {canary.steps_max:,}"
        )
        print(f"{canary.name:40} {said}", flush=True)
    return min(1, missed)


def _tell(report: Report, steps: int) -> int:
    print(summary(report))
    if not report.broken:
        return 0
    print("\n".join(report.told[-60:]))
    print("\n".join(f"BROKEN: {law}" for law in report.broken[:10]))
    print(f"again: {replay_command(report.seed, steps)}")
    return 1


sys.exit(main())
