"""Commands and reports over NATS: what is asked arrives as it was meant, and every question gets an answer."""

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from api.awaited import ClientGone, while_awaited
from commands.catalogue import COMMANDS
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Envelope, Item
from domain.errors import Unavailable
from domain.tenant import KIND as TENANT
from domain.vm import KIND as VM
from messaging.commands import serve_commands
from messaging.connect import settled
from messaging.gateway import NatsGateway
from messaging.past import (
    UNDER_WAY_MAX,
    WAITING_MAX,
    OfList,
    OfResource,
    OfVerification,
    Question,
    RemotePast,
    serve_past,
)
from messaging.reports import serve_reports
from messaging.wire import decode_envelope, encode_envelope, from_wire
from projections.listing import ListQuery, Portion
from tests.conftest import Database
from tests.messaging.stage import ADMIN, NatsProcess, a_site, a_vm, an_engine, send, until

COMMANDS_SENT: list[tuple[str, dict[str, Any]]] = [
    ("tenant.create", {"name": "acme", "labels": {"tier": "1"}, "display_name": "頂點"}),
    ("tenant.update", {"tenant": "acme", "display_name": None, "labels": {"tier": None}}),
    ("quota.set", {"group": "std", "tenant": "acme", "limits": {"cpu": 0}, "force": True}),
    ("token.create", {"name": "ci", "role": "operator", "expires_at": "2030-01-01T00:00:00Z"}),
    (
        "vm.provision",
        {
            "tenant": "acme",
            "name": "web-1",
            "group": ["a", "b"],
            "resources": {"cpu": 4, "gpu": 0},
            "where": {"labels": {"disk": "ssd"}},
            "rules": [{"type": "spread", "set": "web", "level": "rack", "max_skew": 1}],
        },
    ),
    ("host.register", {"name": "h1", "group": "std", "capacity": {"cpu": 64}, "bmc": {"address": "10.0.0.1"}}),
]


class Silent:
    """An engine that never answers."""

    is_leading = True

    def __init__(self) -> None:
        self.had: list[Envelope] = []

    async def submit(self, envelope: Envelope) -> list[Answer]:
        self.had.append(envelope)
        await asyncio.Event().wait()
        return []


class Prompt:
    """An engine that answers at once."""

    is_leading = True

    async def submit(self, envelope: Envelope) -> list[Answer]:
        return [Answer(item.id, 200, 1) for item in envelope.items]


class Full:
    """An engine that takes nothing."""

    is_leading = True

    async def submit(self, envelope: Envelope) -> list[Answer]:
        raise Unavailable(None)


def an_envelope(kind: str = "tenant.create", *, expires_in_s: float = 30.0, **body: Any) -> Envelope:
    id = ids.uuid7()
    body = body or {"name": "acme"}
    item = Item(id, COMMANDS[kind].model_validate(body), body, "k-1", "f00", if_match=7, create_only=True)
    return Envelope(ADMIN, (item,), time.time() + expires_in_s)


async def report(client: Client, controller: str, body: Any) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    reply = await client.request(f"berth.reports.{controller}", data, timeout=10)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    return answer


def started(operation: str | None, **more: Any) -> dict[str, Any]:
    return {"operation": operation, "step": "vm.create", "attempt": 1, "outcome": "started", **more}


@pytest.mark.parametrize(("kind", "body"), COMMANDS_SENT, ids=[kind for kind, _ in COMMANDS_SENT])
def test_a_command_crosses_the_wire_as_it_was_meant(kind: str, body: dict[str, Any]) -> None:
    sent = an_envelope(kind, **body)
    arrived = from_wire(decode_envelope(encode_envelope(sent)))
    assert msgspec.structs.replace(arrived, actor=sent.actor) == sent
    # In a merge patch, what was not named means something else than null.
    assert arrived.items[0].command.model_fields_set == sent.items[0].command.model_fields_set


def test_of_the_actor_nothing_crosses_the_wire_but_the_tokens_name_and_the_address() -> None:
    """What else is claimed there is not believed: role and tenant are what the engine's fleet says."""
    claimed = Actor("berth", "engine", None, "10.0.0.9", origin="engine")
    envelope = msgspec.structs.replace(an_envelope(), actor=claimed)
    assert from_wire(decode_envelope(encode_envelope(envelope))).actor == Actor(
        "berth", "", None, "10.0.0.9", origin="token"
    )


async def test_an_engine_far_away_answers_as_one_nearby(database: Database, nats_process: NatsProcess) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("api") as here,
    ):
        await serve_commands(there, "main", engine)
        gateway = NatsGateway(here, "main")
        await a_site(gateway)
        vms = await asyncio.gather(*(a_vm(gateway, f"vm-{n}") for n in range(50)))
        assert len({vm.position for vm in vms}) == 50
        refused = await send(gateway, "vm.provision", tenant="acme", name="web", group="nope", resources={"cpu": 1})
        assert refused.problem is not None
        assert (refused.status, refused.problem["code"]) == (404, "not_found")
        assert vms[0].resource is not None
        uids = {vm.resource["uid"] for vm in vms if vm.resource}
        assert uids == {vm.uid for vm in engine.fleet.each(VM)}


