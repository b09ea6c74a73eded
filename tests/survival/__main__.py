"""`python -m tests.survival [--minutes N] [--rounds N] [--quick] [--fault NAME] [--seed N] [--to FILE]`: faults at
random, until time is up and each was tried as often as rounds were asked for.

Prints a line for each trial and, at the end, the table of docs/reliability.md. A broken promise ends it with exit
code 1 and the command that tries the same again.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.survival.faults import FAULTS, QUICK
from tests.survival.place import Place
from tests.survival.trial import Outcome, endure

# Two engines, one, and one in the API's process, by turns: there a kill of the API is a kill of the engine.
SHAPES: tuple[dict[str, str], ...] = ({"BERTH_STANDBY": "1"}, {}, {"BERTH_ENGINE": "local"})
TRIALS_A_PLACE = 25  # a log that grows without end would make looking at all of it the longest part


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for as long (default: one round)")
    parser.add_argument("--rounds", type=int, default=1, help="try each fault at least so often (default: once)")
    parser.add_argument("--quick", action="store_true", help="only the faults that the suite tries")
    parser.add_argument("--fault", choices=FAULTS, help="this one alone")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--to", type=Path, help="append each outcome to this file, as a line of JSON")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    ends_at = time.monotonic() + asked.minutes * 60
    outcomes: list[Outcome] = []
    waiting: list[str] = []
    faults = [asked.fault] if asked.fault else [*QUICK] if asked.quick else [*FAULTS]
    rounds = 0
    while True:
        shape = SHAPES[0 if asked.fault is not None else len(outcomes) // TRIALS_A_PLACE % len(SHAPES)]
        with Place(**shape) as place:
            for _ in range(TRIALS_A_PLACE):
                if not waiting:
                    if rounds >= asked.rounds and time.monotonic() > ends_at:
                        print(table(outcomes))
                        return 0
                    waiting = chance.sample(faults, len(faults))
                    rounds += 1
                fault = waiting.pop()
                if "standby" in fault and "BERTH_STANDBY" not in shape:
                    continue
                seed = asked.seed if asked.fault and rounds == 1 else chance.randrange(2**32)
                try:
                    outcomes.append(endure(place, fault, seed=seed))
                except AssertionError as broken:
                    print(f"BROKEN by {fault}: {broken}\npython -m tests.survival --fault '{fault}' --seed {seed}")
                    return 1
                print(json.dumps(msgspec.to_builtins(outcomes[-1])), flush=True)
                if asked.to is not None:
                    with open(asked.to, "a") as file:
                        file.write(json.dumps(msgspec.to_builtins(outcomes[-1])) + "\n")


def table(outcomes: Sequence[Outcome]) -> str:
    by_fault: defaultdict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_fault[outcome.fault].append(outcome)
    titles = ("fault", "runs", "answers", "lost", "doubled", "silence p50 s", "worst s", "caught up p50 s", "worst s")
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for fault, those in sorted(by_fault.items()):
        answers = sum(outcome.acknowledged for outcome in those)
        silence = _middle_and_worst([outcome.silence_s for outcome in those])
        caught_up = _middle_and_worst([outcome.caught_up_s for outcome in those])
        lines.append(f"| {fault} | {len(those)} | {answers:,} | 0 | 0 | {silence} | {caught_up} |")
    return "\n".join(lines)


def _middle_and_worst(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} | {max(seconds):.2f}"


if __name__ == "__main__":
    sys.exit(main())
