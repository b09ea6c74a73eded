"""Each place that a condition names is looked up; whoever is confined to a tenant learns nothing by asking."""

from typing import Any

import pytest

from commands.writer.gateway import Actor
from tests.deciding import Site, a_site, a_vm

CONFINED = Actor("pat", "operator", "payments")


def a_site_of_two_groups() -> Site:
    """Group std in rack r1 (north, dc1, hall-a), where payments has quota; far in rack r2 (south, dc2), where not."""
    site = a_site(hosts=1)
    site.given("rack.update", rack="r1", room="hall-a")
    site.given("rack.create", name="r2", region="south", dc="dc2", room="hall-b")
    site.given("group.create", name="far")
    site.given("host.register", name="far-1", group="far", rack="r2", capacity={"cpu": 8, "memory_mib": 16_384})
    return site


@pytest.mark.parametrize(
    ("level", "misspelt", "meant"),
    [
        ("host", "h00", "h0"),
        ("rack", "r11", "r1"),
        ("room", "hall_a", "hall-a"),
        ("dc", "dc11", "dc1"),
        ("region", "nroth", "north"),
    ],
)
def test_a_place_that_does_not_exist_is_not_found_with_what_was_meant(level: str, misspelt: str, meant: str) -> None:
    site = a_site_of_two_groups()
    name = misspelt.replace("_", "")
    problem = site.refused("not_found", "vm.provision", **a_vm(where={level: name}))
    assert (problem["kind"], problem["name"], problem["did_you_mean"]) == (level, name, meant)
    site.given("vm.provision", **a_vm(where={level: meant}))


def test_a_place_is_gone_with_its_last_rack() -> None:
    site = a_site_of_two_groups()
    site.refused("no_capacity", "vm.provision", **a_vm(where={"dc": "dc2"}))
    site.given("rack.update", rack="r2", dc="dc3")
    site.refused("not_found", "vm.provision", **a_vm(where={"dc": "dc2"}))
    site.refused("no_capacity", "vm.provision", **a_vm(where={"dc": "dc3"}))
    assert site.replayed().racks_by_place == site.fleet.racks_by_place


@pytest.mark.parametrize("place", [{"host": "far-1"}, {"rack": "r2"}, {"dc": "dc2"}, {"region": "south"}])
def test_what_other_groups_have_is_as_if_it_were_not_for_a_scoped_actor(place: dict[str, str]) -> None:
    site = a_site_of_two_groups()
    (level,) = place

    def told(**where: Any) -> dict[str, Any]:
        problem = site.refused("not_found", "vm.provision", actor=CONFINED, **a_vm(where=where))
        return {key: value for key, value in problem.items() if key not in ("name", "detail")}

    assert told(**place) == told(**{level: "nowhere"})
    own = {"host": "h0", "rack": "r1", "dc": "dc1", "region": "north"}[level]
    site.given("vm.provision", actor=CONFINED, **a_vm(where={level: own}))
