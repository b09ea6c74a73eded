"""What the proof finds: a record that was changed behind Berth's back, and a read model that shows otherwise."""

from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from domain.fleet import Fleet
from eventlog import checkpoints
from eventlog.checkpoints import snapshot
from eventlog.codec import Row, decode
from eventlog.read import LogReader
from projections import schema
from projections.definitions import SCHEMA
from projections.projector import catch_up
from tests.api.the_past import Past
from tests.checkpointing import MARK, marked
from tests.deciding import Site
from tests.deciding import a_site as small_site
from tests.projections.logs import a_site, live, write


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=3, commands=120)
    return site


def verified(conninfo: str, rows: list[Row]) -> dict[str, Any]:
    write(conninfo, rows)
    reader = LogReader(conninfo)
    try:
        return Past(conninfo, reader).verify()
    finally:
        reader.close()


def test_all_is_well_with_what_berth_wrote(database: Any, site: Site) -> None:
    write(database.service, site.rows[:200])
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    assert Past(database.service, reader).verify() == {
        "position": 200,
        "events": 200,
        "violations": [],
        "differences": [],
    }
    with psycopg.connect(database.service) as connection:
        connection.execute(schema.USE, (SCHEMA,))
        connection.execute("DELETE FROM audit WHERE position = (SELECT max(position) FROM audit)")
    (difference,) = Past(database.service, reader).verify()["differences"]
    assert "audit's entry" in difference
    reader.close()


def test_every_checkpoint_is_compared_with_the_replay_when_it_is_asked_in_full(database: Any, site: Site) -> None:
    write(database.service, site.rows)
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    ends = [row.position for row in site.rows if row.topic.startswith("command.")]
    sound, lacking, wrong, more, damaged = ends[40:90:10]
    fleet = Fleet()
    for row in site.rows:
        fleet.fold(decode(row))
        if row.position not in (sound, lacking, wrong, more, damaged):
            continue
        taken = marked(fleet) if row.position == more else snapshot(fleet)
        tenants = dict(taken.living["tenant"])
        if row.position == lacking:
            del tenants["tenant/acme"]
        if row.position == wrong:
            tenant = tenants["tenant/acme"]
            tenants["tenant/acme"] = replace(tenant, state=replace(tenant.state, state="suspended"))
        checkpoints.write(database.service, replace(taken, living={**taken.living, "tenant": tenants}))
    with psycopg.connect(database.owner) as owner:
        where = "position = %s AND part = 0 AND starts_with(definition, 'host/')"
        owner.execute(f"UPDATE berth.checkpoints SET data = 'x' WHERE {where}".encode(), (damaged,))
    past = Past(database.service, reader)
    found = past.verify(full=True)
    assert (found["position"], found["violations"]) == (site.fleet.position, [])
    assert found["differences"] == [
        f"the checkpoint at position {lacking} does not have tenant/acme.",
        f"the checkpoint at position {wrong} has tenant/acme otherwise than it was.",
        f"the checkpoint at position {more} has {MARK}, which was not there.",
        f"the checkpoint at position {damaged} is damaged: part 0 of hosts is not what was written.",
    ]
    assert past.verify()["differences"] == []
    reader.close()


def test_an_account_that_was_wrong_for_a_while_is_found(database: Any) -> None:
    site = small_site()
    vm = {"tenant": "acme", "vm": "web"}
    site.finish(site.given("vm.provision", tenant="acme", name="web", group="std", resources={"cpu": 2}))
    for n in range(20):
        site.given("vm.update", **vm, description=f"{n}")
    site.finish(site.given("vm.delete", **vm))
    rows = [
        replace(row, state=row.state.replace(b'"cpu":2', b'"cpu":3')) if row.stream == "host/h0" else row
        for row in site.rows
    ]
    assert rows != site.rows
    write(database.service, rows)
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    found = Past(database.service, reader).verify()
    reader.close()
    assert found["differences"] == []
    assert any("host" in violation and "h0" in violation for violation in found["violations"]), found


@pytest.mark.parametrize("state", [b"{}", b"nonsense", b'{"at":1,"actor":"a","command":"c","data":[]}'])
def test_an_event_that_says_nothing_is_named(database: Any, site: Site, state: bytes) -> None:
    rows = [*site.rows[:20], replace(site.rows[20], state=state), *site.rows[21:]]
    found = verified(database.service, rows)
    assert found["position"] == 20
    assert any("position 21 can't be understood" in violation for violation in found["violations"])


def test_an_event_that_follows_from_nothing_is_named(database: Any, site: Site) -> None:
    claimed = next(row for row in site.rows if row.topic == "host.claimed")
    rows = [row if row is not claimed else replace(row, stream="host/nobody") for row in site.rows]
    found = verified(database.service, rows)
    assert any(f"position {claimed.position} can't be understood" in violation for violation in found["violations"])
