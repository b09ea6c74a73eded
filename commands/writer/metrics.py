"""The engine's own part of what Prometheus scrapes: an API process beside it tells it with its own."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counts(Collector):
    """How often, by the values of the labels; counted on one event loop alone, so that it needs no lock: a seventh of
    what Prometheus' own costs."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.of: Counter[tuple[Any, ...]] = Counter()
        REGISTRY.register(self)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        # A copy: it is counted on the event loop, and told in a thread.
        for values, count in list(self.of.items()):
            family.add_metric([str(value) for value in values], count)
        yield family


class Times:
    """How many times there were, by the bucket that each falls into, and their sum."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds


class Seconds(Collector):
    """A histogram of seconds that one event loop alone observes, so that it needs no lock: a fourth of what Prometheus'
    own costs, which was 1 % of a command's time over HTTP."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, buckets
        self._times: dict[tuple[str, ...], Times] = {}
        REGISTRY.register(self)

    def of(self, *labels: str) -> Times:
        """Those with these values of the labels."""
        return self._times.setdefault(labels, Times(self._bounds))

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        bounds = (*self._bounds, inf)
        names: list[str] = [floatToGoString(bound) for bound in bounds]  # type: ignore[no-untyped-call]  # Prometheus' own
        # A copy: it is counted on the event loop, and told in a thread.
        for labels, times in list(self._times.items()):
            buckets = list(zip(names, accumulate(list(times.counts)), strict=True))
            family.add_metric(labels, buckets, times.sum)
        yield family


class Part(CollectorRegistry):
    """Of all that this process counts, what `is_engines` is or is not."""

    def __init__(self, *, is_engines: bool) -> None:
        super().__init__()
        self._is_engines = is_engines

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in REGISTRY.collect() if _is_engines(metric.name) is self._is_engines)


def exposition() -> bytes:
    return generate_latest(Part(is_engines=True))


def _is_engines(name: str) -> bool:
    return name.startswith("berth_") and not name.startswith("berth_http_")
