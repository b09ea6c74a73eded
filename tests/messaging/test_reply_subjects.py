"""Whoever answers, the server too, sends the answer where the asker says: nobody may gain anything by that.

Every user asks all that it may, with every subject that it may not publish to as the reply subject.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from messaging import relay, subjects
from messaging.connect import settled
from messaging.dispatch import consumer_of
from tests.messaging.stage import NatsProcess
from tests.messaging.test_permissions import OWNERS, USERS, covers, example
from workers.settings import inbox_of

CONSUMERS = {subjects.EVENTS: ("theirs",), subjects.AUDIT: ("theirs",), subjects.WORK: ("vm", "ipam")}
OF_STREAMS = (
    "CREATE", "UPDATE", "DELETE", "PURGE", "INFO", "SNAPSHOT", "RESTORE", "MSG.DELETE", "MSG.GET", "PEER.REMOVE",
    "LEADER.STEPDOWN",
)  # fmt: skip
OF_CONSUMERS = ("CREATE", "DURABLE.CREATE", "DELETE", "INFO", "PAUSE", "RESET", "UNPIN", "LEADER.STEPDOWN", "MSG.NEXT")
TARGETS = (
    *(f"$JS.API.STREAM.{do}.{stream}" for stream in OWNERS for do in OF_STREAMS),
    *(
        f"$JS.API.CONSUMER.{do}.{stream}.{name}"
        for stream, names in CONSUMERS.items()
        for name in names
        for do in OF_CONSUMERS
    ),
    "$JS.API.STREAM.CREATE.THEIRS", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE",
    *(f"$JS.API.ACCOUNT.{do}.{account}" for do in ("PURGE", "STREAM.MOVE") for account in ("BERTH", "EVENTS")),
    "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.CONFIG", "$SYS.REQ.ACCOUNT.BERTH.CONNZ",
    "berth.commands.main", "berth.past.main", "berth.reports.vm", "berth.reports.ipam", "berth.work.vm.forged",
    "berth.work.>", "berth.events.host.forged", "berth.audit.accepted.forged",
    *(f"{inbox_of(name)}.known" for name in USERS),
)  # fmt: skip
# The API says who the actor of a command is, so a report through it is nothing that it could not have anyway; engine
# and past ask for nothing, so nobody waits at their inboxes. All that readers get comes from the relay's account.
BESIDE = {"api": ("berth.reports.*", "_INBOX_engine.>", "_INBOX_past.>"), "relay": ("_INBOX_reader.>",)}
ANSWER_S = 2.0
NEXT = (b'{"batch":1,"no_wait":true}', b'{"batch":1,"expires":50000000}', b"")


def may_send(name: str, subject: str) -> bool:
    return any(covers(own, subject) for own in (*USERS[name].publish, *BESIDE.get(name, ())))


@asynccontextmanager
async def a_full_house(
    nats_process: NatsProcess, *, but: str
) -> AsyncIterator[tuple[dict[str, Client], list[str], str]]:
    """Everybody is there, and hears what it may hear. Requests are answered, with nothing, as the server may do too.

    What was heard, and the acknowledgement of ipam's work, which ipam holds.
    """
    heard: list[str] = []
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(nats_process.user(name)) for name in USERS}
        work, events = clients["dispatcher"].jetstream(), clients["relay"].jetstream()
        await relay.make_streams(events)
        for subject in ("berth.events.host.cordoned", "berth.events.command.accepted.host.cordon"):
            await events.publish(subject, b"{}")
        await work.add_stream(name=subjects.WORK, subjects=[subjects.WORK_SUBJECTS], retention="workqueue")
        for controller in CONSUMERS[subjects.WORK]:
            await work.add_consumer(subjects.WORK, consumer_of(controller))
            await work.publish(f"berth.work.{controller}.create", b"{}")
        reading = clients["reader"].jetstream()
        for stream in (subjects.EVENTS, subjects.AUDIT):
            await reading.pull_subscribe("", durable="theirs", stream=stream)
        (held,) = await (await clients["controller-ipam"].jetstream().pull_subscribe_bind("ipam", subjects.WORK)).fetch(
            1
        )
        while (await events.stream_info(subjects.AUDIT)).state.messages == 0:  # it is copied there by and by
            await asyncio.sleep(0.02)
        for name, client in clients.items():

            async def hear(message: Msg, name: str = name) -> None:
                heard.append(message.subject)
                if message.reply and USERS[name].answers:
                    await message.respond(b"")

            if name != but:
                for subject in (*USERS[name].subscribe, f"{inbox_of(name)}.known"):
                    await client.subscribe(subject, cb=hear)
                await settled(client)
        yield clients, heard, held.reply


def questions(name: str) -> list[tuple[str, bytes]]:
    """All that a user may ask, about what is there."""
    found = [(example(subject), b"") for subject in USERS[name].publish if not subject.startswith("$JS.ACK")]
    for stream, consumers in CONSUMERS.items():
        found += ((f"$JS.API.STREAM.INFO.{stream}", b""), (f"$JS.API.STREAM.MSG.GET.{stream}", b'{"seq":1}'))
        found += ((f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{one}", how) for one in consumers for how in NEXT)
        found += ((f"$JS.API.CONSUMER.INFO.{stream}.{one}", b"") for one in consumers)
    found += ((subject, b"") for subject in TARGETS if subject.startswith("berth.") and ">" not in subject)
    return [(subject, data) for subject, data in found if may_send(name, subject)]


async def holdings(clients: dict[str, Client], *, of: str) -> dict[str, Any]:
    """What the streams of all others are and hold, and their consumers."""
    found: dict[str, Any] = {}
    for stream, owner in OWNERS.items():
        if owner != of:
            jetstream: JetStreamContext = clients[owner].jetstream()
            info = await jetstream.stream_info(stream)
            consumers = await jetstream.consumers_info(stream)
            found[stream] = (info.config, info.created, info.state.messages, info.state.first_seq, info.state.last_seq)
            found[f"{stream}'s consumers"] = sorted((one.name, str(one.created), str(one.config)) for one in consumers)
    return found


@pytest.mark.parametrize("name", USERS)
async def test_no_answer_does_what_its_asker_may_not(nats_process: NatsProcess, name: str) -> None:
    async with a_full_house(nats_process, but=name) as (clients, heard, ack):
        before = await holdings(clients, of=name)
        targets = [target for target in (*TARGETS, ack) if not may_send(name, target)]
        asker = clients[name]
        for subject, data in questions(name):
            for target in targets:
                await asker.publish(subject, data, reply=target)
        await settled(asker)
        # The same once more, for itself: when these are answered, those before are.
        asked_last = (asker.request(subject, data, timeout=ANSWER_S) for subject, data in questions(name))
        await asyncio.gather(*asked_last, return_exceptions=True)
        for client in clients.values():
            await settled(client)
        assert await holdings(clients, of=name) == before
        assert [subject for subject in heard if not may_send(name, subject)] == []
