"""Commands over a Unix socket: each is decided once and answered, whichever engine leads and whatever is cut."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from commands.catalogue import COMMANDS
from commands.writer import ids
from commands.writer.gateway import Actor, Answer, Envelope, Item
from commands.writer.queue import Rooms
from domain.errors import Unavailable
from domain.vm import KIND as VM
from messaging.unix import UnixGateway, served
from tests.conftest import Database
from tests.messaging.stage import ADMIN, a_site, a_vm, an_engine, send, until


class Deciding:
    """An engine that notes what it had, and answers when it is let to."""

    def __init__(self, *, is_leading: bool = True, is_prompt: bool = True) -> None:
        self.is_leading = is_leading
        self.had: list[Envelope] = []
        self.room = 1_000
        self.may_answer = asyncio.Event()
        if is_prompt:
            self.may_answer.set()

    @property
    def rooms(self) -> Rooms:
        return Rooms(self.room, self.room)

    def room_for(self, actor: Actor) -> int:
        return self.room

    async def submit(self, envelope: Envelope) -> list[Answer]:
        self.had.append(envelope)
        await self.may_answer.wait()
        return [Answer(item.id, 200, len(self.had)) for item in envelope.items]


def an_envelope(items: int = 1, *, expires_in_s: float = 30.0) -> Envelope:
    body = {"name": "acme"}
    made = [Item(id := ids.uuid7(), COMMANDS["tenant.create"].model_validate(body), body, id) for _ in range(items)]
    return Envelope(ADMIN, tuple(made), time.time() + expires_in_s)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Longer than a socket's name may be."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    return directory / "engine.sock"


@asynccontextmanager
async def a_gateway(*paths: Path) -> AsyncIterator[UnixGateway]:
    async with UnixGateway(paths).connected() as gateway:
        yield gateway


async def test_an_engine_beside_the_api_answers_as_one_within(database: Database, path: Path) -> None:
    async with an_engine(database.service) as engine, served(path, engine), a_gateway(path) as gateway:
        await a_site(gateway)
        vms = await asyncio.gather(*(a_vm(gateway, f"vm-{n}") for n in range(50)))
        assert len({vm.position for vm in vms}) == 50
        refused = await send(gateway, "vm.provision", tenant="acme", name="web", group="nope", resources={"cpu": 1})
        assert refused.problem is not None
        assert (refused.status, refused.problem["code"]) == (404, "not_found")
        uids = {vm.resource["uid"] for vm in vms if vm.resource}
        assert uids == {vm.uid for vm in engine.fleet.each(VM)}


async def test_its_owner_alone_may_use_the_socket(path: Path) -> None:
    async with served(path, Deciding()):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_what_is_under_way_when_the_connection_is_cut_is_decided_once(path: Path) -> None:
    engine = Deciding(is_prompt=False)
    async with served(path, engine), a_gateway(path) as gateway:
        asking = asyncio.create_task(gateway.submit(an_envelope()))
        await until(lambda: engine.had)
        (link,) = gateway.links
        link.cut()
        await until(lambda: gateway.links and gateway.links[0] is not link and gateway.is_leading)
        engine.may_answer.set()
        assert [answer.status for answer in await asking] == [200]
        assert len(engine.had) == 1


async def test_what_an_engine_had_when_it_died_goes_to_the_next_as_sent_before(path: Path) -> None:
    dead, alive = Deciding(is_prompt=False), Deciding()
    async with a_gateway(path) as gateway:
        async with served(path, dead):
            asking = asyncio.create_task(gateway.submit(an_envelope()))
            await until(lambda: dead.had)
        async with served(path, alive):
            assert [answer.status for answer in await asking] == [200]
    assert (dead.had[0].resent, alive.had[0].resent) == (False, True)


async def test_of_two_engines_the_one_that_leads_answers(tmp_path: Path) -> None:
    one, other = Deciding(is_leading=False), Deciding()
    paths = tmp_path / "one.sock", tmp_path / "other.sock"
    async with served(paths[0], one), served(paths[1], other), a_gateway(*paths) as gateway:
        for _ in range(10):
            await gateway.submit(an_envelope())
        assert (len(one.had), len(other.had)) == (0, 10)
        other.is_leading, one.is_leading = False, True
        for _ in range(10):
            await gateway.submit(an_envelope())
        assert (len(one.had), len(other.had)) == (10, 10)


async def test_a_leader_that_was_paused_and_replaced_is_not_asked_any_more(tmp_path: Path) -> None:
    """It still says that it leads: whoever said so later does."""
    paused, next_leader = Deciding(is_prompt=False), Deciding(is_leading=False)
    paths = tmp_path / "one.sock", tmp_path / "other.sock"
    async with served(paths[0], paused), served(paths[1], next_leader), a_gateway(*paths) as gateway:
        asking = asyncio.create_task(gateway.submit(an_envelope()))
        await until(lambda: paused.had)
        next_leader.is_leading = True
        assert [answer.status for answer in await asking] == [200]
        await gateway.submit(an_envelope())
        assert (len(paused.had), len(next_leader.had)) == (1, 2)


async def test_a_command_that_cost_two_leaders_their_place_is_not_handed_to_a_third(tmp_path: Path) -> None:
    engines = [Deciding(is_leading=False, is_prompt=False) for _ in range(3)]
    paths = [tmp_path / f"{n}.sock" for n in range(3)]
    async with AsyncExitStack() as stack:
        for engine, at in zip(engines, paths, strict=True):
            await stack.enter_async_context(served(at, engine))
        gateway = await stack.enter_async_context(a_gateway(*paths))
        engines[0].is_leading = True
        envelope = an_envelope()
        asking = asyncio.create_task(gateway.submit(envelope))
        for before, after in pairwise(engines):
            await until(lambda before=before: before.had)
            before.is_leading, after.is_leading = False, True
        with pytest.raises(Unavailable) as refusal:
            await asking
        assert refusal.value.command == envelope.items[0].id
        assert [len(engine.had) for engine in engines] == [1, 1, 0]
        engines[2].may_answer.set()
        await gateway.submit(an_envelope())  # all else is served


async def test_without_an_engine_nothing_was_handed_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.unix.NO_LEADER_PATIENCE_S", 0.2)
    async with a_gateway(path) as gateway:
        with pytest.raises(Unavailable) as refusal:
            await gateway.submit(an_envelope())
        assert refusal.value.command is None


async def test_what_was_handed_to_an_engine_that_does_not_come_back_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.unix.NO_LEADER_PATIENCE_S", 0.2)
    engine = Deciding(is_prompt=False)
    async with a_gateway(path) as gateway:
        envelope = an_envelope()
        async with served(path, engine):
            asking = asyncio.create_task(gateway.submit(envelope))
            await until(lambda: engine.had)
        with pytest.raises(Unavailable) as refusal:
            await asking
        assert refusal.value.command == envelope.items[0].id


async def test_an_engine_that_is_silent_is_not_waited_for_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.unix.ANSWER_GRACE_S", 0.2)
    async with served(path, Deciding(is_prompt=False)), a_gateway(path) as gateway:
        envelope = an_envelope(expires_in_s=0.0)
        with pytest.raises(Unavailable) as refusal:
            await gateway.submit(envelope)
        assert refusal.value.command == envelope.items[0].id


async def test_the_api_knows_how_much_room_the_engine_has(path: Path) -> None:
    engine = Deciding()
    async with served(path, engine), a_gateway(path) as gateway:
        await until(lambda: gateway.is_leading)
        engine.room = 7
        await gateway.submit(an_envelope())
        assert gateway.room_for(ADMIN) == 7
        engine.may_answer.clear()
        asking = asyncio.create_task(gateway.submit(an_envelope(items=3)))
        await asyncio.sleep(0)
        assert gateway.room_for(ADMIN) == 4  # what it has not seen yet counts against it
        engine.may_answer.set()
        await asking


async def test_an_engine_that_is_silent_keeps_nobody_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that it is full, and then nothing: nothing of ours is under way, so nobody would tell that it no longer
    is."""
    engine = Deciding()
    async with served(path, engine), a_gateway(path) as gateway:
        await until(lambda: gateway.is_leading)
        engine.room = 0
        await gateway.submit(an_envelope())
        assert gateway.room_for(ADMIN) == 0
        await until(lambda: gateway.room_for(ADMIN) > 0)


async def test_the_engine_tells_its_metrics_to_the_api(path: Path) -> None:
    async with served(path, Deciding()), a_gateway(path) as gateway:
        assert await gateway.metrics() == ""  # nobody leads yet
        await until(lambda: gateway.is_leading)
        told = await gateway.metrics()
    assert "berth_log_position" in told
    assert "berth_http" not in told
    assert "python_info" not in told


@pytest.mark.parametrize("cause", [ValueError("a bug"), Unavailable("x")], ids=["bug", "full"])
async def test_whatever_an_engine_ends_with_is_an_answer(path: Path, cause: Exception) -> None:
    class Failing(Deciding):
        async def submit(self, envelope: Envelope) -> list[Answer]:
            raise cause

    async with served(path, Failing()), a_gateway(path) as gateway:
        with pytest.raises(Unavailable):
            await gateway.submit(an_envelope())