async def test_an_engine_that_is_restarted_meanwhile_is_waited_for(nats_process: NatsProcess) -> None:
    async with nats_process.user("engine") as there, nats_process.user("api") as here:
        asking = asyncio.create_task(NatsGateway(here, "main").submit(an_envelope()))
        await asyncio.sleep(0.3)
        await serve_commands(there, "main", Prompt())
        assert [answer.status for answer in await asking] == [200]


async def test_of_two_engines_the_one_that_leads_answers(nats_process: NatsProcess) -> None:
    leader, standby = Prompt(), Silent()
    standby.is_leading = False
    async with (
        nats_process.user("engine") as one,
        nats_process.user("engine") as other,
        nats_process.user("api") as api,
    ):
        await serve_commands(one, "main", standby)
        await serve_commands(other, "main", leader)
        for _ in range(10):
            assert len(await NatsGateway(api, "main").submit(an_envelope())) == 1
        standby.is_leading, leader.is_leading = False, False
        asking = asyncio.create_task(NatsGateway(api, "main").submit(an_envelope()))
        await asyncio.sleep(0.3)
        leader.is_leading = True
        assert [answer.status for answer in await asking] == [200]


async def test_what_is_sent_again_is_decided_once(database: Database, nats_process: NatsProcess) -> None:
    sent_again = an_envelope()
    async with an_engine(database.service) as engine, nats_process.user("engine") as there:
        await serve_commands(there, "main", engine)
        async with nats_process.user("api") as api:
            sent = [encode_envelope(sent_again, resent=n > 0) for n in range(8)]
            replies = await asyncio.gather(*(api.request("berth.commands.main", data, timeout=10) for data in sent))
            assert len({reply.data for reply in replies}) == 1
    async with an_engine(database.service) as next_leader:  # it never saw the first
        (answer,) = await next_leader.submit(msgspec.structs.replace(sent_again, resent=True))
        assert (answer.replayed, answer.command) == (True, sent_again.items[0].id)


async def test_a_command_that_cost_two_leaders_their_place_is_not_handed_to_a_third(nats_process: NatsProcess) -> None:
    """Each is silent over it until the next leads; the one that hears of it third has not had it."""
    engines = [Silent() for _ in range(3)]
    for engine in engines:
        engine.is_leading = False
    async with AsyncExitStack() as stack:
        for engine in engines:
            await serve_commands(await stack.enter_async_context(nats_process.user("engine")), "main", engine)
        api = await stack.enter_async_context(nats_process.user("api"))
        envelope = an_envelope()
        engines[0].is_leading = True
        asking = asyncio.create_task(NatsGateway(api, "main").submit(envelope))
        for before, after in pairwise(engines):
            await until(lambda before=before: before.had)
            before.is_leading, after.is_leading = False, True
        with pytest.raises(Unavailable) as refusal:
            await asking
        assert refusal.value.command == envelope.items[0].id
        assert [len(engine.had) for engine in engines] == [1, 1, 0]


async def test_without_an_engine_a_command_is_unavailable_and_named(
    nats_process: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.gateway.NO_ENGINE_PATIENCE_S", 0.2)
    async with nats_process.user("api") as client:
        envelope = an_envelope()
        with pytest.raises(Unavailable) as refusal:
            await NatsGateway(client, "main").submit(envelope)
        assert refusal.value.command == envelope.items[0].id


async def test_an_engine_that_is_silent_is_not_waited_for_for_ever(
    nats_process: NatsProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.gateway.ANSWER_GRACE_S", 0.2)
    async with nats_process.user("engine") as there, nats_process.user("api") as here:
        await serve_commands(there, "main", Silent())
        envelope = an_envelope(expires_in_s=0.0)
        with pytest.raises(Unavailable) as refusal:
            await NatsGateway(here, "main").submit(envelope)
        assert refusal.value.command == envelope.items[0].id


async def test_what_an_engine_does_not_understand_is_unavailable(nats_process: NatsProcess) -> None:
    async with nats_process.user("engine") as there, nats_process.user("api") as here:
        await serve_commands(there, "main", Silent())
        for data in (b"{", b"{}", b"\xff", encode_envelope(an_envelope()).replace(b"tenant.create", b"tenant.invent")):
            reply = await here.request("berth.commands.main", data, timeout=10)
            assert msgspec.json.decode(reply.data)["unavailable"] is True


async def test_a_report_is_answered_with_its_operation(database: Database, nats_process: NatsProcess) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("controller-vm") as controller,
    ):
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        await serve_reports(there, engine)
        first = await report(controller, "vm", started(vm.operation))
        assert set(first) == {"command", "position", "resource", "operation", "replayed"}
        assert first["resource"]["steps"][0]["state"] == "started"
        await report(controller, "vm", {**started(vm.operation), "outcome": "succeeded"})
        again = await report(controller, "vm", started(vm.operation))
        assert (again["replayed"], again["position"]) == (True, first["position"])
        # Read anew: it is over, so there is nothing to do.
        assert all(step["state"] != "started" for step in (again["resource"] or {"steps": ()})["steps"])


async def test_a_report_on_work_of_others_is_forbidden_and_recorded(
    database: Database, nats_process: NatsProcess
) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("controller-ipam") as controller,
    ):
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        await serve_reports(there, engine)
        problem = await report(controller, "ipam", started(vm.operation))
        assert (problem["code"], problem["status"]) == ("forbidden", 403)
        assert problem["instance"] == f"/v1/commands/{problem['command']}"


