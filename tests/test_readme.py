"""Every command that the README shows does what it says, on a platform with the sample site."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, endpoints_of

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SET_UP = "make up"  # the block that sets up and runs this very suite


def test_every_command_of_the_readme_runs(data: Path, supervisors: Callable[..., Any]) -> None:
    endpoints = endpoints_of(data, supervisors(data, BERTH_SAMPLE="1"))
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    assert len(blocks) >= 4
    # The README speaks of the usual port, data directory and environment; a test has its own.
    script = "\n".join(block for block in blocks if SET_UP not in block)
    script = script.replace("http://127.0.0.1:8420", endpoints["http"]).replace(
        ".berth/admin.token", endpoints["token_file"]
    )
    script = script.replace(".venv/bin/berth", str(Path(sys.executable).parent / "berth"))
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert '"state":"active"' in ran.stdout
    assert "0 violations, 0 differences" in ran.stdout
    assert re.search(r"invariants\s+0 violations", ran.stdout)


def test_the_two_commands_of_set_up_are_targets_of_the_makefile() -> None:
    targets = (ROOT / "Makefile").read_text()
    for command in ("up", "test"):
        assert re.search(rf"^{command}:", targets, re.MULTILINE)
