"""What each user may do on NATS, and nothing else; from the users' own table, so that a new one is covered too."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from messaging import past, relay, reports, subjects
from messaging.connect import settled
from tests.messaging.stage import NatsProcess, messages
from workers import nats_config
from workers.settings import inbox_of

USERS = nats_config.users(("vm", "ipam"))
OWNERS = {subjects.EVENTS: "relay", subjects.AUDIT: "relay", subjects.WORK: "dispatcher"}

# As the contract says it, apart from the table that the server is told: who may publish, who may listen.
CONTRACT: dict[str, tuple[set[str], set[str]]] = {
    "berth.commands.main": ({"api"}, {"engine"}),
    "berth.past.main": ({"api"}, {"past"}),
    "berth.reports.vm": ({"controller-vm"}, {"engine", "api"}),
    "berth.reports.ipam": ({"controller-ipam"}, {"engine", "api"}),
    "berth.events.host.cordoned": ({"relay"}, set()),
    "berth.events.command.accepted.vm.provision": ({"relay"}, set()),
    "berth.audit.accepted.vm.provision": (set(), set()),
    "berth.work.vm.create": ({"dispatcher"}, set()),
    "berth.work.ipam.create": ({"dispatcher"}, set()),
    "$SYS.REQ.SERVER.PING": (set(), set()),
    "something.else": (set(), set()),
    **{
        f"$JS.API.STREAM.{change}.{stream}": ({owner}, set())
        for stream, owner in OWNERS.items()
        for change in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE")
    },
    "$JS.API.STREAM.CREATE.THEIRS": (set(), set()),
    **{
        f"$JS.API.CONSUMER.CREATE.{stream}.theirs": ({"relay", "reader"}, set())
        for stream in (subjects.EVENTS, subjects.AUDIT)
    },
    "$JS.API.CONSUMER.CREATE.BERTH_WORK.theirs": ({"dispatcher"}, set()),
    "$JS.API.CONSUMER.CREATE.BERTH_WORK.vm.berth.work.vm.>": ({"dispatcher"}, set()),
    "$JS.API.CONSUMER.DELETE.BERTH_WORK.vm": ({"dispatcher"}, set()),
    "$JS.API.CONSUMER.MSG.NEXT.BERTH_WORK.vm": ({"dispatcher", "controller-vm"}, set()),
    "$JS.API.CONSUMER.MSG.NEXT.BERTH_WORK.ipam": ({"dispatcher", "controller-ipam"}, set()),
    "$JS.API.STREAM.MSG.GET.BERTH_WORK": ({"dispatcher"}, set()),
    "$JS.API.STREAM.MSG.GET.BERTH_EVENTS": ({"relay", "reader"}, set()),
    "$JS.API.DIRECT.GET.BERTH_AUDIT": ({"relay", "reader"}, set()),
}  # fmt: skip
TOO_WIDE = (">", "berth.>", "berth.work.>", "berth.events.>", "$JS.>", "$SYS.>")


def example(pattern: str) -> str:
    return pattern.replace("*", "x").replace(">", "x.y")


def covers(pattern: str, subject: str) -> bool:
    """Whether a pattern with wildcards takes in a subject."""
    tokens, wanted = pattern.split("."), subject.split(".")
    if tokens[-1] == ">":
        tokens, wanted = tokens[:-1], wanted[: len(tokens) - 1] if len(wanted) >= len(tokens) else []
    return len(tokens) == len(wanted) and all(a in ("*", b) for a, b in zip(tokens, wanted, strict=True))


def of_others(name: str) -> set[str]:
    """An example of every subject that some other user may use and this one may not."""
    found = {example(pattern) for user in USERS.values() for pattern in (*user.publish, *user.subscribe)}
    return {subject for subject in found if not any(covers(own, subject) for own in USERS[name].publish)}


@asynccontextmanager
async def watched(nats_process: NatsProcess, name: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection, and what the server says against what it does."""
    told: list[str] = []

    async def note(error: Exception) -> None:
        told.append(str(error).lower())

    client = await nats.connect(**nats_process.options(name), error_cb=note)
    try:
        yield client, told
    finally:
        await client.close()


