"""A checkpoint gives the very fleet that the log folds to, or nothing; and none is needed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from psycopg.conninfo import conninfo_to_dict

from domain.entry import Entry
from domain.fleet import Fleet
from domain.kinds import KINDS
from domain.operation import KIND as OPERATION
from domain.operation import OperationStarted, OperationStepSucceeded, Step
from domain.recorded import LogOpened, Recorded
from domain.vm import Vm
from eventlog import checkpoints
from eventlog.checkpoints import Checkpointer, Snapshot, chosen, entries_of, fill, parts, snapshot
from eventlog.codec import Row, decode, encode
from tests.conftest import Database
from tests.deciding import Site
from tests.projections.logs import a_site, live, write

INDEXES = (
    "references",
    "members",
    "racks_by_place",
    "hosts_by_bmc",
    "by_external_id",
    "hosts_of_class",
    "outstanding",
    "deadlines",
)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PART_ENTRIES", 3)


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=11, commands=200)
    return site


def folded(rows: list[Row], fleet: Fleet | None = None) -> Fleet:
    fleet = fleet or Fleet()
    for row in rows:
        fleet.fold(decode(row))
    return fleet


OF_TODAY = checkpoints.definitions()


def through_bytes(fleet: Fleet) -> Fleet:
    """The fleet as a checkpoint of it gives it back."""
    taken = snapshot(fleet)
    living: dict[str, dict[str, Entry]] = {kind.name: {} for kind in KINDS}
    for kind in KINDS:
        for part in parts(kind.state, taken.living[kind.name]):
            living[kind.name].update(entries_of(kind.state, part))
    other = Fleet()
    fill(other, Snapshot(taken.log, taken.position, taken.at, living))
    return other


def contents(fleet: Fleet) -> dict[str, Any]:
    """All that a fleet holds, its indexes and the capacity index included."""
    found = {name: dict(getattr(fleet, name)) for name in INDEXES}
    capacity = fleet.capacity
    members = {group: names for group, names in capacity._members.items() if names}
    return found | {
        "log": (fleet.log, fleet.position, fleet.at),
        "living": list(fleet.entries()),  # in their order, too
        "capacity": (capacity.hosts, capacity.racks, capacity.groups, members),
    }


def decisions(fleet: Fleet, now: int) -> list[Any]:
    """What would be decided on requests of several shapes: where, and why there or why not."""
    site = Site()
    site.fleet = site.decider.fleet = fleet
    site.now = now
    told = []
    for n, (tenant, group) in enumerate((t, g) for t in ("payments", "other") for g in ("std", "mem", "*")):
        answer = site.when(
            "vm.provision",
            tenant=tenant,
            name=f"asked-{n}",
            group=group,
            resources={"cpu": 1 + n % 3, "memory_mib": n},
            rules=[{"type": "anti_affinity", "set": "web", "level": "host"}] if n % 2 else [],
        )
        events = [decode(row).event for row in site.rows if row.topic == "vm.scheduled"]
        told.append((answer.status, answer.problem, [(event.host, event.explanation) for event in events]))
    return told


def test_every_index_is_compared() -> None:
    """Whoever adds one to the fleet adds it here."""
    others = {"log", "position", "at", "living", "capacity", "_kept", "folding"}
    assert set(vars(Fleet())) - others == set(INDEXES)


def test_at_every_commands_end_it_is_the_fleet_that_was_folded(site: Site) -> None:
    assert {type(entry.state) for _, entry in site.fleet.entries()} == {kind.state for kind in KINDS}
    fleet, rows = Fleet(), site.rows
    for n, row in enumerate(rows):
        fleet.fold(decode(row))
        if row.topic.startswith("command."):
            restored = through_bytes(fleet)
            assert contents(restored) == contents(fleet)
            if n % 10 == 0:
                assert contents(folded(rows[n + 1 :], restored)) == contents(site.fleet)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.floats(0, 1))
def test_what_follows_it_folds_to_the_same_and_is_decided_the_same(seed: int, at: float) -> None:
    site = a_site(hosts=5)
    live(site, seed=seed, commands=60)
    ends = [n for n, row in enumerate(site.rows, start=1) if row.topic.startswith("command.")]
    end = ends[int(at * (len(ends) - 1))]
    fleet = through_bytes(folded(site.rows[:end]))
    folded(site.rows[end:], fleet)
    assert contents(fleet) == contents(site.fleet)
    assert decisions(fleet, site.now) == decisions(folded(site.rows), site.now)


def test_what_controllers_said_comes_back_as_it_was() -> None:
    """Outputs and inputs are whatever JSON they sent, and keep the order of their keys."""
    said: dict[str, Any] = {
        "z": 10**30,
        "a": -(2**63) - 1,
        "f": 1.0,
        "g": 0.1,
        "n": None,
        "租": ["\u0000", {"y": {}, "b": []}],
    }
    fleet = Fleet()
    steps = (Step("vm.create"), Step("vm.check"))
    events = [
        ("log", LogOpened("l")),
        ("operation/o", OperationStarted("vm.provision", "vm/a/b", steps, said, 1)),
        ("operation/o", OperationStepSucceeded("vm.create", 1, said)),
    ]
    for n, (stream, event) in enumerate(events, start=1):
        fleet.fold(decode(encode(Recorded(stream, n, n, n, "vm", "c", event))))
    assert contents(through_bytes(fleet)) == contents(fleet)
    assert repr(through_bytes(fleet).get(OPERATION, "o")) == repr(fleet.get(OPERATION, "o"))


def stored(database: Database, site: Site, *ends: int) -> list[int]:
    """The log, and checkpoints of it at the ends of these commands; answers their positions."""
    write(database.service, site.rows)
    positions = [position_of(site, end) for end in ends]
    for position in positions:
        checkpoints.write(database.service, snapshot(folded(site.rows[:position])))
    return positions


def position_of(site: Site, command: int) -> int:
    return [row.position for row in site.rows if row.topic.startswith("command.")][command]


def restored(database: Database, **how: Any) -> Fleet | None:
    fleet = Fleet()
    return fleet if checkpoints.restore(database.service, fleet, **how) else None


def positions(database: Database) -> list[int]:
    return [head.position for head in checkpoints.kept(database.service)]


def test_the_newest_at_or_before_a_position_is_restored(database: Database, site: Site) -> None:
    first, second = stored(database, site, 60, 120)
    for until, expected in ((None, second), (second, second), (second - 1, first), (first, first)):
        fleet = restored(database, until=until)
        assert fleet is not None
        assert contents(fleet) == contents(folded(site.rows[:expected]))
    assert restored(database, until=first - 1) is None


def test_one_kind_alone_can_be_restored(database: Database, site: Site) -> None:
    (position,) = stored(database, site, 120)
    fleet, whole = restored(database, only=OPERATION), folded(site.rows[:position])
    assert fleet is not None
    assert whole.streams(OPERATION)
    assert (fleet.position, fleet.outstanding) == (position, whole.outstanding)
    assert dict(fleet.entries()) == whole.living["operation"]


DAMAGES: dict[str, str] = {
    "a byte": "UPDATE berth.checkpoints SET data = set_byte(data, 30, get_byte(data, 30) # 1)"
    " WHERE position = %s AND part = 2",
    "a byte of the first part": "UPDATE berth.checkpoints SET data = set_byte(data, 30, get_byte(data, 30) # 1)"
    " WHERE position = %s AND part = 0",
    "a part": "DELETE FROM berth.checkpoints WHERE position = %s AND part = 2",
    "the last part": "DELETE FROM berth.checkpoints WHERE position = %s AND part = parts - 1",
    "two parts exchanged": "UPDATE berth.checkpoints c SET data = o.data, digest = o.digest FROM berth.checkpoints o"
    " WHERE c.position = %s AND o.position = c.position AND o.definition = c.definition"
    " AND c.part IN (1, 2) AND o.part = 3 - c.part",
    "another position": "UPDATE berth.checkpoints SET position = position + 1 WHERE position = %s",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over(database: Database, site: Site, damage: str) -> None:
    first, second = stored(database, site, 60, 120)
    with psycopg.connect(database.owner) as owner:
        assert owner.execute(DAMAGES[damage].encode(), (second,)).rowcount > 0
    fleet = restored(database)
    assert fleet is not None
    assert contents(fleet) == contents(folded(site.rows[:first]))


@pytest.mark.parametrize("column", ["definition", "log"])
def test_one_of_another_definition_or_log_is_ignored_and_goes_when_nobody_writes_it(
    database: Database, site: Site, column: str
) -> None:
    stored(database, site, 60)
    with psycopg.connect(database.owner) as owner:
        owner.execute(f"UPDATE berth.checkpoints SET {column} = 'another/' || {column}".encode())
    assert restored(database) is None

    def others() -> int:
        with psycopg.connect(database.owner) as owner:
            found = owner.execute(f"SELECT count(*) FROM berth.checkpoints WHERE {column} LIKE 'another/%'".encode())
            return int(found.fetchall()[0][0])

    ours = snapshot(folded(site.rows[: position_of(site, 120)]))
    checkpoints.write(database.service, ours)
    assert others() > 0
    with psycopg.connect(database.owner) as owner:
        owner.execute("UPDATE berth.checkpoints SET made_at = now() - interval '2 days'")
    checkpoints.write(database.service, ours)
    assert others() == 0
    assert positions(database) == [ours.position]


def with_another_definition_of(kind: str) -> Any:
    """As a later version would be, in which that kind is folded otherwise."""
    return mock.patch.object(checkpoints, "definitions", return_value=OF_TODAY | {kind: f"{kind}/changed"})


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_a_kind_whose_definition_changed_is_folded_from_its_own_events(
    database: Database, site: Site, kind: str
) -> None:
    (position,) = stored(database, site, 120)
    with with_another_definition_of(kind):
        fleet = restored(database)
        assert fleet is not None
        assert contents(fleet) == contents(folded(site.rows[:position]))


def test_one_that_has_all_kinds_goes_before_newer_ones_that_lack_some(database: Database, site: Site) -> None:
    (first,) = stored(database, site, 60)
    with with_another_definition_of("host"):
        checkpoints.write(database.service, snapshot(folded(site.rows[: position_of(site, 120)])))
    assert [head.is_whole for head in checkpoints.kept(database.service)] == [True, False]
    fleet = restored(database)
    assert fleet is not None
    assert fleet.position == first


def test_the_first_to_fold_a_changed_kind_leaves_a_whole_one(database: Database, site: Site) -> None:
    stored(database, site, 60, 120)
    with with_another_definition_of("vm"):
        fleet = restored(database)
        assert fleet is not None
        checkpointer = Checkpointer(database.service, events_between=1)
        checkpointer.note(fleet)
        checkpointer.settle()
        assert [head.is_whole for head in checkpoints.kept(database.service)] == [False, True]


def test_one_of_a_log_that_went_another_way_is_ignored_and_replaced(database: Database, site: Site) -> None:
    """A log restored from a backup has the same id, and other events from some position on."""
    end = position_of(site, 120)
    write(database.service, [replace(row, state=row.state.replace(b'"at":17', b'"at":18')) for row in site.rows])
    checkpoints.write(database.service, snapshot(folded(site.rows[:end])))
    assert restored(database) is None
    assert positions(database) == []


def test_a_log_shorter_than_the_checkpoint_has_none(database: Database, site: Site) -> None:
    end = position_of(site, 120)
    write(database.service, site.rows[: end - 5])
    checkpoints.write(database.service, snapshot(folded(site.rows[:end])))
    assert restored(database) is None


def test_an_interrupted_write_leaves_nothing(database: Database, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = stored(database, site, 60)
    whole = checkpoints.parts

    def cut(state: Any, living: Mapping[str, Entry]) -> Iterator[bytes]:
        for n, part in enumerate(whole(state, living)):
            if state is Vm and n == 3:
                with psycopg.connect(database.owner, autocommit=True) as owner:
                    owner.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                        " WHERE application_name = 'checkpoints' AND datname = current_database()"
                    )
            yield part

    monkeypatch.setattr(checkpoints, "parts", cut)
    with pytest.raises(psycopg.OperationalError):
        checkpoints.write(database.service, snapshot(folded(site.rows)))
    with psycopg.connect(database.owner) as owner:
        assert owner.execute("SELECT DISTINCT position FROM berth.checkpoints").fetchall() == [(first,)]


def test_one_is_written_when_as_many_events_have_passed_as_there_are_members(database: Database, site: Site) -> None:
    write(database.service, site.rows)
    fleet, due, last = Fleet(), [], 0
    checkpointer = Checkpointer(database.service, events_between=40)
    for row in site.rows:
        fleet.fold(decode(row))
        if row.topic.startswith("command."):
            if fleet.position - last >= max(40, fleet.size()):
                due.append(last := fleet.position)
            checkpointer.note(fleet)
            checkpointer.settle()
    assert len(due) > 5
    assert positions(database) == sorted(chosen(due))
    again = Checkpointer(database.service, events_between=40)
    again.note(fleet)  # another process goes on with what stands
    again.settle()
    assert positions(database) == sorted(chosen(due))


def test_whoever_folds_goes_on_while_one_is_written(
    database: Database, site: Site, eventually: Callable[..., Any]
) -> None:
    write(database.service, site.rows)
    end = position_of(site, 100)
    fleet = folded(site.rows[:end])
    checkpointer = Checkpointer(database.service, events_between=1)
    with psycopg.connect(database.owner) as owner:
        owner.execute("LOCK TABLE berth.checkpoints IN EXCLUSIVE MODE")  # it may be read, not written
        checkpointer.note(fleet)
        folded(site.rows[end:], fleet)
        checkpointer.note(fleet)
    checkpointer.settle()
    found = restored(database)
    assert found is not None
    assert contents(found) == contents(folded(site.rows[:end]))


def test_gaps_grow_with_age_and_their_number_is_bounded() -> None:
    kept: set[int] = set()
    for n in range(1, 500):
        kept = chosen([*kept, n * 200_000])
    ends = sorted(kept)
    assert len(ends) == checkpoints.KEPT_MAX
    assert ends[-2:] == [498 * 200_000, 499 * 200_000]
    gaps = [after - before for before, after in zip([0, *ends], ends, strict=False)]
    ages = [ends[-1] - before for before in [0, *ends[:-1]]]
    # The past of any age is some part of that age away, and the last tenth of history is dense.
    assert max(gap / age for gap, age in zip(gaps[:-2], ages[:-2], strict=True)) < 0.85
    assert sum(1 for end in ends if end > 0.9 * ends[-1]) >= 4


@pytest.mark.parametrize("loss", ["DROP TABLE berth.checkpoints", "REVOKE ALL ON berth.checkpoints FROM PUBLIC, {}"])
def test_without_its_table_all_goes_on(database: Database, site: Site, loss: str) -> None:
    stored(database, site, 60)
    with psycopg.connect(database.owner) as owner:
        owner.execute(loss.format(conninfo_to_dict(database.service)["user"]).encode())
    assert restored(database) is None
    checkpointer = Checkpointer(database.service, events_between=1)
    checkpointer.note(site.fleet)
    checkpointer.settle()
    assert positions(database) == []


def test_it_is_needed_by_nobody(database: Database, site: Site) -> None:
    assert restored(database) is None
    write(database.service, site.rows)
    assert restored(database) is None
    assert positions(database) == []
