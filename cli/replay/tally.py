"""What a replay counts as it goes: placed, refused and why, how full the hosts are, how long a request took."""

from collections import Counter
from typing import Any, NamedTuple

SAMPLES = 10


class Sample(NamedTuple):
    """How full the hosts were after `requests` of the trace, at its time `time_s`."""

    requests: int
    time_s: float
    utilisation: dict[str, float]


class Tally:
    """Counts in the trace's order. Utilisation is Σ of what is placed ÷ Σ of capacity, in the classes that have any."""

    def __init__(self, capacity: dict[str, int], *, requests: int) -> None:
        self._capacity = {name: amount for name, amount in capacity.items() if amount > 0}
        self._used: Counter[str] = Counter()
        self._running: dict[str, dict[str, int]] = {}
        self._expected = requests
        self.done = 0
        self.placed = 0
        self.deleted = 0
        self.deletions_failed = 0
        self.deletions_skipped = 0
        self.refused_by_reason: Counter[str] = Counter()
        self.at_first_refusal: dict[str, float] | None = None
        self.samples: list[Sample] = []
        self.single_ms: list[float] = []

    @property
    def refused(self) -> int:
        return self.refused_by_reason.total()

    def is_running(self, vm: str) -> bool:
        return vm in self._running

    def place(self, vm: str, resources: dict[str, int], time_s: float) -> None:
        self.placed += 1
        self._running[vm] = resources
        self._used.update(resources)
        self._count(time_s)

    def refuse(self, problem: dict[str, Any], time_s: float) -> None:
        if self.at_first_refusal is None:
            self.at_first_refusal = self.utilisation()
        self.refused_by_reason[reason_of(problem)] += 1
        self._count(time_s)

    def delete(self, vm: str, time_s: float) -> None:
        self.deleted += 1
        self._used.subtract(self._running.pop(vm))
        self._count(time_s)

    def fail_deletion(self, time_s: float) -> None:
        """It could not be deleted, and so it still holds what it has."""
        self.deletions_failed += 1
        self._count(time_s)

    def skip_deletion(self, time_s: float) -> None:
        """It was refused when it was asked for, so there is nothing to delete."""
        self.deletions_skipped += 1
        self._count(time_s)

    def utilisation(self) -> dict[str, float]:
        return {name: round(self._used[name] / amount, 4) for name, amount in self._capacity.items()}

    def _count(self, time_s: float) -> None:
        self.done += 1
        mark = -(-self._expected * (len(self.samples) + 1) // SAMPLES)
        if self.done >= mark and len(self.samples) < SAMPLES:
            self.samples.append(Sample(self.done, time_s, self.utilisation()))


def reason_of(problem: dict[str, Any]) -> str:
    """The problem's code; for `no_capacity` the reason that dropped most hosts, as that is what a person asks next."""
    code = str(problem.get("code") or problem.get("status") or "unknown")
    reasons = problem.get("reasons")
    if code != "no_capacity" or not reasons:
        return code
    worst = min(reasons, key=lambda entry: (-int(entry["hosts"]), str(entry["reason"])))
    return str(worst["reason"])


def percentile(values: list[float], share: float) -> float | None:
    """The nearest-rank percentile; None of nothing."""
    if not values:
        return None
    rank = max(1, -(-len(values) * share // 1))
    return sorted(values)[int(rank) - 1]
