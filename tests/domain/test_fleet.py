"""The fold, what is found in a fleet, and that its indexes follow from what stands alone."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fleet import Fleet, UnknownEvent
from domain.group import KIND as GROUP
from domain.host import KIND as HOST
from domain.kinds import KINDS
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.rack import KIND as RACK
from domain.recorded import LeaderTookOver, Recorded
from domain.tenant import KIND as TENANT
from domain.token import KIND as TOKEN
from domain.transaction import Transaction
from domain.vm import KIND as VM
from eventlog.codec import decode
from tests.deciding import Site, a_vm
from tests.deciding import a_site as a_small_site
from tests.eventlog.test_checkpoints import contents
from tests.projections.logs import a_site, live


class Levitated(msgspec.Struct, frozen=True):
    """What no kind declares."""


def test_an_event_that_no_kind_declares_is_refused_and_changes_nothing() -> None:
    fleet = a_small_site().fleet
    before, entry = fleet.position, fleet.entry("host/h0")
    with pytest.raises(UnknownEvent, match=rf"position {before + 1} is a Levitated"):
        fleet.fold(Recorded("host/h0", before + 1, before + 1, fleet.at + 1, "ann", "c", Levitated()))
    assert (fleet.position, fleet.entry("host/h0")) == (before, entry)


def test_an_event_of_the_log_itself_is_about_no_resource() -> None:
    fleet = a_small_site().fleet
    before, at = fleet.position, fleet.at
    assert fleet.fold(Recorded("log", before + 1, before + 1, at + 1, "berth", "c", LeaderTookOver("l"))) is None
    assert (fleet.position, fleet.at) == (before + 1, at + 1)


def test_what_lives_is_found_by_its_kind_and_name() -> None:
    site = a_small_site()
    site.given("vm.provision", **a_vm("web-1"))
    vm, quota = site.fleet.get(VM, "payments", "web-1"), site.fleet.get(QUOTA, "std", "acme")
    assert vm is not None
    assert (vm.name, vm.state) == ("web-1", "scheduled")
    assert quota is not None
    assert quota.tenant == "acme"
    assert site.fleet.get(VM, "acme", "web-1") is None
    assert site.fleet.entry("vm/payments/web-1") is site.fleet.living["vm"]["vm/payments/web-1"]
    assert site.fleet.entry("command/ann/web-1") is None


def test_those_that_refer_to_another_are_found_by_it() -> None:
    site = a_small_site()
    host = site.given("vm.provision", **a_vm("b")).resource
    assert host is not None
    site.given("vm.provision", **a_vm("a"))
    fleet = site.fleet
    assert fleet.streams(HOST, rack="r1") == {"host/h0", "host/h1"}
    assert [vm.name for vm in fleet.each(VM, tenant="payments")] == ["a", "b"]
    assert [vm.name for vm in fleet.each(VM)] == ["b", "a"]
    assert list(fleet.each(VM, tenant="nobody")) == []
    assert fleet.referred(QUOTA, by="group").keys() == {"std"}
    assert fleet.granted("acme") == {"std"}
    assert {stream for _, stream in fleet.referring_to(GROUP, "std")} == {
        *("host/h0", "host/h1"),
        *("quota/std/acme", "quota/std/payments"),
    }
    assert list(fleet.referring_to(RACK, "r2")) == []


def test_a_revoked_token_refers_to_no_tenant_any_more() -> None:
    site = a_small_site()
    for name in ("one", "two"):
        site.given("token.create", name=name, role="viewer", tenant="acme")
    site.given("token.revoke", token="one")
    assert site.fleet.streams(TOKEN, tenant="acme") == {"token/one", "token/two"}
    assert {stream for kind, stream in site.fleet.referring_to(TENANT, "acme") if kind is TOKEN} == {"token/two"}


def test_what_has_ended_is_found_nowhere() -> None:
    site = a_small_site()
    answer = site.given("vm.provision", **a_vm("web-1"))
    site.finish(answer)
    site.finish(site.given("vm.delete", tenant="payments", vm="web-1"))
    assert site.fleet.get(VM, "payments", "web-1") is None
    assert not site.fleet.streams(OPERATION)
    assert not site.fleet.streams(VM, tenant="payments")
    assert not site.fleet.referred(VM, by="host")


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_fleet_that_was_restored_in_any_order_equals_the_one_that_lived(seed: int) -> None:
    site = a_site(hosts=5)
    live(site, seed=seed, commands=60)
    entries = list(site.fleet.entries())
    Random(seed).shuffle(entries)
    restored = Fleet()
    for stream, entry in entries:
        restored.put(stream, None, entry)
    restored.log, restored.position, restored.at = site.fleet.log, site.fleet.position, site.fleet.at
    assert _without_order(restored) == _without_order(site.fleet)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 4))
def test_what_is_taken_back_leaves_no_trace(seed: int, parts: int) -> None:
    """From any event of a log on, whole or mark by mark, as far as the commands' own ends or not."""
    site, chance = _lived(seed), Random(seed)
    events = [decode(row) for row in site.rows]
    fleet = Fleet()
    start = chance.randrange(1, len(events))
    for event in events[:start]:
        fleet.fold(event)
    before = _without_order(fleet)
    tx = Transaction(fleet)
    marks: list[tuple[Any, Any]] = []
    for n, event in enumerate(events[start:]):
        if n % (len(events) // parts + 1) == 0:
            marks.append((tx.mark(), _without_order(fleet)))
        tx.at = event.at
        tx.record(event.stream, event.event, version=event.version)
    assert _without_order(fleet) == _without_order(site.fleet)
    for mark, then in reversed(marks):
        tx.undo(mark)
        assert _without_order(fleet) == then
    assert _without_order(fleet) == before


def _lived(seed: int) -> Site:
    site = a_site(hosts=5)
    live(site, seed=seed, commands=60)
    return site


def _without_order(fleet: Fleet) -> dict[str, Any]:
    """All that a fleet holds, as it is now; in which order does not matter."""
    living = {kind.name: dict(fleet.living[kind.name]) for kind in KINDS}
    return {name: _copied(value) for name, value in (contents(fleet) | {"living": living}).items()}


def _copied(value: Any) -> Any:
    match value:
        case dict():
            return {key: _copied(inner) for key, inner in value.items()}
        case set():
            return set(value)
        case tuple():
            return tuple(map(_copied, value))
        case _:
            return value
