"""An engine that stops, or steps down, leaves nobody waiting, and no timer either."""

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from commands.writer import engine as engine_module
from commands.writer.batch import Batch, Ticket
from commands.writer.deciding import CommandContext
from commands.writer.gateway import Answer, Envelope
from commands.writer.receipts import KnownRows
from commands.writer.waiting import Waiting
from domain.errors import Unavailable
from tests.commands.writer.test_engine import ADMIN, Client, _until_a_vm_stands, a_stocked_engine, a_vm, an_engine
from tests.commands.writer.test_standby import until
from tests.conftest import Database
from tests.proxy import Proxy

PATIENCE_S = 30.0


async def test_what_is_in_flight_when_the_engine_stops_is_unavailable_by_its_id(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        async with an_engine(make_conninfo(database.service, host="127.0.0.1", port=proxy.port)) as client:
            await a_stocked_engine(client)
            proxy.hold_answers()
            items = [client.item("vm.provision", a_vm(f"vm-{n}")) for n in range(3)]
            waiting = [asyncio.create_task(_submit(client, items[0]))]
            await _until_a_vm_stands(database)
            # The first is in flight, the others are decided upon it, or wait for that.
            waiting += [asyncio.create_task(_submit(client, item)) for item in items[1:]]
            await asyncio.sleep(0)
            stopping = asyncio.create_task(client.engine.stop())
            answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE_S / 2)
            proxy.release()
            await stopping
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert [answer.command for answer in answers if isinstance(answer, Unavailable)] == [item.id for item in items]


async def test_of_a_batch_that_the_engine_leaves_behind_nothing_is_said_but_once(database: Database) -> None:
    """Each item is given up; the caller hears of the first, and the event loop complains of none."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with an_engine(database.service) as client:
        items = tuple(client.item("tenant.create", {"name": f"t{n}"}) for n in range(300))
        batch = asyncio.create_task(client.engine.submit(Envelope(ADMIN, items, time.time() + PATIENCE_S)))
        await asyncio.sleep(0)
        await client.engine.stop()
        with pytest.raises(Unavailable):
            await batch
    del batch
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


async def test_who_waits_for_a_look_up_when_the_engine_stops_is_told_at_once(database: Database) -> None:
    server = conninfo_to_dict(database.service)
    with Proxy(str(server["host"]), int(str(server["port"]))) as proxy:
        async with an_engine(make_conninfo(database.service, host="127.0.0.1", port=proxy.port)) as client:
            proxy.hold_answers()
            asked = asyncio.create_task(client.send("tenant.create", key="k-1", name="acme"))
            await until(lambda: bool(client.engine._look_ups._asked) or not asked.done())
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(client.engine.stop())
            (answer,) = await asyncio.wait_for(asyncio.gather(asked, return_exceptions=True), PATIENCE_S / 2)
            assert isinstance(answer, Unavailable)
            proxy.release()
            await stopping


async def test_what_was_looked_up_while_the_engine_stepped_down_is_not_queued(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(database.service) as client:

        async def slow(envelope: Envelope, *, patience_s: float) -> KnownRows:
            client.engine._step_down()
            return {}

        monkeypatch.setattr(client.engine._look_ups, "known", slow)
        room = client.engine.room_for(ADMIN)
        item = client.item("tenant.create", {"name": "acme"})
        with pytest.raises(Unavailable) as refused:
            await asyncio.wait_for(_submit(client, item), PATIENCE_S / 2)
        assert refused.value.command == item.id
        assert client.engine.room_for(ADMIN) == room


async def _submit(client: Client, item: Any) -> list[Answer]:
    return await client.engine.submit(Envelope(ADMIN, (item,), time.time() + PATIENCE_S))


@pytest.mark.parametrize("ends", ["told", "given up", "cancelled"])
async def test_the_timer_of_who_waits_ends_with_its_answer(ends: str) -> None:
    loop = asyncio.get_running_loop()
    waiting = Waiting(lambda actor, on: True)
    item = Client.item("vm.provision", a_vm("web-1"))
    ticket = Ticket((item,), CommandContext(ADMIN, None, None, False), 0.0, 3600.0, loop.create_future(), {})
    future = weakref.ref(ticket.future)
    waiting.add(ticket, Answer(item.id, 202, 7, "vm/payments/web-1", operation="o-1"))
    match ends:
        case "told":
            waiting.tell({"o-1": Answer("", 200, 9, "vm/payments/web-1", operation="o-1")})
            assert (await ticket.future)[0].position == 9
        case "given up":
            waiting.give_up()
            assert (await ticket.future)[0].position == 7
        case _:
            ticket.future.cancel()
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(waiting) == 0
    del ticket
    gc.collect()
    assert future() is None, "a timer still holds what was answered"


async def test_an_outcome_that_another_has_not_settled_yet_is_asked_for_with_pauses(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another holds the lock and has written nothing yet: then both answers are no, and come at once."""
    async with an_engine(database.service) as client:
        engine, asked = client.engine, 0
        await a_stocked_engine(client)

        async def not_ours() -> bool:
            return False

        async def not_there(base: int, rows: object) -> bool:
            nonlocal asked
            asked += 1
            return False

        monkeypatch.setattr(engine_module, "RETRY_S", 3600.0)
        monkeypatch.setattr(engine._leader, "regain", not_ours)
        monkeypatch.setattr(engine._leader, "stands", not_there)
        finding = asyncio.create_task(engine._find_out(Batch(engine._decider)))
        await until(lambda: asked > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert asked == 1
        finding.cancel()