async def test_progress_on_work_of_others_is_forbidden_and_tells_nothing_of_it(
    database: Database, nats_process: NatsProcess
) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("controller-ipam") as controller,
    ):
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        await serve_reports(there, engine)
        position = engine.fleet.position
        problem = await report(controller, "ipam", {**started(vm.operation), "outcome": "progress", "percent": 50})
        assert (problem["code"], problem["status"]) == ("forbidden", 403)
        assert "resource" not in problem
        assert engine.fleet.position == position


async def test_a_revoked_token_is_refused_whichever_process_sends_it(
    database: Database, nats_process: NatsProcess
) -> None:
    otto = Actor("otto", "operator")
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("api") as here,
    ):
        await serve_commands(there, "main", engine)
        elsewhere = NatsGateway(here, "main")
        await send(engine, "token.create", name="otto", role="operator")
        assert (await send(elsewhere, "tenant.create", actor=otto, name="before")).status == 201
        await send(engine, "token.revoke", token="otto")
        refused = await send(elsewhere, "tenant.create", actor=otto, name="after")
        claimed = await send(elsewhere, "tenant.create", actor=Actor("berth", "engine", origin="engine"), name="after")
        assert [refused.status, claimed.status] == [401, 401]
        assert engine.fleet.get(TENANT, "after") is None


async def test_a_key_of_another_report_is_a_mismatch(database: Database, nats_process: NatsProcess) -> None:
    async with (
        an_engine(database.service) as engine,
        nats_process.user("engine") as there,
        nats_process.user("controller-vm") as controller,
    ):
        await a_site(engine)
        vm = await a_vm(engine, "web-1")
        await serve_reports(there, engine)
        first = await report(controller, "vm", started(vm.operation, key="k-1"))
        again = await report(controller, "vm", started(vm.operation, key="k-1"))
        assert (again["replayed"], again["position"]) == (True, first["position"])
        other = await report(controller, "vm", {**started(vm.operation, key="k-1"), "outcome": "failed"})
        assert other["code"] == "idempotency_mismatch"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        pytest.param(b"{", "malformed", "", id="no JSON"),
        pytest.param(b'{"step": "\xff"}', "malformed", "", id="no UTF-8"),
        pytest.param([], "malformed", "", id="no object"),
        pytest.param({}, "validation", "/operation", id="nothing"),
        pytest.param(started(ids.uuid7(), more=1), "validation", "/more", id="unknown field"),
        pytest.param({**started(ids.uuid7()), "attempt": "1"}, "validation", "/attempt", id="coercion"),
        pytest.param(started(ids.uuid7(), key="k" * 65), "validation", "/key", id="long key"),
        pytest.param(started(ids.uuid7(), key=7), "validation", "/key", id="key of another type"),
        pytest.param(started(ids.uuid7(), outputs={"a": "x" * 200_000}), "too_large", None, id="large"),
    ],
)
async def test_a_report_that_cannot_be_meant_is_refused(
    nats_process: NatsProcess, body: Any, code: str, field: str | None
) -> None:
    async with nats_process.user("engine") as there, nats_process.user("controller-vm") as controller:
        await serve_reports(there, Silent())
        problem = await report(controller, "vm", body)
        assert problem["code"] == code
        if field is not None:
            assert problem["errors"][0]["field"] == field


async def test_a_report_that_nobody_takes_now_names_the_command(nats_process: NatsProcess) -> None:
    async with nats_process.user("engine") as there, nats_process.user("controller-vm") as controller:
        await serve_reports(there, Full())
        problem = await report(controller, "vm", started(ids.uuid7()))
        assert (problem["code"], problem["status"]) == ("unavailable", 503)
        assert problem["command"]


