"""The engine's own part of what Prometheus scrapes: an API process beside it tells it with its own."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest


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
