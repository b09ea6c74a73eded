"""The words for kinds, and the names and paths of resources."""

import copy

import click
import pytest

from cli import kinds
from cli.errors import Failed
from cli.kinds import Kinds
from tests.cli.conftest import KINDS
from tests.cli.kinds_document import document

VM, QUOTA = KINDS["vm"], KINDS["quota"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [("vm", "vm"), ("vms", "vm"), ("VMs", "vm"), ("q", "quota"), ("ops", "operation"), ("racks", "rack")],
)
def test_a_kind_is_found_by_singular_plural_and_short(word: str, kind: str) -> None:
    assert KINDS.find(word).name == kind


def test_a_wrong_kind_is_answered_with_what_was_meant() -> None:
    with pytest.raises(click.UsageError, match="Did you mean 'hosts'"):
        KINDS.find("hoss")


def test_a_kind_that_does_not_go_with_the_verb_says_which_do() -> None:
    with pytest.raises(click.UsageError, match=r"racks do not go with 'stop'.*Kinds: vms"):
        KINDS.find("rack", among=(VM,), verb="stop")


def test_paths_follow_the_names() -> None:
    assert VM.path("acme/web-1") == "/v1/vms/acme/web-1"
    assert QUOTA.path("std/acme") == "/v1/groups/std/quotas/acme"
    assert KINDS["host"].path("a?b") == "/v1/hosts/a%3Fb"


@pytest.mark.parametrize("name", ["web-1", "acme/", "/web-1", "acme/web/1"])
def test_a_vm_is_named_by_its_tenant_and_itself(name: str) -> None:
    with pytest.raises(click.UsageError, match="write it as TENANT/VM"):
        VM.path(name)


def test_the_parts_of_what_has_no_name_of_its_own_may_stand_apart() -> None:
    assert QUOTA.full_names(["std", "acme", "mem/acme"]) == ["std/acme", "mem/acme"]
    with pytest.raises(click.UsageError, match="GROUP/TENANT or GROUP TENANT"):
        QUOTA.full_names(["std"])


def test_a_resource_is_named_as_it_would_be_found_again() -> None:
    assert VM.full_name({"tenant": "acme", "name": "web-1"}) == "acme/web-1"
    assert QUOTA.full_name({"group": "std", "tenant": "acme"}) == "std/acme"
    assert KINDS["operation"].full_name({"id": "0192"}) == "0192"
    assert KINDS["token"].full_name({"name": "t", "tenant": "acme"}) == "t"


def test_what_moves_a_resource_is_the_command_that_needs_nothing_but_the_field() -> None:
    moving = KINDS["host"].changing("group")
    assert moving is not None
    assert moving.name == "host.move"
    assert VM.changing("group") is None
    assert VM.changing("image") is None


def test_a_put_says_again_what_stands_there_and_is_not_given() -> None:
    command = QUOTA.command("set", "PUT")
    assert command is not None
    standing = {"limits": {}, "labels": {"a": "b"}, "description": None, "display_name": "x", "used": {}, "name": "n"}
    assert kinds.kept(command, standing, ("display_name",)) == {"limits": {}, "labels": {"a": "b"}}


@pytest.mark.parametrize("part", ["kinds", "strategies", "roles"])
def test_a_document_that_lacks_something_is_not_berths(part: str) -> None:
    with pytest.raises(Failed, match="not Berth's API"):
        Kinds({name: value for name, value in document().items() if name != part})


@pytest.mark.parametrize("strange", [None, 3, "x", {}, [3]])
def test_nor_is_one_with_something_strange_at_any_place(strange: object) -> None:
    """Whatever stands there: it is a Failed, and never another error."""
    whole = document()
    for name in whole["kinds"][0]:
        broken = copy.deepcopy(whole)
        broken["kinds"][0][name] = strange
        try:
            Kinds(broken)
        except Failed:
            continue
        assert strange in ([], {}, "x"), name
