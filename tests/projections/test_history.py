"""A resource's history, from its own events alone."""

from itertools import pairwise

from projections.history import history
from projections.resources import own
from tests.projections.logs import a_site


def test_each_change_has_its_before_and_after() -> None:
    site = a_site()
    operation = site.given("vm.provision", tenant="acme", name="a", group="std", resources={"cpu": 1}).operation
    site.report(operation, "started")
    site.report(operation, "succeeded", outputs={"addresses": ["10.0.0.1"]})
    stream = "vm/acme/a"
    changes = history(row for row in site.rows if row.stream == stream)
    assert [change["topic"] for change in changes] == ["vm.scheduled", "vm.creating", "vm.activated"]
    assert changes[0]["before"] is None
    assert all(later["before"] == earlier["after"] for earlier, later in pairwise(changes))
    assert changes[-1]["after"] == own(stream, site.fleet.entry(stream))
    assert changes[-1]["after"]["addresses"] == ["10.0.0.1"]
    assert {change["actor"] for change in changes} == {"ann", "vm"}


def test_a_name_used_again_begins_anew_and_keeps_its_history() -> None:
    site = a_site()
    site.given("rack.create", name="z", region="tp", dc="tp1")
    site.given("rack.delete", rack="z")
    site.given("rack.create", name="z", region="hk", dc="hk1")
    changes = history(row for row in site.rows if row.stream == "rack/z")
    assert [change["topic"] for change in changes] == ["rack.created", "rack.deleted", "rack.created"]
    assert changes[1]["after"] is None
    assert changes[2]["before"] is None
    assert changes[2]["after"]["uid"] != changes[0]["after"]["uid"]
