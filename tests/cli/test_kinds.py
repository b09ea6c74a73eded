"""The words for kinds, and the names and paths of resources."""

import click
import pytest

from cli import kinds


@pytest.mark.parametrize(
    ("word", "kind"),
    [("vm", "vm"), ("vms", "vm"), ("VMs", "vm"), ("q", "quota"), ("ops", "operation"), ("racks", "rack")],
)
def test_a_kind_is_found_by_singular_plural_and_short(word: str, kind: str) -> None:
    assert kinds.find(word).name == kind


def test_a_wrong_kind_is_answered_with_what_was_meant() -> None:
    with pytest.raises(click.UsageError, match="Did you mean 'hosts'"):
        kinds.find("hoss")


def test_a_kind_that_does_not_go_with_the_verb_says_which_do() -> None:
    with pytest.raises(click.UsageError, match=r"racks do not go with this verb.*Kinds: vms"):
        kinds.find("rack", among=(kinds.VM,))


def test_paths_follow_the_names() -> None:
    assert kinds.path(kinds.VM, "acme/web-1") == "/v1/vms/acme/web-1"
    assert kinds.path(kinds.QUOTA, "std/acme") == "/v1/groups/std/quotas/acme"
    assert kinds.path(kinds.HOST, "a?b") == "/v1/hosts/a%3Fb"


@pytest.mark.parametrize("name", ["web-1", "acme/", "/web-1", "acme/web/1"])
def test_a_vm_is_named_by_its_tenant_and_itself(name: str) -> None:
    with pytest.raises(click.UsageError, match="write it as TENANT/VM"):
        kinds.path(kinds.VM, name)


def test_a_resource_is_named_as_it_would_be_found_again() -> None:
    assert kinds.full_name(kinds.VM, {"tenant": "acme", "name": "web-1"}) == "acme/web-1"
    assert kinds.full_name(kinds.QUOTA, {"group": "std", "tenant": "acme"}) == "std/acme"
    assert kinds.full_name(kinds.OPERATION, {"id": "0192"}) == "0192"