def refused(told: Iterable[str], what: str, subject: str) -> bool:
    return any(f'permissions violation for {what} to "{subject.lower()}"' in said for said in told)


@pytest.mark.parametrize("name", USERS)
async def test_a_user_publishes_what_is_its_own_and_nothing_else(nats_process: NatsProcess, name: str) -> None:
    async with watched(nats_process, name) as (client, told):
        others = of_others(name)
        for subject in (*CONTRACT, *others):
            await client.publish(subject)
        await settled(client)
        for subject, (publishers, _) in CONTRACT.items():
            assert refused(told, "publish", subject) is (name not in publishers), subject
        assert [subject for subject in others if not refused(told, "publish", subject)] == []


@pytest.mark.parametrize("name", USERS)
async def test_a_user_hears_what_is_its_own_and_nothing_else(nats_process: NatsProcess, name: str) -> None:
    inboxes = {other: f"{inbox_of(other)}.somebodys" for other in USERS}
    async with watched(nats_process, name) as (client, told):
        for subject in (*CONTRACT, *TOO_WIDE, *inboxes.values()):
            await client.subscribe(subject)
        await settled(client)
        for subject, (_, listeners) in CONTRACT.items():
            assert refused(told, "subscription", subject) is (name not in listeners), subject
        assert all(refused(told, "subscription", subject) for subject in TOO_WIDE)
        assert [other for other, inbox in inboxes.items() if not refused(told, "subscription", inbox)] == [name]


async def test_a_controllers_default_inbox_is_heard_by_no_other(nats_process: NatsProcess) -> None:
    async with (
        watched(nats_process, "controller-vm") as (one, told),
        watched(nats_process, "controller-ipam") as (other, _),
    ):
        heard = await other.subscribe("_INBOX.>")
        own = await one.subscribe("_INBOX.>")
        await settled(other)
        await one.request("$JS.API.INFO", timeout=5)
        await one.publish("$JS.API.INFO", reply="_INBOX.known")
        assert (await own.next_msg(timeout=5)).data
        await settled(other)
        assert heard.pending_msgs == 0
        assert told == []


def test_an_answer_may_take_as_long_as_anybody_waits_for_it() -> None:
    assert max(past.VERIFY_PATIENCE_S, past.FOLD_PATIENCE_S, reports.REPORT_PATIENCE_S) < nats_config.ANSWERS_S


async def test_nobody_unknown_gets_in(nats_process: NatsProcess) -> None:
    options = nats_process.options("reader")
    for wrong in ({}, {"user": "reader", "password": "guessed"}, {"user": "nobody", "password": "x"}):
        with pytest.raises(nats.errors.Error):
            await nats.connect(options["servers"], **wrong, allow_reconnect=False, connect_timeout=2)


# A delivery needs somebody who listens to its very subject: the relay listens to wildcards, as clients' requests do.
BESIDE_READERS = ("relay",)


@asynccontextmanager
async def everybody_listens(nats_process: NatsProcess) -> AsyncIterator[list[tuple[str, str, bytes]]]:
    """All of our processes, each at an example of every subject that it may hear; what they hear."""
    heard: list[tuple[str, str, bytes]] = []
    clients = []
    for name in USERS:
        if name == "reader":
            continue

        async def hear(message: Any, name: str = name) -> None:
            heard.append((name, message.subject, message.data))

        client = await nats.connect(**nats_process.options(name))
        clients.append(client)
        inboxes = (f"{inbox_of(name)}.*", *((f"{inbox_of(name)}.known",) if name not in BESIDE_READERS else ()))
        for subject in (*map(example, USERS[name].subscribe), *USERS[name].subscribe, *inboxes):
            await client.subscribe(subject, cb=hear)
        await settled(client)
    yield heard
    for client in clients:
        await settled(client)
        await client.close()


TARGETS = (
    *(example(pattern) for user in USERS.values() for pattern in user.subscribe),
    *(f"{inbox_of(name)}.known" for name in USERS if name != "reader"),
    "berth.events.host.forged", "berth.work.vm.forged", "$JS.API.STREAM.DELETE.BERTH_AUDIT",
)  # fmt: skip


