"""Strategies and filters are found through entry points, the built-in ones among them."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from domain.scheduling import filters, registry, strategies


def test_the_built_in_strategies_register_as_plug_ins_do() -> None:
    assert registry.STRATEGIES["best_fit"] is strategies.best_fit
    assert {"best_fit", "worst_fit", "first_fit", "balanced", "least_fragmentation"} <= registry.STRATEGIES.keys()


def test_built_in_filters_run_first_in_their_order_then_plug_ins_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(*, group: str) -> list[EntryPoint]:
        found: list[tuple[str, Any]] = [("zoning", "json:dumps"), ("licences", "json:loads")]
        found += [(name, f"domain.scheduling.filters:{name}") for name in ("rules", "labels", "place")]
        return [EntryPoint(name, value, group) for name, value in found]

    monkeypatch.setattr(registry, "entry_points", points)
    names = [condition.__name__ for condition in registry.filters()]
    assert names == ["place", "labels", "rules", "loads", "dumps"]
    assert registry.filters()[0] is filters.place
