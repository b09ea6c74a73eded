"""`berth replay` of real traces on a running platform; what it says is recomputed from the trace and from the API.

The beginnings of the traces, on part of their hosts, so that hosts fill up and some requests are refused.
"""

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Platform
from tests.platform.client import Client, client_of

EXAMPLES = ROOT / "examples" / "traces"
SHARED = ROOT.parent / "shared" / "traces"  # stands beside some checkouts, with more of them
TRACES = {file.parent.name: file.parent for root in (SHARED, EXAMPLES) for file in root.glob("*/requests.csv.gz")}
# Of each trace: how many requests, and every how many-th host. A delete waits for a controller, so fewer of those.
PARTS = {"openb-default": (1500, 6), "dlrm-gpu": (600, 8), "topology-c1": (1000, 5), "topology-c4": (1000, 5)}
CLASSES = ("cpu_milli", "memory_mib", "storage_gib", "gpu_milli")
FEW = 300  # requests, where one trace is replayed several times
PAGE = 1000


class Replayed:
    """One replay of a part of a trace: the trace's rows, and what the command printed."""

    def __init__(
        self, platform: Platform, folder: Path, directory: Path, *arguments: str, requests_max: int | None = None
    ) -> None:
        part, host_step = PARTS.get(folder.name, (500, 8))
        with gzip.open(folder / "requests.csv.gz", "rt") as file:
            self.requests = list(csv.DictReader(file))[: requests_max or part]
        with open(folder / "hosts.csv") as file:
            self.hosts = list(csv.DictReader(file))[::host_step]
        self.creates = {row["vm"]: row for row in self.requests if row["action"] == "create"}
        trace = directory / f"{folder.name}.csv"
        for path, rows in ((trace, self.requests), (directory / "machines.csv", self.hosts)):
            with open(path, "w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        command = [sys.executable, "-m", "cli", "replay", str(trace), "--hosts", str(directory / "machines.csv")]
        environment = {**os.environ, "BERTH_URL": platform.url, "BERTH_TOKEN": platform.token}
        self.ended = subprocess.run(
            [*command, "-o", "json", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert self.ended.returncode == 0, self.ended.stderr
        self.report: dict[str, Any] = json.loads(self.ended.stdout)

    def vms(self, client: Client) -> list[dict[str, Any]]:
        """All that stands at the end, from the API."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"tenant": self.report["tenant"], "limit": PAGE, "min_position": client.end()}
        while True:
            page = client.get("/v1/vms", **query).json()
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]


@pytest.mark.parametrize("folder", TRACES.values(), ids=TRACES)
def test_a_trace_ends_with_accounts_that_add_up(platform: Platform, folder: Path, tmp_path: Path) -> None:
    replayed = Replayed(platform, folder, tmp_path)
    report = replayed.report
    deletes = len(replayed.requests) - len(replayed.creates)
    assert report["placed"] + report["refused"] == len(replayed.creates)
    assert report["deleted"] + report["deletions_skipped"] == deletes
    assert sum(report["refused_by_reason"].values()) == report["refused"]
    assert report["violations"] == 0
    assert (report["utilisation_at_first_refusal"] is None) == (report["refused"] == 0)
    assert 0 < report["p50_ms"] <= report["p99_ms"]

    client = client_of(platform)
    vms = replayed.vms(client)
    assert len(vms) == report["placed"] - report["deleted"]
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for vm in vms:
        asked = {name: int(replayed.creates[vm["name"]][name]) for name in CLASSES}
        assert vm["resources"] == {name: amount for name, amount in asked.items() if amount}
        used[vm["host"]].update(vm["resources"])
    hosts = client.get("/v1/hosts", group=report["group"], limit=PAGE).json()["items"]
    for host in hosts:
        assert {name: amount for name, amount in host["used"].items() if amount} == used[host["name"]]
        assert all(amount <= host["capacity"].get(name, 0) for name, amount in used[host["name"]].items())
    total = {name: sum(int(row[name]) for row in replayed.hosts) for name in CLASSES}
    taken = sum(used.values(), Counter[str]())
    assert report["utilisation_at_end"] == {
        name: round(taken[name] / amount, 4) for name, amount in total.items() if amount
    }
    _rules_must_hold(replayed, vms)


def test_a_trace_replayed_again_is_placed_alike(platform: Platform, tmp_path: Path) -> None:
    """Another run has names of its own, and the same hosts in the same order: the same inputs, the same decisions."""
    first, second = (Replayed(platform, EXAMPLES / "topology-c1", tmp_path, requests_max=FEW) for _ in range(2))
    assert first.report["group"] != second.report["group"]
    for field in ("placed", "refused_by_reason", "utilisation_at_first_refusal", "utilisation"):
        assert first.report[field] == second.report[field], field


@pytest.mark.parametrize("strategy", ["best_fit", "worst_fit", "first_fit", "balanced"])
def test_every_strategy_replays(platform: Platform, tmp_path: Path, strategy: str) -> None:
    replayed = Replayed(platform, EXAMPLES / "topology-c1", tmp_path, "--strategy", strategy, requests_max=FEW)
    report = replayed.report
    assert (report["strategy"], report["violations"]) == (strategy, 0)
    assert report["placed"] > 0


def _rules_must_hold(replayed: Replayed, vms: list[dict[str, Any]]) -> None:
    members: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for vm in vms:
        row = replayed.creates[vm["name"]]
        if row.get("rule"):
            members[row["rule"], row["set"]].append((vm["host"], vm["rack"], row["domain"]))
    for (rule, _), placed in members.items():
        hosts = {host for host, _, _ in placed}
        match rule:
            case "affinity":
                assert len(hosts) == 1
            case "anti_affinity":
                assert len(hosts) == len(placed)
            case "fault_domain":
                domains = {(rack, domain) for _, rack, domain in placed}
                assert len({rack for rack, _ in domains}) == len(domains), "two domains share a rack"
