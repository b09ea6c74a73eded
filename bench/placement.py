"""`python -m bench.placement [--traces DIR]`: every strategy on every trace, into docs/placement.md and its chart.

The same bytes come out of every run: nothing is timed, and chance is seeded.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

import matplotlib

from bench.baselines import RANDOM, SEED, volume_bound
from bench.replaying import repeated, replay, without_rules
from cli.replay import trace
from cli.replay.stage import total_capacity
from cli.replay.trace import Trace

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "placement.md"
CHART = ROOT / "docs" / "placement.svg"
BEGIN, END = "<!-- what follows is written by python -m bench.placement -->", "<!-- until here -->"
TRACES = ("openb-default", "dlrm-gpu", "topology-c1", "topology-c4")
STRATEGIES = ("least_fragmentation", "best_fit", "worst_fit", "first_fit", "balanced")
BASELINES = ("fgd", "dot_product", "smallest_leftover", RANDOM)
BOUND = "volume bound"
REPEATS = 10  # more than any of them needs
SAMPLES = 3
SAMPLE_LENGTH = 30_000  # likewise
CLASS_WORDS = {"cpu_milli": "CPU", "memory_mib": "memory", "storage_gib": "storage", "gpu_milli": "GPU"}


class Row(NamedTuple):
    """`first`: utilisation at the first refusal as the trace stands; `packed`: with nothing but room to refuse it;
    `sampled`: the mean over sampled sequences. Of the trace's tightest class, None where none is refused."""

    trace: str
    strategy: str
    placed: int
    refused: int
    first: float | None
    packed: float
    sampled: float
    empty_hosts: int | None
    broken: int | None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=__doc__)
    parser.add_argument("--traces", default=str(ROOT.parent / "shared" / "traces"), help="a folder of the four traces")
    folder = parser.parse_args().traces
    if missing := [name for name in TRACES if not (Path(folder) / name / "hosts.csv").is_file()]:
        parser.error(f"not in {folder}, each a folder with its hosts.csv: {', '.join(missing)}")
    tasks = [(f"{folder}/{name}", strategy) for name in TRACES for strategy in (*STRATEGIES, *BASELINES, BOUND)]
    rows: list[Row] = []
    with ProcessPoolExecutor() as pool:
        for row in pool.map(measured, *zip(*tasks, strict=True)):
            rows.append(row)
            print(f"measured {row.trace}, {row.strategy}", file=sys.stderr)
    write(rows, {name: tightest(trace.read(f"{folder}/{name}", None)) for name in TRACES})
    return 1 if any(row.broken for row in rows) else 0


def measured(path: str, strategy: str) -> Row:
    asked = trace.read(path, None)
    name, pure = tightest(asked), of_room_alone(asked)
    samples = [sampled(asked, seed=SEED + n) for n in range(SAMPLES)]
    if strategy == BOUND:
        bound = volume_bound(asked)
        first, packed, *rest = [volume_bound(one).at_first_refusal for one in (asked, pure, *samples)]
        assert packed is not None and all(rest)
        mean = sum(one[name] for one in rest if one) / SAMPLES
        at_first = first[name] if first is not None else None
        # Where some must be refused, how many hosts stay empty depends on which.
        empty_hosts = bound.empty_hosts if not bound.refused else None
        return Row(asked.name, strategy, bound.placed, bound.refused, at_first, packed[name], mean, empty_hosts, None)

    def until_refused(one: Trace) -> float:
        found = replay(one, strategy, stop_at_first_refusal=True).tally.at_first_refusal
        assert found is not None, "the sequence is too short"
        return found[name]

    whole = replay(asked, strategy)
    at_first = whole.tally.at_first_refusal
    return Row(
        asked.name,
        strategy,
        whole.tally.placed,
        whole.tally.refused,
        at_first[name] if at_first is not None else None,
        until_refused(pure),
        sum(map(until_refused, samples)) / SAMPLES,
        whole.empty_hosts,
        len(whole.broken),
    )


def tightest(asked: Trace) -> str:
    """The class of which the trace asks most in all, as a part of what the hosts have."""
    capacity = total_capacity(asked)
    wanted = dict.fromkeys(capacity, 0)
    for request in asked.requests:
        if request.action == "create":
            for name, amount in request.resources.items():
                wanted[name] += amount
    return max(capacity, key=lambda name: wanted[name] / capacity[name])


def of_room_alone(asked: Trace) -> Trace:
    """Without rules; a trace whose load comes and goes, and is never refused, grows instead until it is."""
    if any(request.action == "delete" for request in asked.requests):
        return repeated(asked, times=REPEATS)
    return without_rules(asked)


def sampled(asked: Trace, *, seed: int) -> Trace:
    """Its creations drawn at random, with replacement, until one is refused: the inflation of Weng et al."""
    created = [request for request in asked.requests if request.action == "create"]
    drawn = Random(seed).choices(created, k=SAMPLE_LENGTH)
    requests = [request._replace(time_s=0.0, vm=f"vm-{n}", rule="", set="") for n, request in enumerate(drawn)]
    return Trace(asked.name, requests, asked.machines)


# ── what is written ──


def write(rows: list[Row], classes: dict[str, str]) -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(lines(rows, classes))
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    draw(rows, classes)


def lines(rows: list[Row], classes: dict[str, str]) -> Iterator[str]:
    yield (
        "| trace (class) | strategy | placed | refused | first refusal | for room alone | sampled "
        "| empty hosts | broken rules |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        broken = "–" if row.broken is None else str(row.broken)
        empty_hosts = "–" if row.empty_hosts is None else str(row.empty_hosts)
        told = f"{row.trace} ({CLASS_WORDS[classes[row.trace]]})"
        yield (
            f"| {told} | {_shown(row.strategy)} | {row.placed:,} | {row.refused:,} | {_part(row.first)} "
            f"| {_part(row.packed)} | {_part(row.sampled)} | {empty_hosts} | {broken} |"
        )
    for strategy in (*STRATEGIES, *BASELINES, BOUND):
        packed = mean(rows, strategy, lambda row: row.packed)
        drawn = mean(rows, strategy, lambda row: row.sampled)
        yield f"| **mean of the four** | {_shown(strategy)} | | | | **{packed:.3f}** | **{drawn:.3f}** | | |"


def mean(rows: list[Row], strategy: str, value: Callable[[Row], float]) -> float:
    found = [value(row) for row in rows if row.strategy == strategy]
    return sum(found) / len(found)


def _shown(strategy: str) -> str:
    return f"`{strategy}`" if strategy in STRATEGIES else strategy.replace("_", " ")


def _part(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def draw(rows: list[Row], classes: dict[str, str]) -> None:
    """Utilisation at the first refusal for room alone: a group of bars a trace."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "placement"
    from matplotlib import pyplot

    shown = (*STRATEGIES, *BASELINES, BOUND)
    figure, axes = pyplot.subplots(figsize=(10, 4.5), layout="constrained")
    colours = pyplot.get_cmap("tab10").colors
    width = 0.85 / len(shown)
    for n, strategy in enumerate(shown):
        found = {row.trace: row.packed for row in rows if row.strategy == strategy}
        places = [k + (n - (len(shown) - 1) / 2) * width for k in range(len(TRACES))]
        axes.bar(places, [found[name] for name in TRACES], width, label=_shown(strategy).strip("`"), color=colours[n])
    axes.set_xticks(range(len(TRACES)), [f"{name}\n({CLASS_WORDS[classes[name]]})" for name in TRACES])
    axes.set_ylabel("utilisation at the first refusal for room")
    axes.set_ylim(0, 1)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(CHART, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