async def test_what_a_reader_asks_for_is_sent_to_nobody_else(nats_process: NatsProcess) -> None:
    """The server sends answers and deliveries where the asker says, without a look at the asker's permissions."""
    async with nats_process.user("relay") as owner, nats_process.user("reader") as reader:
        await relay.make_streams(owner.jetstream())
        for subject in ("berth.events.host.cordoned", "berth.events.command.accepted.host.cordon"):
            await owner.jetstream().publish(subject, b"{}")
        async with everybody_listens(nats_process) as heard:
            for target in TARGETS:
                await reader.publish("$JS.API.DIRECT.GET.BERTH_EVENTS", b'{"seq":1}', reply=target)
                await reader.publish("$JS.API.STREAM.INFO.BERTH_EVENTS", reply=target)
                for stream in (subjects.EVENTS, subjects.AUDIT):
                    config = {"deliver_subject": target, "ack_policy": "none"}
                    asked = json.dumps({"stream_name": stream, "config": config}).encode()
                    await reader.request(f"$JS.API.CONSUMER.CREATE.{stream}", asked, timeout=5)
            # What the server sends by itself it has sent when it has delivered to us, who asked last.
            subscription = await reader.jetstream().subscribe("berth.audit.>", stream=subjects.AUDIT)
            assert (await subscription.next_msg(timeout=10)).data == b"{}"
        assert heard == []
        assert len(await messages(owner, subjects.EVENTS)) == 2
        assert len(await messages(owner, subjects.AUDIT)) == 1


async def test_a_reader_consumes_as_it_likes_and_changes_nothing(nats_process: NatsProcess) -> None:
    async with nats_process.user("relay") as owner:
        await relay.make_streams(owner.jetstream())
        await owner.jetstream().publish("berth.events.command.accepted.host.cordon", b"{}")
        options = nats_process.options("reader")
        del options["inbox_prefix"]  # a program from outside takes NATS' own default
        reader = await nats.connect(**options)
        theirs = reader.jetstream(timeout=10)
        for subject, stream in (("berth.events.>", subjects.EVENTS), ("berth.audit.>", subjects.AUDIT)):
            pushed = await theirs.subscribe(subject, stream=stream, ordered_consumer=True)
            assert (await pushed.next_msg(timeout=10)).data == b"{}"
            pulled = await theirs.pull_subscribe(subject, durable="theirs", stream=stream)
            (message,) = await pulled.fetch(1, timeout=10)
            await message.ack_sync()
            assert (await theirs.get_msg(stream, seq=1)).data == b"{}"
            assert (await theirs.stream_info(stream)).state.messages == 1
        theirs = reader.jetstream(timeout=0.3)
        for change in (theirs.delete_stream(subjects.EVENTS), theirs.purge_stream(subjects.EVENTS)):
            with pytest.raises(nats.errors.Error):
                await change
        with pytest.raises(nats.errors.Error):
            await theirs.add_stream(StreamConfig(name="THEIRS", subjects=["theirs.>"]))
        await reader.close()
        assert len(await messages(owner, subjects.EVENTS)) == 1


async def test_what_is_in_the_events_cannot_be_taken_out(nats_process: NatsProcess) -> None:
    async with nats_process.user("relay") as owner:
        await relay.make_streams(owner.jetstream())
        await owner.jetstream().publish("berth.events.host.cordoned", b"{}")
        with pytest.raises(nats.errors.Error):
            await owner.jetstream().delete_msg(subjects.EVENTS, 1)
        with pytest.raises(nats.errors.Error):
            await owner.jetstream().purge_stream(subjects.EVENTS)
        assert len(await messages(owner, subjects.EVENTS)) == 1


async def test_the_api_learns_how_far_the_events_are(nats_process: NatsProcess) -> None:
    async with nats_process.user("relay") as owner, nats_process.user("api") as api:
        await relay.make_streams(owner.jetstream())
        await owner.jetstream().publish("berth.events.host.cordoned", b"{}")
        assert (await api.jetstream(timeout=5).stream_info(subjects.EVENTS)).state.last_seq == 1
