"""Who may write into a stream: its owner, and nobody else."""

import nats.errors
import pytest
from nats.js.api import StreamConfig

from messaging import relay, subjects
from messaging.connect import settled
from tests.messaging.stage import NatsProcess, messages


@pytest.mark.parametrize("name", ["reader", "controller-vm", "dispatcher", "api", "engine", "past"])
async def test_only_the_relay_publishes_events(nats_process: NatsProcess, name: str) -> None:
    async with nats_process.user("relay") as owner, nats_process.user(name) as other:
        await relay.make_streams(owner.jetstream())
        for subject in ("berth.events.host.cordoned", "berth.audit.accepted.vm.provision"):
            await other.publish(subject, b"{}")
        await settled(other)
        await owner.jetstream().publish("berth.events.host.cordoned", b"its own")
        assert [found.data for found in await messages(owner, subjects.EVENTS)] == [b"its own"]


async def test_a_reader_consumes_and_changes_nothing(nats_process: NatsProcess) -> None:
    async with nats_process.user("relay") as owner, nats_process.user("reader") as reader:
        await relay.make_streams(owner.jetstream())
        await owner.jetstream().publish("berth.events.host.cordoned", b"{}")
        subscription = await reader.jetstream().subscribe(
            "berth.events.>", stream=subjects.EVENTS, ordered_consumer=True
        )
        assert (await subscription.next_msg(timeout=10)).data == b"{}"
        theirs = reader.jetstream(timeout=0.3)
        for change in (theirs.delete_stream(subjects.EVENTS), theirs.purge_stream(subjects.EVENTS)):
            with pytest.raises(nats.errors.Error):
                await change
        with pytest.raises(nats.errors.Error):
            await theirs.add_stream(StreamConfig(name="THEIRS", subjects=["theirs.>"]))
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
