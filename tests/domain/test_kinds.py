"""What a kind declares, held against what its code does."""

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

import domain
from domain.fleet import WITH_WORDS
from domain.kind import Kind
from domain.kinds import BY_NAME, KINDS, in_order_of_references, owner_of, tenant_of
from domain.operation import Operation
from tests.eventlog.golden import sample

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def test_every_declared_kind_is_in_the_list() -> None:
    modules = [importlib.import_module(f"domain.{found.name}") for found in pkgutil.iter_modules(domain.__path__)]
    declared = {module.__name__ for module in modules if isinstance(getattr(module, "KIND", None), Kind)}
    listed = {kind.evolve.__module__ for kind in KINDS}
    assert declared == listed, f"domain/kinds.py lacks a line for {sorted(declared - listed)}"


@every_kind
def test_the_fields_that_refer_to_others_are_fields_of_the_state(kind: Kind[Any]) -> None:
    fields = set(kind.state.__struct_fields__)
    assert kind.refs.keys() <= fields
    assert set(kind.refs.values()) <= BY_NAME.keys()
    assert kind.target is None or kind.target in fields


@every_kind
def test_an_event_that_changes_a_reference_says_so(kind: Kind[Any]) -> None:
    """Which the fold relies on: an event that does not say so leaves the index of references alone."""
    names = sorted(kind.events)
    for first in names:
        try:
            state = kind.evolve(None, sample(first, kind.events[first], 1).event)
        except (AttributeError, TypeError):
            continue  # no event with which a life begins
        for topic in names:
            event = kind.events[topic]
            for number in (2, 3):
                after = kind.evolve(state, _other(sample(topic, event, number).event, number))
                changed = [field for field in kind.refs if getattr(after, field) != getattr(state, field)]
                begins_or_ends = event in kind.ends or topic == first
                has_new_words = "about" in kind.state.__struct_fields__ and after.about != state.about
                assert not has_new_words or event in WITH_WORDS, f"{topic} changes people's words"
                assert not changed or begins_or_ends or event in kind.rebinds, f"{topic} changes {changed}"


def _other(event: Any, number: int) -> Any:
    """The same event with other words in it."""
    return msgspec.structs.replace(
        event,
        **{
            field: f"{value}-{number}"
            for field in event.__struct_fields__
            if isinstance(value := getattr(event, field), str)
        },
    )


def test_kinds_are_made_after_those_that_they_refer_to() -> None:
    order = [kind.name for kind in in_order_of_references()]
    for kind in KINDS:
        for other in kind.refs.values():
            assert order.index(other) <= order.index(kind.name)


def test_whose_a_stream_is() -> None:
    assert tenant_of("vm/acme/web-1") == "acme"
    assert tenant_of("tenant/acme") == "acme"
    assert tenant_of("quota/std/acme") == "acme"
    assert tenant_of("host/h1") is None
    assert tenant_of("operation/0190") is None
    assert tenant_of("command/ann/k1") is None


def test_an_operation_belongs_to_the_tenant_of_its_target() -> None:
    operation = Operation("vm.provision", "vm/acme/web-1", "running", (), {}, {}, 0, None)
    assert owner_of(operation) == "acme"
