"""OpenStack Placement, on the same machine in the same sitting: what one claim costs elsewhere.

Its own runner (not ours, and not in this repository) sets it up in a virtual environment, which the first time takes
about a minute, and measures it in several ways; the best of them is the baseline of `POST /v1/vms`.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench.row import Row

HOSTS = 1_000
SECONDS = 8
TARGET_RATIO = 250.0
RUN_S_MAX = 900.0


def measure(runner: Path, provisioning: Row, *, is_short: bool) -> list[Row]:
    """`provisioning` is ours over HTTP, at as many hosts."""
    seconds, clients, limits = (1, ["16"], ["10"]) if is_short else (SECONDS, ["1", "16", "32"], ["0", "10"])
    directory = Path(__file__).with_name("results") / "placement"
    command = [sys.executable, str(runner / "run.py"), "--venv", str(directory), "--seconds", str(seconds)]
    command += ["--hosts", "50" if is_short else str(HOSTS), "--concurrency", *clients, "--limit", *limits]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    for case in found:
        print(f"  {case}", file=sys.stderr)
    best = max(found, key=lambda case: float(case["claims_per_s"]))
    name = f"POST /v1/vms beside OpenStack Placement, {HOSTS:,} hosts"
    baseline, ratio = best["claims_per_s"], provisioning.figure / best["claims_per_s"]
    target = f"≥ {TARGET_RATIO:g} × its best ({best['concurrency']} clients, limit {best['limit'] or 'none'})"
    return [Row(name, provisioning.figure, "/s", target, ratio >= TARGET_RATIO, baseline, ratio)]