async def test_the_past_is_asked_and_answers(nats_process: NatsProcess) -> None:
    asked: list[ListQuery] = []

    async def handler(question: Question) -> Any:
        if isinstance(question, OfVerification):
            raise Unavailable(None)
        if isinstance(question, OfList):
            asked.append(question.query)
            return Portion([(None, "acme/web-1", msgspec.Raw(b'{"name":"web-1"}'))], True, 3)
        return {"resource": {"asked": question}, "position": 7}

    async with nats_process.user("past") as there, nats_process.user("api") as here:
        past = RemotePast(here, "main")
        with pytest.raises(Unavailable):
            await past.verify()
        await serve_past(there, "main", handler, lambda id: None)
        found = await past.resource("vm/acme/web-1", as_of=7)
        assert found is not None
        assert found["asked"].pop("ends_at") > time.time()
        assert found["asked"].pop("id")
        assert found == {"asked": {"do": "resource", "stream": "vm/acme/web-1", "as_of": 7}}
        query = ListQuery(kind="vm", filters={"state": ["active"], "over": True}, after=(None, "acme/web-1"), q="部門")
        portion = await past.list_(query, as_of=7)
        assert [bytes(document) for _, _, document in portion.rows] == [b'{"name":"web-1"}']
        assert (portion.rows[0][:2], portion.more, portion.count) == ((None, "acme/web-1"), True, 3)
        assert asked == [query]
        with pytest.raises(Unavailable):
            await past.verify()


async def test_questions_of_those_who_went_away_keep_nobody_waiting(nats_process: NatsProcess) -> None:
    folded: list[int] = []

    async def handler(question: Question) -> dict[str, Any]:
        assert isinstance(question, OfResource)
        folded.append(question.as_of)
        await asyncio.sleep(0.01)
        return {"resource": None, "position": question.as_of}

    async with nats_process.user("past") as there, nats_process.user("api") as here:
        await serve_past(there, "main", handler, lambda id: None)
        past = RemotePast(here, "main")
        leaving = [asyncio.create_task(ask_and_leave(past, position)) for position in range(50)]
        await asyncio.sleep(0)
        honest = asyncio.create_task(past.resource("host/h1", as_of=77))
        assert await honest is None
        assert folded.index(77) <= UNDER_WAY_MAX
        assert all(isinstance(left, ClientGone) for left in await asyncio.gather(*leaving, return_exceptions=True))


async def test_a_verification_that_nobody_awaits_is_given_up(nats_process: NatsProcess) -> None:
    given_up: list[str] = []
    asked: list[str] = []

    async def handler(question: Question) -> dict[str, Any]:
        asked.append(question.id)
        while isinstance(question, OfVerification) and question.id not in given_up:
            await asyncio.sleep(0.01)
        return {"resource": None, "position": 1}

    async with nats_process.user("past") as there, nats_process.user("api") as here:
        await serve_past(there, "main", handler, given_up.append)
        past = RemotePast(here, "main")
        leaving = [asyncio.create_task(past.verify()) for _ in range(30)]
        async with asyncio.timeout(10):
            while not asked:
                await asyncio.sleep(0.01)
        for task in leaving:
            task.cancel()
        async with asyncio.timeout(10):
            assert await past.resource("host/h1", as_of=7) is None
        assert given_up == asked[:1]
        assert len(asked) == 2, "those that had not been sent never were"


async def test_more_who_ask_than_can_wait_are_told_so(nats_process: NatsProcess) -> None:
    async def handler(question: Question) -> dict[str, Any]:
        return {"resource": None, "position": 1}

    async with nats_process.user("past") as there, nats_process.user("api") as here:
        await serve_past(there, "main", handler, lambda id: None)
        past = RemotePast(here, "main")
        asked = [past.resource("host/h1", as_of=n) for n in range(WAITING_MAX + 5)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(one, Unavailable) for one in told].count(True) == 5


async def ask_and_leave(past: RemotePast, position: int) -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    await while_awaited(receive, past.resource("host/h1", as_of=position))


async def test_each_user_may_do_its_own_and_nothing_else(nats_process: NatsProcess) -> None:
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(f"{message.data.decode()} {message.subject}")

    async with nats_process.user("engine") as engine:
        await engine.subscribe("berth.reports.*", cb=hear)
        await engine.subscribe("berth.commands.>", cb=hear)
        await settled(engine)
        for name in ("controller-vm", "controller-ipam", "reader", "relay", "dispatcher", "past", "api"):
            async with nats_process.user(name) as user:
                for subject in ("berth.reports.vm", "berth.reports.ipam", "berth.commands.main"):
                    await user.publish(subject, name.encode())
                await settled(user)
        await settled(engine)
        assert heard == [
            "controller-vm berth.reports.vm",
            "controller-ipam berth.reports.ipam",
            "api berth.commands.main",
        ]
