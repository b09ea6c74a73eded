"""What is sent for a document, given what is there."""

from typing import Any

import pytest

from cli.errors import Failed
from cli.site import document, plan
from cli.site.plan import Request


def step(text: str, now: dict[str, Any] | None) -> plan.Step:
    (only,) = document.read(text, file="site.yaml")
    return plan.step(only, now)


HOST = "{kind: Host, name: h1, group: std, rack: r1, capacity: {cpu: 8, gpu: 0}, labels: {disk: nvme}}"
HOST_NOW = {
    "name": "h1",
    "group": "std",
    "rack": "r1",
    "unit": 3,
    "capacity": {"cpu": 8},
    "labels": {"disk": "nvme"},
    "description": "",
}


def test_what_is_missing_is_created_with_all_that_it_says() -> None:
    made = step("{kind: Tenant, name: team, parent: dept, description: null}", None)
    assert made.outcome == "created"
    assert made.requests == [Request("POST", "/v1/tenants", {"name": "team", "parent": "dept"})]


def test_what_is_so_already_is_left_alone() -> None:
    assert step(HOST, HOST_NOW).requests == []
    assert step(HOST, HOST_NOW).outcome == "unchanged"


def test_a_field_that_the_document_leaves_out_is_left_alone() -> None:
    assert step("{kind: Host, name: h1, group: std, capacity: {cpu: 8}}", HOST_NOW).outcome == "unchanged"


def test_a_move_has_a_command_of_its_own() -> None:
    changed = step(HOST, {**HOST_NOW, "group": "mem", "rack": "r2"})
    assert changed.requests == [
        Request("PATCH", "/v1/hosts/h1", {"rack": "r1"}),
        Request("POST", "/v1/hosts/h1/move", {"group": "std"}),
    ]


def test_what_a_mapping_loses_is_said_as_null() -> None:
    changed = step(HOST, {**HOST_NOW, "labels": {"disk": "hdd", "old": "x"}})
    assert changed.requests == [Request("PATCH", "/v1/hosts/h1", {"labels": {"disk": "nvme", "old": None}})]


def test_a_class_that_a_host_loses_is_said_as_zero() -> None:
    changed = step(HOST, {**HOST_NOW, "capacity": {"cpu": 8, "nvme": 2}})
    assert changed.requests == [Request("PATCH", "/v1/hosts/h1", {"capacity": {"cpu": 8, "gpu": 0, "nvme": 0}})]


def test_a_quota_keeps_what_the_document_does_not_speak_of() -> None:
    now = {"group": "std", "tenant": "team", "limits": {"cpu": 4}, "labels": {"ticket": "7"}}
    changed = step("{kind: Quota, group: std, tenant: team, limits: {cpu: 8}}", now)
    assert changed.requests[0].body == {"limits": {"cpu": 8}, "labels": {"ticket": "7"}}


def test_a_bmc_is_compared_by_what_the_platform_shows() -> None:
    text = "{kind: Host, name: h1, group: std, capacity: {cpu: 8}, bmc: {address: 10.0.0.1, credential: vault/h1}}"
    assert step(text, {**HOST_NOW, "bmc": {"address": "10.0.0.1", "protocol": "redfish"}}).outcome == "unchanged"
    assert step(text, {**HOST_NOW, "bmc": {"address": "10.0.0.2"}}).outcome == "updated"
    assert step(text, {**HOST_NOW, "bmc": None}).outcome == "updated"


def test_limits_are_put_as_a_whole_and_a_zero_forbids() -> None:
    text = "{kind: Quota, group: std, tenant: team, limits: {cpu: 8, gpu: 0}}"
    changed = step(text, {"group": "std", "tenant": "team", "limits": {"cpu": 8}})
    assert changed.requests == [Request("PUT", "/v1/groups/std/quotas/team", {"limits": {"cpu": 8, "gpu": 0}})]
    assert step(text, {"group": "std", "tenant": "team", "limits": {"cpu": 8, "gpu": 0}}).outcome == "unchanged"


VM = "{kind: VM, tenant: team, name: web-1, group: std, resources: {cpu: 4}, where: {dc: dc1}}"
VM_NOW = {"tenant": "team", "name": "web-1", "group": "std", "resources": {"cpu": 2}, "rules": []}


def test_a_vm_is_resized_and_where_it_was_wanted_is_of_no_matter_later() -> None:
    changed = step(VM, VM_NOW)
    assert changed.requests == [Request("POST", "/v1/vms/team/web-1/resize", {"resources": {"cpu": 4}})]


def test_a_vm_does_not_change_its_group_by_a_file() -> None:
    with pytest.raises(Failed, match=r"vm web-1, field group: it is 'mem', and a file cannot change that"):
        step(VM, {**VM_NOW, "group": "mem"})


def test_rules_are_the_same_with_and_without_nulls() -> None:
    wanted = [{"type": "affinity", "set": "web", "level": "host"}]
    assert plan.same("rules", [{**wanted[0], "max_skew": None, "partition": None}], wanted)
