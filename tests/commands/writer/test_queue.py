"""What waits before the engine: who is admitted, and whose turn it is."""

import asyncio
import time
from typing import Any

import pytest

from commands.catalogue import COMMANDS
from commands.costs import PLAIN_US
from commands.writer import ids
from commands.writer.batch import Ticket
from commands.writer.deciding import CommandContext
from commands.writer.gateway import Actor, Envelope, Item
from commands.writer.queue import (
    CLIENT_COMMANDS_MAX,
    CLIENT_COMMANDS_OF_ONE_MAX,
    REPORT_COMMANDS_OF_ONE_MAX,
    Queue,
)
from domain.errors import Unavailable
from tests.commands.writer.test_engine import ADMIN, VM_CONTROLLER, Client, a_stocked_engine, an_engine
from tests.conftest import Database
from tests.deciding import make_token


def an_envelope(actor: Actor, *, commands: int = 1) -> Envelope:
    items = []
    for _ in range(commands):
        id = ids.uuid7()
        body: dict[str, Any] = {"name": "a"}
        items.append(Item(id, COMMANDS["tenant.create"].model_validate(body), body, id))
    return Envelope(actor, tuple(items), time.time() + 30.0)


def put(queue: Queue, actor: Actor, *, tickets: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(tickets):
        envelope = an_envelope(actor)
        queue.admit(envelope)
        queue.put(
            [
                Ticket(
                    envelope.items,
                    CommandContext(actor, None, None, False),
                    envelope.expires_at,
                    0.0,
                    loop.create_future(),
                    {},
                )
            ]
        )


def turns(queue: Queue) -> str:
    """Who is taken, in order, until nobody waits."""
    found = ""
    while queue:
        ticket = queue.first()
        assert queue.take() is ticket
        found += "r" if ticket.context.actor.role == "controller" else "c"
    return found


def test_a_batch_of_a_thousand_is_admitted_by_an_empty_queue_and_nothing_beyond_the_bound() -> None:
    queue = Queue()
    for _ in range(CLIENT_COMMANDS_OF_ONE_MAX // 1000):
        queue.admit(an_envelope(ADMIN, commands=1000))
    assert queue.room_for(ADMIN) == 0
    with pytest.raises(Unavailable):
        queue.admit(an_envelope(ADMIN))
    others = [Actor(f"other-{n}", "operator") for n in range(CLIENT_COMMANDS_MAX // CLIENT_COMMANDS_OF_ONE_MAX)]
    for other in others[1:]:  # one's share leaves room for others, all together have a bound
        queue.admit(an_envelope(other, commands=CLIENT_COMMANDS_OF_ONE_MAX))
    with pytest.raises(Unavailable):
        queue.admit(an_envelope(others[0]))


def test_controllers_have_room_of_their_own() -> None:
    queue = Queue()
    queue.admit(an_envelope(ADMIN, commands=CLIENT_COMMANDS_OF_ONE_MAX))
    queue.admit(an_envelope(VM_CONTROLLER, commands=REPORT_COMMANDS_OF_ONE_MAX))
    with pytest.raises(Unavailable):
        queue.admit(an_envelope(VM_CONTROLLER))


def test_a_place_that_is_not_used_is_given_back() -> None:
    queue = Queue()
    envelope = an_envelope(ADMIN, commands=CLIENT_COMMANDS_OF_ONE_MAX)
    queue.admit(envelope)
    queue.let_go(envelope)
    queue.admit(envelope)


async def test_reports_go_first_but_every_fourth_turn_is_a_clients() -> None:
    queue = Queue()
    put(queue, ADMIN, tickets=3)
    put(queue, VM_CONTROLLER, tickets=7)
    assert turns(queue) == "rrrcrrrcrc"
    put(queue, ADMIN, tickets=2)
    assert turns(queue) == "cc"


async def test_what_is_put_back_is_taken_again_in_its_order() -> None:
    queue = Queue()
    put(queue, ADMIN, tickets=4)
    put(queue, VM_CONTROLLER, tickets=1)
    taken = [queue.take() for _ in range(3)]
    queue.put_back(taken)
    assert [queue.take() for _ in range(3)] == taken
    assert len(queue.take_all()) == 2
    assert not queue
    queue.admit(an_envelope(ADMIN, commands=CLIENT_COMMANDS_OF_ONE_MAX))


async def test_actors_take_turns_whoever_asked_for_how_much() -> None:
    queue = Queue()
    actors = [Actor(name, "operator") for name in ("ann", "bob", "cat")]
    for actor, tickets in zip(actors, (1_000, 2, 3), strict=True):
        put(queue, actor, tickets=tickets)
    taken = [queue.take() for _ in range(9)]
    assert [ticket.context.actor.name for ticket in taken] == ["ann", "bob", "cat"] * 2 + ["ann", "cat", "ann"]
    # What is put back goes before all others, in its order.
    queue.put_back(taken)
    assert [queue.take() for _ in range(9)] == taken
    assert queue.room_for(actors[1]) == CLIENT_COMMANDS_OF_ONE_MAX
    assert len(queue.take_all()) == 996
    assert queue.rooms.clients == CLIENT_COMMANDS_MAX


async def test_a_turn_is_time_whoever_asked_for_how_dear_units() -> None:
    queue = Queue()
    dear, cheap, late = (Actor(name, "operator") for name in ("dear", "cheap", "late"))
    put(queue, dear, tickets=3)
    put(queue, cheap, tickets=40)

    def next_one() -> str:
        ticket = queue.take()
        queue.charge(ticket, 2_000 if ticket.context.actor is dear else PLAIN_US)
        return ticket.context.actor.name

    assert [next_one() for _ in range(24)] == ["dear", *["cheap"] * 20, "dear", "cheap", "cheap"]
    put(queue, late, tickets=2)
    assert [next_one() for _ in range(3)].count("late") == 2, "who comes anew need not make good what others had"
    assert [next_one() for _ in range(18)] == [*["cheap"] * 17, "dear"]


async def test_nobody_saves_up_turns_by_having_been_alone_or_away() -> None:
    queue = Queue()
    early, other = Actor("early", "operator"), Actor("other", "operator")
    put(queue, early, tickets=100)
    for _ in range(90):
        queue.charge(queue.take(), 100_000)
    put(queue, other, tickets=100)
    taken = []
    while queue:
        ticket = queue.take()
        queue.charge(ticket, 100_000)
        taken.append(ticket.context.actor.name)
    assert sorted(taken[:20]) == ["early"] * 10 + ["other"] * 10


async def test_another_waits_for_one_long_unit_of_many(database: Database) -> None:
    """However many rounds of the loop its own append takes."""
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        other = Actor("other", "operator")
        await make_token(client.engine, other)
        vm = {"tenant": "payments", "group": "std", "resources": {"cpu": 9_999}}
        of_one = 200
        flooding = []
        for _ in range(6):
            items = tuple(client.item("vm.provision", {**vm, "name": f"v{n}"}) for n in range(of_one))
            envelope = Envelope(ADMIN, items, time.time() + 60.0, atomic=True, dry_run=True)
            flooding.append(asyncio.create_task(client.engine.submit(envelope)))
        while client.engine.room_for(ADMIN) == CLIENT_COMMANDS_OF_ONE_MAX:
            await asyncio.sleep(0)
        left = client.engine.room_for(ADMIN)
        answer = await client.send("tenant.update", actor=other, tenant="acme", description="in between")
        assert answer.problem is None
        assert client.engine.room_for(ADMIN) - left <= of_one
        for task in flooding:
            assert {one.status for one in await task} == {409}


async def test_who_has_least_room_is_known_without_asking_for_each() -> None:
    queue = Queue()
    flooding, calm = Actor("ann", "operator"), Actor("bob", "operator")
    queue.admit(an_envelope(flooding, commands=CLIENT_COMMANDS_OF_ONE_MAX - 7))
    queue.admit(an_envelope(calm))
    assert queue.rooms.crowded == {"ann": 7}
    assert (queue.room_for(Actor("", "operator")), queue.rooms.of(flooding)) == (7, 7)
    assert queue.rooms.of(calm) >= 1_000


async def test_a_thousand_dear_commands_of_one_keep_another_waiting_for_few_of_them(database: Database) -> None:
    """One request, not atomic, in a dry run."""
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        other = Actor("other", "operator")
        await make_token(client.engine, other)
        rules = [{"type": "anti_affinity", "set": f"s{n}", "level": "host"} for n in range(16)]
        dear = {"tenant": "payments", "group": "*", "resources": {"cpu": 9_999}, "rules": rules}
        vms = [{**dear, "name": f"v{n}", "where": {"labels": {f"label-{n}": "x"}}} for n in range(1_000)]
        items = tuple(client.item("vm.provision", vm) for vm in vms)
        flooding = asyncio.create_task(client.engine.submit(Envelope(ADMIN, items, time.time() + 60.0, dry_run=True)))
        while (room := client.engine.room_for(ADMIN)) <= 1_000 or room == 2_000:
            await asyncio.sleep(0)
        answer = await client.send("tenant.update", actor=other, tenant="acme", description="in between")
        assert answer.problem is None
        assert not flooding.done()
        assert client.engine.room_for(ADMIN) < 1_900, "most of them are still to be decided"
        assert [answer.status for answer in await flooding] == [409] * 1_000


async def test_a_flood_of_clients_is_refused_beyond_the_bound_and_delays_no_report(database: Database) -> None:
    async with an_engine(database.service) as client:
        await a_stocked_engine(client)
        vm = {"tenant": "payments", "group": "std", "resources": {"cpu": 1}}
        operation = (await client.send("vm.provision", name="first", **vm)).operation
        flood = [
            asyncio.create_task(client.send("tenant.update", tenant="acme", description=f"{n}"))
            for n in range(CLIENT_COMMANDS_OF_ONE_MAX + 500)
        ]
        await asyncio.sleep(0)
        assert client.engine.room_for(ADMIN) == 0
        assert client.engine.room_for(VM_CONTROLLER) > 0
        report = await client.report(operation, "started")
        assert report.problem is None
        assert sum(not task.done() for task in flood) > CLIENT_COMMANDS_OF_ONE_MAX // 4
        answers = await asyncio.gather(*flood, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Unavailable)]
        assert len(refused) == 500
        assert all(answer.command is None for answer in refused)
        assert client.engine.room_for(ADMIN) == CLIENT_COMMANDS_OF_ONE_MAX


async def test_a_look_up_that_fails_keeps_no_place(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_engine(database.service) as client:

        async def fails(envelope: Envelope, *, patience_s: float) -> None:
            raise Unavailable()

        with monkeypatch.context() as patched:
            patched.setattr(client.engine._look_ups, "known", fails)
            for _ in range(CLIENT_COMMANDS_OF_ONE_MAX + 1):
                with pytest.raises(Unavailable):
                    await client.send("tenant.create", name="a")
        assert (await Client(client.engine).send("tenant.create", name="a")).problem is None
