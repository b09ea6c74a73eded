"""OpenStack Placement, on the same machine in the same sitting: what one claim costs elsewhere.

Its own runner (not ours, and not in this repository) sets it up in a virtual environment, which the first time takes
about a minute, and measures it in several ways; the best of them is the baseline of `POST /v1/vms`.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

from bench.row import Row
from workers import child

HOSTS = 1_000
SECONDS = 8
TARGET_RATIO = 250.0
RUN_S_MAX = 900.0


def measure(runner: Path, provisioning: Row, *, is_short: bool) -> list[Row]:
    """`provisioning` is ours over HTTP, at as many hosts."""
    seconds, clients, limits = (1, ["16"], ["10"]) if is_short else (SECONDS, ["1", "16", "32"], ["0", "10"])
    hosts = 50 if is_short else HOSTS
    directory = Path(__file__).with_name("results") / "placement"
    command = [sys.executable, runner.resolve() / "run.py", "--venv", directory, "--seconds", str(seconds)]
    command += ["--hosts", str(hosts), "--concurrency", *clients, "--limit", *limits]
    best = max(_cases(command), key=lambda case: float(case["claims_per_s"]))
    name = f"POST /v1/vms beside OpenStack Placement, {hosts:,} hosts"
    baseline, ratio = best["claims_per_s"], provisioning.figure / best["claims_per_s"]
    target = f"≥ {TARGET_RATIO:g} × its best ({best['concurrency']} clients, limit {best['limit'] or 'none'})"
    return [Row(name, provisioning.figure, "/s", target, ratio >= TARGET_RATIO, baseline, ratio)]


def _cases(command: list[str | Path]) -> Iterator[dict[str, Any]]:
    """What the runner measures, one after the other. It takes its servers down itself, when it is interrupted too, for
    which it needs its time: so a Ctrl-C must not reach it twice, nor we end before it."""
    print("  OpenStack Placement is being set up", file=sys.stderr)
    out, into = os.pipe()
    with open(into, "wb") as log:
        runner = child.spawn(command, log=log, signal_at_our_death=signal.SIGINT)
    patience = Timer(RUN_S_MAX, runner.send_signal, [signal.SIGINT])
    patience.start()
    told = []
    try:
        with open(out) as lines:
            for line in lines:
                told.append(line)
                if line.startswith("{"):
                    print(f"  {line.rstrip()}", file=sys.stderr)
                    yield json.loads(line)
    except BaseException:
        runner.send_signal(signal.SIGINT)
        raise
    finally:
        patience.cancel()
        status = runner.wait()
    assert status == 0, "".join(told)
