"""What a part of a body leaves as it is, and that limits hold for what comes of it, not for the part."""

from typing import Any

import pytest

from domain.host import KIND as HOST
from domain.quota import KIND as QUOTA
from domain.tenant import KIND as TENANT
from domain.vm import KIND as VM
from tests.deciding import Site, a_site, a_vm

LABELS = [{f"k{n}": "x" for n in range(first, first + 16)} for first in range(0, 80, 16)]


def a_running_vm(**body: Any) -> Site:
    site = a_site()
    site.finish(site.given("vm.provision", **a_vm(**body)))
    return site


def test_a_resize_keeps_the_classes_it_does_not_name() -> None:
    site = a_running_vm(cpu=2, memory_mib=16_384)
    site.finish(site.given("vm.resize", tenant="payments", vm="web-1", resources={"cpu": 4}))
    vm = site.fleet.get(VM, "payments", "web-1")
    assert vm is not None
    assert vm.resources == vm.claims == {"cpu": 4, "memory_mib": 16_384}
    assert site.fleet.get(HOST, "h0").used == {"cpu": 4, "memory_mib": 16_384}  # type: ignore[union-attr]


@pytest.mark.parametrize("none", [None, 0])
def test_null_or_0_takes_a_class_out_of_a_size(none: int | None) -> None:
    site = a_running_vm(cpu=2, memory_mib=1024)
    site.finish(site.given("vm.resize", tenant="payments", vm="web-1", resources={"memory_mib": none}))
    assert site.fleet.get(HOST, "h0").used == {"cpu": 2}  # type: ignore[union-attr]


def test_a_vm_is_never_resized_to_nothing() -> None:
    site = a_running_vm(cpu=2, memory_mib=1024)
    body = {"tenant": "payments", "vm": "web-1", "resources": {"cpu": 0, "memory_mib": None}}
    assert site.refused("validation", "vm.resize", **body)["errors"][0]["field"] == "/resources"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("tenant.update", {"tenant": "acme"}),
        ("rack.update", {"rack": "r1"}),
        ("group.update", {"group": "std"}),
        ("host.update", {"host": "h0"}),
        ("vm.update", {"tenant": "payments", "vm": "web-1"}),
    ],
)
def test_a_65th_label_is_refused_however_it_comes(kind: str, body: dict[str, Any]) -> None:
    site = a_running_vm()
    for labels in LABELS[:4]:
        site.given(kind, **body, labels=labels)
    problem = site.refused("validation", kind, **body, labels={"one-more": "x"})
    assert problem["errors"][0]["field"] == "/labels"
    renamed = {**dict.fromkeys(LABELS[0], None), **LABELS[4]}
    site.given(kind, **body, labels=renamed)  # what is bounded is the result
    site.given(kind, **body, labels={**LABELS[1], **LABELS[2], **LABELS[3], **LABELS[4]})


def test_a_33rd_class_is_refused_however_it_comes() -> None:
    site = a_running_vm()
    classes = [f"c{n}" for n in range(40)]
    bodies: list[tuple[str, dict[str, Any], str, int]] = [
        ("host.update", {"host": "h0"}, "capacity", 30),
        ("group.update", {"group": "std"}, "overcommit", 32),
    ]
    for kind, body, field, room in bodies:
        site.given(kind, **body, **{field: dict.fromkeys(classes[: room // 2], 1)})
        site.given(kind, **body, **{field: dict.fromkeys(classes[room // 2 : room], 1)})
        problem = site.refused("validation", kind, **body, **{field: {"one_more": 1}})
        assert problem["errors"][0]["field"] == f"/{field}"
    more = dict.fromkeys(classes[:31], 1)
    problem = site.refused("validation", "vm.resize", tenant="payments", vm="web-1", resources=more)
    assert problem["errors"][0]["field"] == "/resources"


def test_what_stood_above_a_limit_before_it_held_may_shrink() -> None:
    site = a_site()
    site.given("tenant.update", tenant="acme", labels={**LABELS[0], **LABELS[1], **LABELS[2], **LABELS[3]})
    tenant = site.fleet.get(TENANT, "acme")
    assert tenant is not None
    tenant.about.labels.update(LABELS[4])  # as a log from then would have it
    site.given("tenant.update", tenant="acme", labels=dict.fromkeys(list(LABELS[4])[:1]))
    site.refused("validation", "tenant.update", tenant="acme", labels={"a": "x", "b": "x"})


def test_a_put_replaces_the_whole() -> None:
    site = a_site()
    said = {"labels": {"a": "b"}, "description": "for tests", "protected": True}
    site.given("quota.set", group="std", tenant="acme", limits={"cpu": 1000, "vms": 5}, **said)
    site.given("quota.set", group="std", tenant="acme", limits={"cpu": 1000})
    quota = site.fleet.get(QUOTA, "std", "acme")
    assert quota is not None
    assert (quota.limits, quota.about.labels, quota.about.description, quota.about.protected) == (
        {"cpu": 1000},
        {},
        None,
        False,
    )
