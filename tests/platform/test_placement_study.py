"""The study of placement (bench/placement.py) decides what `berth replay` decides on the running platform."""

from pathlib import Path

import pytest

from bench.replaying import replay
from cli.replay import trace
from tests.conftest import Platform
from tests.platform.test_traces import TRACES, Replayed


@pytest.mark.parametrize("strategy", ["least_fragmentation", "balanced"])
@pytest.mark.parametrize("name", [name for name in ("topology-c1", "dlrm-gpu") if name in TRACES])
def test_the_study_gives_the_numbers_of_a_replay(platform: Platform, tmp_path: Path, name: str, strategy: str) -> None:
    told = Replayed(platform, TRACES[name], tmp_path, "--strategy", strategy)
    found = replay(trace.read(str(tmp_path / f"{name}.csv"), str(tmp_path / "machines.csv")), strategy).tally
    assert found.placed == told.report["placed"]
    assert found.deleted == told.report["deleted"]
    assert dict(found.refused_by_reason) == told.report["refused_by_reason"]
    assert found.at_first_refusal == told.report["utilisation_at_first_refusal"]
    assert [sample._asdict() for sample in found.samples] == told.report["utilisation"]
