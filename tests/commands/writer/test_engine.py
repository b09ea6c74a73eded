"""What the writer promises: durable, once, in order, never over, whatever becomes of its connection."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from commands.writer import ids
from commands.writer.engine import Engine, LogLost
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.invariants import violations
from domain.operation import KIND as OPERATION
from domain.quota import KIND as QUOTA
from domain.tenant import KIND as TENANT
from domain.vm import KIND as VM
from eventlog.codec import Row, decode
from eventlog.read import LogReader
from projections.resources import resource
from tests.conftest import Database
from tests.deciding import Site, make_token
from tests.proxy import Proxy

ADMIN = Actor("ann", "admin")
VM_CONTROLLER = Actor("vm", "controller", origin="controller")


class Client:
    """Hands commands to an engine as the API does."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def send(
        self,
        kind: str,
        *,
        actor: Actor = ADMIN,
        key: str | None = None,
        fingerprint: str = "",
        wait_s: float = 0.0,
        dry_run: bool = False,
        **body: Any,
    ) -> Answer:
        item = self.item(kind, body, key=key, fingerprint=fingerprint)
        envelope = Envelope(actor, (item,), time.time() + 30.0, dry_run=dry_run, wait_s=wait_s)
        return (await self.engine.submit(envelope))[0]

    async def send_all(self, bodies: list[tuple[str, dict[str, Any]]], *, atomic: bool) -> list[Answer]:
        items = tuple(self.item(kind, body) for kind, body in bodies)
        return await self.engine.submit(Envelope(ADMIN, items, time.time() + 30.0, atomic=atomic))

    async def report(self, operation: str | None, outcome: str, step: str = "vm.create") -> Answer:
        body = {"operation": operation, "step": step, "attempt": 1, "outcome": outcome}
        key = f"{operation}:{step}:1:{outcome}"
        return await self.send("operation.report", actor=VM_CONTROLLER, key=key, **body)

    @staticmethod
    def item(kind: str, body: dict[str, Any], *, key: str | None = None, fingerprint: str = "") -> Item:
        return Site.item(kind, body, key=key, fingerprint=fingerprint)


@asynccontextmanager
async def an_engine(conninfo: str, **more: Any) -> AsyncIterator[Client]:
    engine = Engine(conninfo, resource=resource, **more)
    await engine.start()
    await engine.ready()
    await make_token(engine, ADMIN)
    try:
        yield Client(engine)
    finally:
        await engine.stop()


async def a_stocked_engine(client: Client, *, hosts: int = 4, cpu: int = 16, quota: int = 1000) -> None:
    await make_token(client.engine, ADMIN)
    answers = [
        await client.send("tenant.create", name="acme"),
        await client.send("tenant.create", name="payments", parent="acme"),
        await client.send("group.create", name="std"),
        await client.send("quota.set", group="std", tenant="acme", limits={"cpu": quota}),
        await client.send("quota.set", group="std", tenant="payments", limits={"cpu": quota}),
    ]
    for n in range(hosts):
        answers.append(await client.send("host.register", name=f"h{n}", group="std", capacity={"cpu": cpu}))
    assert all(answer.problem is None for answer in answers)


def a_vm(name: str, *, cpu: int = 1) -> dict[str, Any]:
    return {"tenant": "payments", "name": name, "group": "std", "resources": {"cpu": cpu}}


def rows_of(database: Database) -> list[Row]:
    reader = LogReader(database.service)
    try:
        return reader.page(0, 100_000)
    finally:
        reader.close()


def folded(rows: list[Row]) -> Fleet:
    fleet = Fleet()
    for row in rows:
        fleet.fold(decode(row))
    return fleet


