"""What is counted on the event loop, as Prometheus reads it."""

from collections.abc import Callable
from uuid import uuid4

from prometheus_client import REGISTRY

from commands.writer.metrics import Counts, Seconds


def read(name: str) -> Callable[..., float | None]:
    return lambda suffix, **labels: REGISTRY.get_sample_value(name + suffix, labels)


def test_a_bucket_holds_all_times_up_to_its_bound() -> None:
    name = f"seconds_{uuid4().hex}"
    times = Seconds(name, "", ["route"], buckets=(0.1, 1.0)).of("/v1/vms")
    for seconds in (0.05, 0.1, 0.5, 2.0):
        times.observe(seconds)

    value = read(name)
    assert value("_bucket", route="/v1/vms", le="0.1") == 2
    assert value("_bucket", route="/v1/vms", le="1.0") == 3
    assert value("_bucket", route="/v1/vms", le="+Inf") == 4
    assert value("_count", route="/v1/vms") == 4
    assert value("_sum", route="/v1/vms") == 2.65


def test_each_value_of_the_labels_is_counted_for_itself() -> None:
    name = f"counts_{uuid4().hex}"
    counted = Counts(name, "", ["route", "status"]).of
    counted["/v1/vms", 202] += 2
    counted["/v1/vms", 409] += 1

    value = read(name)
    assert value("_total", route="/v1/vms", status="202") == 2
    assert value("_total", route="/v1/vms", status="409") == 1
    assert value("_total", route="/v1/hosts", status="202") is None
