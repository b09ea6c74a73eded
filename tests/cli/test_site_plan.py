"""What is sent for a document, given what is there."""

import re
from typing import Any

import pytest

from cli import schema
from cli.errors import Failed
from cli.site import document, plan
from cli.site.plan import Request
from tests.cli.conftest import KINDS


def step(text: str, now: dict[str, Any] | None) -> plan.Step:
    (only,) = document.read(text, file="site.yaml", kinds=KINDS)
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
    assert made.requests == [Request("tenant.create", "POST", "/v1/tenants", {"name": "team", "parent": "dept"}, {})]


def test_what_is_so_already_is_left_alone() -> None:
    assert step(HOST, HOST_NOW).requests == []
    assert step(HOST, HOST_NOW).outcome == "unchanged"


def test_a_field_that_the_document_leaves_out_is_left_alone() -> None:
    assert step("{kind: Host, name: h1, group: std, capacity: {cpu: 8}}", HOST_NOW).outcome == "unchanged"


def test_a_move_has_a_command_of_its_own() -> None:
    changed = step(HOST, {**HOST_NOW, "group": "mem", "rack": "r2"})
    assert changed.requests == [
        Request("host.update", "PATCH", "/v1/hosts/h1", {"rack": "r1"}, {"host": "h1"}),
        Request("host.move", "POST", "/v1/hosts/h1/move", {"group": "std"}, {"host": "h1"}),
    ]


def test_what_a_mapping_loses_is_said_as_null() -> None:
    changed = step(HOST, {**HOST_NOW, "labels": {"disk": "hdd", "old": "x"}})
    assert [request.body for request in changed.requests] == [{"labels": {"disk": "nvme", "old": None}}]


def test_a_class_that_a_host_loses_is_said_as_null() -> None:
    changed = step(HOST, {**HOST_NOW, "capacity": {"cpu": 8, "nvme": 2}})
    assert [request.body for request in changed.requests] == [{"capacity": {"cpu": 8, "gpu": 0, "nvme": None}}]


def test_a_quota_keeps_what_the_document_does_not_speak_of() -> None:
    now = {"group": "std", "tenant": "team", "limits": {"cpu": 4}, "labels": {"ticket": "7"}, "version": 9}
    changed = step("{kind: Quota, group: std, tenant: team, limits: {cpu: 8}}", now)
    assert changed.requests[0].body == {"limits": {"cpu": 8}, "labels": {"ticket": "7"}}
    assert changed.requests[0].if_match == '"9"'


def test_what_the_platform_does_not_show_counts_as_different() -> None:
    text = "{kind: Host, name: h1, group: std, capacity: {cpu: 8}, bmc: {address: 10.0.0.1, credential: vault/h1}}"
    shown = {"address": "10.0.0.1", "protocol": "redfish", "credential": "vault/h1"}
    assert step(text, {**HOST_NOW, "bmc": shown}).outcome == "unchanged"
    assert step(text, {**HOST_NOW, "bmc": {"address": "10.0.0.1", "protocol": "redfish"}}).outcome == "updated"
    assert step(text, {**HOST_NOW, "bmc": {**shown, "address": "10.0.0.2"}}).outcome == "updated"
    assert step(text, {**HOST_NOW, "bmc": None}).outcome == "updated"


def test_limits_are_put_as_a_whole_and_a_zero_forbids() -> None:
    text = "{kind: Quota, group: std, tenant: team, limits: {cpu: 8, gpu: 0}}"
    changed = step(text, {"group": "std", "tenant": "team", "limits": {"cpu": 8}, "version": 7})
    (put,) = changed.requests
    assert (put.method, put.path, put.body) == ("PUT", "/v1/groups/std/quotas/team", {"limits": {"cpu": 8, "gpu": 0}})
    assert put.item() == {
        "command": "quota.set",
        "group": "std",
        "tenant": "team",
        "limits": {"cpu": 8, "gpu": 0},
    }
    assert put.if_match == '"7"'
    assert step(text, {"group": "std", "tenant": "team", "limits": {"cpu": 8, "gpu": 0}}).outcome == "unchanged"


VM = "{kind: VM, tenant: team, name: web-1, group: std, resources: {cpu: 4}, where: {dc: dc1}}"
VM_NOW = {
    "tenant": "team",
    "name": "web-1",
    "group": "std",
    "resources": {"cpu": 2},
    "rules": [],
    "where": {"region": None, "dc": "dc1", "room": None, "rack": None, "host": None, "labels": {}},
}


def test_a_vm_is_resized_by_its_own_command_and_a_class_that_it_loses_is_said_as_null() -> None:
    (resize,) = step(VM, {**VM_NOW, "resources": {"cpu": 2, "memory_mib": 512}}).requests
    assert (resize.command, resize.path) == ("vm.resize", "/v1/vms/team/web-1/resize")
    assert resize.body == {"resources": {"cpu": 4, "memory_mib": None}}


@pytest.mark.parametrize(
    ("field", "now", "said"),
    [
        ("group", "mem", '"mem"'),
        ("where", {"dc": "dc2"}, '{"dc": "dc2"}'),
        ("where", {"dc": "dc1", "rack": "r1"}, '{"dc": "dc1", "rack": "r1"}'),
        ("where", None, "not set"),
        ("image", "old", '"old"'),
        ("strategy", "best_fit", '"best_fit"'),
        ("rules", [{"type": "affinity", "set": "db", "level": "host"}], '[{"type": "affinity"'),
    ],
)
def test_what_a_vms_creation_decided_is_not_changed_by_a_file(field: str, now: Any, said: str) -> None:
    wanted = VM.replace("}}", "}, image: new, strategy: worst_fit, rules: []}")
    as_it_is = {**VM_NOW, "image": "new", "strategy": "worst_fit"}
    assert step(wanted, {**as_it_is, "resources": {"cpu": 4}}).outcome == "unchanged"
    with pytest.raises(Failed, match=rf"vm web-1, field {field}: it is {re.escape(said)}.*delete vm team/web-1"):
        step(wanted, {**as_it_is, field: now})


def test_every_field_that_a_document_may_have_is_compared() -> None:
    """What is in no document of now is different: nothing counts as equal unseen."""
    values = {
        "text": "x",
        "choice": "x",
        "whole": 1,
        "switch": True,
        "rules": [1],
        "object": {"a": 1},
        "one or more": "x",
    }
    values |= {"texts": {"a": "b"}, "amounts": {"cpu": 1}, "ratios": {"cpu": 2}}
    for kind in document.made_by_files(KINDS):
        for field, of in document.fields_of(kind).items():
            if field not in ("name", "tenant"):
                assert kind.creation is not None
                word = schema.shape(of, kind.creation.body).word
                assert not plan.same(kind, field, None, values[word]), (kind, field)


def test_rules_are_the_same_with_and_without_nulls() -> None:
    wanted = [{"type": "affinity", "set": "web", "level": "host"}]
    assert plan.same(KINDS["vm"], "rules", [{**wanted[0], "max_skew": None, "partition": None}], wanted)