async def test_an_accepted_command_stands_in_the_log_at_its_position(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", **a_vm("web-1"))
    rows = rows_of(database)
    assert (answer.status, rows[-1].position, rows[-1].topic) == (202, answer.position, "command.accepted")
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    assert answer.resource == resource(folded(rows), "vm/payments/web-1")


async def test_a_new_engine_goes_on_where_the_old_one_ended_and_marks_it(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        first = await client.send("vm.provision", key="k-1", **a_vm("web-1"))
    async with an_engine(database.service) as client:
        again = await client.send("vm.provision", key="k-1", **a_vm("web-1"))
        assert (again.replayed, again.position, again.command) == (True, first.position, first.command)
        entries = dict(client.engine.fleet.entries())
    rows = rows_of(database)
    assert rows[-1].topic == "leader.took_over"
    assert dict(folded(rows).entries()) == entries


async def test_racing_for_the_last_of_a_quota_places_exactly_what_fits(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client, quota=20)
        answers = await asyncio.gather(*(client.send("vm.provision", **a_vm(f"vm-{n}")) for n in range(64)))
        outcomes = [answer.problem["code"] if answer.problem else "placed" for answer in answers]
        assert sorted(set(outcomes)) == ["placed", "quota_exceeded"]
        assert outcomes.count("placed") == 20
        assert violations(client.engine.fleet) == []


async def test_racing_for_the_last_of_a_host_places_exactly_what_fits(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client, hosts=1, cpu=10)
        answers = await asyncio.gather(*(client.send("vm.provision", **a_vm(f"vm-{n}")) for n in range(64)))
        outcomes = [answer.problem["code"] if answer.problem else "placed" for answer in answers]
        assert outcomes.count("placed") == 10
        assert outcomes.count("no_capacity") == 54


async def test_the_same_key_at_the_same_time_is_done_once(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answers = await asyncio.gather(*(client.send("vm.provision", key="k-1", **a_vm("web-1")) for _ in range(16)))
    assert len({(answer.command, answer.position) for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert sum(row.topic == "vm.scheduled" for row in rows_of(database)) == 1


async def test_a_key_that_is_the_id_of_another_command_at_the_same_time_is_that_commands(database: Database) -> None:
    """Whoever got a 503 sends again with the id that it names; the first may be in the same batch."""
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        first = client.item("vm.provision", a_vm("web-1"))
        again = client.item("vm.provision", a_vm("web-1"), key=first.id)
        envelopes = [Envelope(ADMIN, (item,), time.time() + 5.0) for item in (first, again)]
        ((one,), (other,)) = await asyncio.gather(*map(client.engine.submit, envelopes))
    assert (one.status, one.replayed) == (202, False)
    assert (other.command, other.position, other.replayed) == (first.id, one.position, True)


async def test_waiting_answers_when_the_operation_has_ended(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        waiting = asyncio.create_task(client.send("vm.provision", wait_s=10, **a_vm("web-1")))
        while not client.engine.fleet.outstanding:
            await asyncio.sleep(0)
        (operation,) = client.engine.fleet.outstanding
        await client.report(operation, "started")
        done = await client.report(operation, "succeeded")
        answer = await waiting
        assert (answer.status, answer.position) == (201, done.position)
        assert answer.resource["state"] == "active"


async def test_waiting_for_what_fails_answers_424_with_the_reason(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        waiting = asyncio.create_task(client.send("vm.provision", wait_s=10, key="k", **a_vm("web-1")))
        while not client.engine.fleet.outstanding:
            await asyncio.sleep(0)
        (operation,) = client.engine.fleet.outstanding
        await client.report(operation, "failed")
        await client.report(operation, "succeeded", "vm.delete")
        answer = await waiting
        assert (answer.status, answer.problem["code"]) == (424, "operation_failed")
        again = await client.send("vm.provision", wait_s=10, key="k", **a_vm("web-1"))
        assert (again.status, again.replayed) == (424, True)


async def test_a_repeat_tells_of_what_the_command_made_and_never_of_another_under_its_name(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)

        async def lived(key: str, *, fails: bool = False) -> Answer:
            first = await client.send("vm.provision", key=key, **a_vm("web-1"))
            await client.report(first.operation, "started")
            await client.report(first.operation, "failed" if fails else "succeeded")
            if fails:
                await client.report(first.operation, "started", "vm.delete")
                await client.report(first.operation, "succeeded", "vm.delete")
            return first

        async def delete(key: str) -> None:
            gone = await client.send("vm.delete", key=key, tenant="payments", vm="web-1")
            if gone.operation is not None:
                await client.report(gone.operation, "started", "vm.delete")
                await client.report(gone.operation, "succeeded", "vm.delete")

        async def again(key: str, *, wait_s: float = 0.0) -> Answer:
            return await client.send("vm.provision", key=key, wait_s=wait_s, **a_vm("web-1"))

        first = await lived("a")
        await delete("gone-a")
        told = await again("a")
        assert told.resource is not None
        assert (told.status, told.resource["uid"], told.resource["state"]) == (201, first.resource["uid"], "deleted")
        await lived("b", fails=True)
        for wait_s, status in ((0.0, 200), (10.0, 424)):
            told = await again("b", wait_s=wait_s)
            assert (told.status, told.replayed) == (status, True), "a creation that failed has made nothing"
        await delete("gone-b")
        third = await lived("c")
        for key, wait_s, status in (("a", 0.0, 201), ("a", 10.0, 201), ("b", 0.0, 200), ("b", 10.0, 424)):
            told = await again(key, wait_s=wait_s)
            assert (told.status, told.resource, told.version) == (status, None, 0), (key, wait_s)
            assert told.problem is None or told.problem["resource"] is None
        deletion = await client.send("vm.delete", key="gone-a", tenant="payments", vm="web-1")
        assert (deletion.status, deletion.replayed, deletion.resource) == (200, True, None)
        assert (await again("c")).resource["uid"] == third.resource["uid"]
        await delete("gone-c")  # now the name is nobody's, and the last who bore it is the third
        assert (await again("a")).resource is None
        assert (await again("c")).resource["uid"] == third.resource["uid"]


async def test_what_ends_while_it_is_asked_for_is_over_and_not_unknown(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", **a_vm("web-1"))
        assert answer.operation is not None
        await client.report(answer.operation, "started")
        done, late = await asyncio.gather(
            client.report(answer.operation, "succeeded"),
            client.send("operation.cancel", operation=answer.operation),
        )
    assert done.problem is None
    assert late.problem is not None and late.problem["code"] == "conflict"


async def test_patience_that_ends_first_answers_202(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", wait_s=0.05, **a_vm("web-1"))
        assert answer.status == 202


async def test_the_same_report_again_gets_the_first_answer_and_records_nothing(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", **a_vm("web-1"))
        first = await client.report(answer.operation, "started")
        position = client.engine.fleet.position
        again = await client.report(answer.operation, "started")
        assert (again.replayed, again.position) == (True, first.position)
        assert client.engine.fleet.position == position


async def test_a_repeated_start_of_cancelled_work_does_not_show_it_as_started(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        vm = await client.send("vm.provision", **a_vm("web-1"))
        first = await client.report(vm.operation, "started")
        await client.send("vm.delete", tenant="payments", vm="web-1")
        again = await client.report(vm.operation, "started")
        assert first.resource is not None
        assert again.resource is not None
        assert (again.replayed, again.resource["state"]) == (True, "cancelled")
        assert [step["state"] for step in first.resource["steps"]] == ["started"]
        assert [step["state"] for step in again.resource["steps"]] == ["cancelled"]


async def test_a_late_report_on_what_is_over_is_refused_and_recorded(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", **a_vm("web-1"))
        await client.report(answer.operation, "started")
        await client.report(answer.operation, "succeeded")
        late = await client.report(answer.operation, "failed")
        assert (late.status, late.problem["code"]) == (409, "conflict")
        unheard = await client.report(ids.uuid7(), "started")
        assert unheard.problem["code"] == "not_found"
    assert rows_of(database)[-2].topic == "command.rejected"


async def test_an_atomic_batch_is_all_or_nothing_and_one_unit(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client, hosts=1, cpu=2)
        good = [("vm.provision", a_vm(f"vm-{n}")) for n in range(2)]
        refused = await client.send_all([*good, ("vm.provision", a_vm("vm-2"))], atomic=True)
        assert [answer.problem["code"] for answer in refused] == ["aborted", "aborted", "no_capacity"]
        assert [answer.problem["index"] for answer in refused] == [2, 2, 2]
        assert violations(client.engine.fleet) == []
        assert not client.engine.fleet.streams(VM, tenant="payments")
        accepted = await client.send_all(good, atomic=True)
        assert all(answer.status == 202 for answer in accepted)
    rows = rows_of(database)
    assert len({decode(row).at for row in rows[-12:]}) == 1


async def test_a_bug_in_one_decision_is_recorded_and_the_others_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commands.racks import DeleteRack
    from commands.writer import deciding

    def broken(command: object, tx: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(deciding.HANDLERS, DeleteRack, broken)
    async with an_engine(database.service) as client:
        bad, good = await asyncio.gather(
            client.send("rack.delete", rack="r1"), client.send("tenant.create", name="acme")
        )
    assert (bad.status, bad.problem["code"]) == (500, "internal")
    assert good.status == 201
    assert "command.rejected" in [row.topic for row in rows_of(database)]


async def test_a_connection_cut_in_the_commit_answers_every_command_once_and_truly(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        through = make_conninfo(database.service, host="127.0.0.1", port=proxy.port)
        async with an_engine(through) as client:
            await a_stocked_engine(client)
            proxy.hold_answers()
            waiting = [asyncio.create_task(client.send("vm.provision", **a_vm(f"vm-{n}"))) for n in range(8)]
            await _until_a_vm_stands(database)
            assert not any(task.done() for task in waiting), "no answer before the commit is known"
            proxy.cut()
            proxy.release()
            answers = await asyncio.gather(*waiting)
            assert [answer.status for answer in answers] == [202] * 8
            after = await client.send("tenant.create", name="later")
            assert after.status == 201
    rows = rows_of(database)
    assert sum(row.topic == "vm.scheduled" for row in rows) == 8
    assert violations(folded(rows)) == []


async def test_no_answer_leaves_before_what_it_was_decided_upon_is_committed(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        async with an_engine(make_conninfo(database.service, host="127.0.0.1", port=proxy.port)) as client:
            await a_stocked_engine(client)
            proxy.hold_answers()
            item = client.item("vm.provision", a_vm("web-1"))
            first = asyncio.create_task(client.engine.submit(Envelope(ADMIN, (item,), time.time() + 30.0)))
            await _until_a_vm_stands(database)
            # Each would tell of what is not known to stand: a repeat, a dry run, a refusal.
            asked = [
                asyncio.create_task(client.send("vm.provision", key=item.key, **a_vm("web-1"))),
                asyncio.create_task(client.send("vm.delete", dry_run=True, tenant="payments", vm="web-1")),
                asyncio.create_task(client.send("vm.provision", **a_vm("web-1"))),
            ]
            done, _ = await asyncio.wait(asked, timeout=0.5)
            assert not done
            proxy.release()
            ((placed,), repeated, tried, refused) = await asyncio.gather(first, *asked)
    assert (placed.status, repeated.position, repeated.replayed) == (202, placed.position, True)
    assert tried.position == placed.position
    assert refused.position > placed.position


async def test_a_log_that_lost_what_was_committed_stops_the_engine_instead_of_going_on_without_it(
    database: Database,
) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        with psycopg.connect(database.owner, autocommit=True) as owner:  # as when an older backup is restored
            owner.execute("ALTER TABLE berth.events DISABLE TRIGGER ALL")
            owner.execute("DELETE FROM berth.events WHERE notification_id > 3")
        asked = asyncio.create_task(client.send("tenant.create", name="later"))
        async with asyncio.timeout(10):
            with pytest.raises(LogLost):
                await client.engine.ended()
            with pytest.raises(Unavailable):
                await asked


async def test_a_foreign_event_in_its_place_makes_the_writer_fold_it_and_decide_again(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        position = client.engine.fleet.position
        _append_foreign_takeover(database, position + 1)
        answers = await asyncio.gather(*(client.send("vm.provision", **a_vm(f"vm-{n}")) for n in range(8)))
        assert [answer.status for answer in answers] == [202] * 8
    rows = rows_of(database)
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    assert sum(row.topic == "vm.scheduled" for row in rows) == 8
    assert violations(folded(rows)) == []


async def test_a_batch_whose_commit_does_not_come_is_unavailable_in_time(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        async with an_engine(make_conninfo(database.service, host="127.0.0.1", port=proxy.port)) as client:
            await a_stocked_engine(client)
            proxy.hold_answers()
            flying = asyncio.create_task(client.send("vm.provision", **a_vm("web-0")))
            await _until_a_vm_stands(database)
            items = tuple(client.item("vm.provision", a_vm(f"web-{n}")) for n in range(1, 4))
            with pytest.raises(Unavailable) as late:
                await client.engine.submit(Envelope(ADMIN, items, time.time() + 0.2))
            assert late.value.command == items[0].id
            proxy.release()
            assert (await flying).status == 202
            assert (await client.send("tenant.create", name="later")).status == 201


async def test_a_request_that_expired_before_its_turn_is_dropped_undecided(database: Database) -> None:
    async with an_engine(database.service) as client:
        item = client.item("tenant.create", {"name": "acme"})
        with pytest.raises(Unavailable) as refused:
            await client.engine.submit(Envelope(ADMIN, (item,), time.time() - 0.5))
        assert refused.value.command == item.id
        assert client.engine.fleet.get(TENANT, "acme") is None


async def test_what_cannot_be_meant_so_is_not_remembered(database: Database) -> None:
    past: dict[str, Any] = {"name": "ci", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}
    async with an_engine(database.service) as client:
        end = client.engine.fleet.position
        refused = await client.send("token.create", key="k-1", fingerprint="a", **past)
        assert (refused.problem["code"], refused.position) == ("validation", 0)
        together = await client.send_all([("tenant.create", {"name": "acme"}), ("token.create", past)], atomic=True)
        assert [answer.problem["code"] for answer in together] == ["aborted", "validation"]
        assert client.engine.fleet.position == end
        mended = await client.send("token.create", key="k-1", fingerprint="b", name="ci", role="viewer")
        assert (mended.status, mended.replayed) == (201, False)


async def test_a_dry_run_is_not_remembered(database: Database) -> None:
    async with an_engine(database.service) as client:
        tried = await client.send("tenant.create", key="k-1", dry_run=True, name="acme")
        made = await client.send("tenant.create", key="k-1", name="acme")
        assert (tried.status, made.status, made.replayed) == (201, 201, False)


async def test_a_condition_on_the_version_of_what_is_not_there_fails(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        body = {"group": "std", "tenant": "acme", "limits": {"cpu": 1}}
        await client.send("quota.delete", group="std", tenant="acme")
        conditional = msgspec.structs.replace(client.item("quota.set", body), if_match=5)
        (answer,) = await client.engine.submit(Envelope(ADMIN, (conditional,), time.time() + 30.0))
        assert (answer.status, answer.problem["code"]) == (412, "version_mismatch")
        assert client.engine.fleet.get(QUOTA, "std", "acme") is None


async def test_a_longer_batch_under_a_used_key_does_nothing(database: Database) -> None:
    def batch(*names: str, key: str = "b-1") -> Envelope:
        items = tuple(
            client.item("tenant.create", {"name": name}, key=f"{key}.{n}", fingerprint="+".join(names))
            for n, name in enumerate(names)
        )
        return Envelope(ADMIN, items, time.time() + 30.0, batch=key)

    async with an_engine(database.service) as client:
        first = await client.engine.submit(batch("acme"))
        refused = await client.engine.submit(batch("acme", "more"))
        again = await client.engine.submit(batch("acme"))
        assert [answer.problem["code"] for answer in refused] == ["idempotency_mismatch"] * 2
        assert client.engine.fleet.get(TENANT, "more") is None
        two = await client.engine.submit(batch("one", "two", key="b-2"))
        assert [answer.on for answer in two] == ["tenant/one", "tenant/two"]
        assert (again[0].replayed, again[0].position) == (True, first[0].position)


async def test_a_repeated_deletion_shows_the_last_state_again(database: Database) -> None:
    async with an_engine(database.service) as client:
        await client.send("tenant.create", key="k-1", name="acme")
        first = await client.send("tenant.delete", key="k-2", tenant="acme")
        again = await client.send("tenant.delete", key="k-2", tenant="acme")
        made = await client.send("tenant.create", key="k-1", name="acme")
        assert first.resource is not None
        assert (again.resource, again.version) == (first.resource, first.version)
        assert made.resource == first.resource


async def test_a_refusal_that_is_too_large_is_recorded_without_its_request(database: Database) -> None:
    async with an_engine(database.service) as client:
        long = msgspec.structs.replace(
            client.item("tenant.delete", {"tenant": "acme"}), request={"text": "x" * 300_000}
        )
        (refused,) = await client.engine.submit(Envelope(ADMIN, (long,), time.time() + 30.0))
        assert (refused.problem["code"], refused.position) == ("not_found", client.engine.fleet.position)
        assert (await client.send("tenant.create", name="acme")).status == 201
    (recorded,) = (decode(row).event for row in rows_of(database) if row.topic == "command.rejected")
    assert (recorded.problem["code"], recorded.request) == ("not_found", {})


async def test_keys_that_cannot_be_looked_up_are_unavailable_in_time(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        async with an_engine(make_conninfo(database.service, host="127.0.0.1", port=proxy.port)) as client:
            await client.send("tenant.create", key="k-1", name="acme")
            proxy.refusing = True
            proxy.cut()
            items = [client.item("tenant.create", {"name": f"t{n}"}, key=f"k-t{n}") for n in range(2)]
            asked = [client.engine.submit(Envelope(ADMIN, (item,), time.time() + n)) for n, item in enumerate(items, 1)]
            refused = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in refused] == [Unavailable, Unavailable]
            proxy.refusing = False
            async with asyncio.timeout(40):
                # The first look-up still tries: whoever comes next is served as soon as the database is back.
                while True:
                    with suppress(Unavailable):
                        answer = await client.send("tenant.create", key="k-t0", name="t0")
                        break
            assert answer.status == 201


async def test_a_deadline_that_passes_is_noticed_by_the_engine_itself(database: Database) -> None:
    async with an_engine(database.service, step_timeout_s=0, expiry_grace_s=0.0) as client:
        await a_stocked_engine(client)
        answer = await client.send("vm.provision", **a_vm("web-1"))
        assert answer.operation is not None
        await client.report(answer.operation, "started")
        async with asyncio.timeout(10):
            # The creation's deadline starts the clean-up, the clean-up's makes it stuck; all is held throughout.
            while not client.engine.fleet.get(OPERATION, answer.operation).is_undoing:
                await asyncio.sleep(0.02)
            await client.report(answer.operation, "started", "vm.delete")
            while client.engine.fleet.get(OPERATION, answer.operation).state != "stuck":
                await asyncio.sleep(0.02)
        assert client.engine.fleet.get(QUOTA, "std", "payments").used == {"cpu": 1, "vms": 1}


async def test_who_waits_for_an_operation_that_is_stuck_is_told_of_its_end_by_a_late_report(database: Database) -> None:
    async with an_engine(database.service, step_timeout_s=0, expiry_grace_s=0.0) as client:
        await a_stocked_engine(client)
        created = await client.send("vm.provision", **a_vm("web-1"))
        await client.report(created.operation, "succeeded")
        vm = {"tenant": "payments", "vm": "web-1"}
        stop = await client.send("vm.stop", key="stop", **vm)
        await client.report(stop.operation, "started", "vm.stop")
        operation = stop.operation or ""
        async with asyncio.timeout(10):
            while client.engine.fleet.get(OPERATION, operation).state != "stuck":
                await asyncio.sleep(0.02)
        in_vain = await client.send("vm.stop", key="stop", wait_s=0.1, **vm)
        assert (in_vain.status, in_vain.problem) == (202, None), "stuck is no end"
        waiting = asyncio.create_task(client.send("vm.stop", key="stop", wait_s=30.0, **vm))
        late = await client.report(operation, "succeeded", "vm.stop")
        assert late.problem is None
        assert (await waiting).status == 200


async def _until_a_vm_stands(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.service, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while True:
                cursor = await connection.execute("SELECT count(*) FROM berth.events WHERE topic = 'vm.scheduled'")
                if (await cursor.fetchone())[0]:  # type: ignore[index]
                    return
                await asyncio.sleep(0.01)


def _append_foreign_takeover(database: Database, position: int) -> None:
    state = b'{"at":%d,"actor":"berth","command":"%s","data":{"leader":"foreign"}}'
    at = time.time_ns() // 1000
    with psycopg.connect(database.service, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO berth.events (notification_id, originator_id, originator_version, topic, state)"
            " VALUES (%s, 'log', %s, 'leader.took_over', %s)",
            (position, position, state % (at, ids.uuid7().encode())),
        )
