"""Connections between engine and PostgreSQL that are lost at the worst moment, under load: between a commit and its
answer, on the way there, or not at all, but held half open until long after another has taken over."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from commands.tokens import hash_of
from commands.writer.engine import Engine
from commands.writer.gateway import Actor, Answer, Envelope
from domain.errors import Unavailable
from eventlog.read import LogReader
from eventlog.tasks import end_tasks
from projections.resources import resource
from tests.commands.writer.test_engine import Client, a_stocked_engine, a_vm, rows_of
from tests.commands.writer.test_standby import until
from tests.conftest import Database
from tests.proxy import Proxy
from tests.survival import laws
from tests.survival.load import Acknowledged

ADMIN = Actor("admin", "admin")
CLIENTS = 12
PATIENCE_S = 2.0  # with one request; then it is sent again with its key
ROUNDS = 2


class Reached(msgspec.Struct, frozen=True):
    """An engine, and the proxy through which alone it reaches the database."""

    engine: Engine
    proxy: Proxy


@asynccontextmanager
async def two_engines(database: Database) -> AsyncIterator[list[Reached]]:
    server = conninfo_to_dict(database.service)
    address = str(server["host"]), int(str(server["port"]))
    with Proxy(*address) as one, Proxy(*address) as other:
        through = [make_conninfo(database.service, host="127.0.0.1", port=proxy.port) for proxy in (one, other)]
        engines = [Engine(conninfo, resource=resource, admin_token_hash=hash_of("secret")) for conninfo in through]
        for engine in engines:
            await engine.start()
        try:
            yield [Reached(engine, proxy) for engine, proxy in zip(engines, (one, other), strict=True)]
        finally:
            one.release()
            other.release()
            for engine in engines:
                await engine.stop()


class Crowd:
    """Clients who want VMs, repeat what was not answered with the same key at whichever engine takes it, and keep the
    answers."""

    def __init__(self, engines: list[Engine]) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.is_leaving = False
        self._engines = engines

    async def client(self, n: int) -> None:
        for m in itertools.count():
            if self.is_leaving:
                return
            key = f"k-{n}-{m}"
            answer = await self._until_answered(key, a_vm(f"vm-{n}-{m}"))
            kept = Acknowledged(
                key, "POST", "/v1/vms", answer.status, answer.command, answer.position, False, time.monotonic()
            )
            self.acknowledged.append(kept)

    async def answered(self, more: int) -> None:
        """Wait until so many more answers have come."""
        enough = len(self.acknowledged) + more
        await until(lambda: len(self.acknowledged) >= enough, within_s=30.0)

    async def _until_answered(self, key: str, body: dict[str, Any]) -> Answer:
        while True:
            for engine in self._engines:
                item = Client.item("vm.provision", body, key=key)
                try:
                    return (await engine.submit(Envelope(ADMIN, (item,), time.time() + PATIENCE_S)))[0]
                except Unavailable:
                    await asyncio.sleep(0.01)


async def cut_after_a_commit(struck: Proxy, reader: LogReader, other: Engine) -> None:
    end = reader.end()
    struck.hold_answers()
    await until(lambda: reader.end() > end)
    struck.cut()


async def cut_before_it_arrives(struck: Proxy, reader: LogReader, other: Engine) -> None:
    struck.hold_requests()
    await asyncio.sleep(0.05)
    struck.cut()


async def answers_held_past_a_take_over(struck: Proxy, reader: LogReader, other: Engine) -> None:
    struck.hold_answers()
    await until(lambda: other.is_leading)


async def requests_held_past_a_take_over(struck: Proxy, reader: LogReader, other: Engine) -> None:
    struck.hold_requests()
    await until(lambda: other.is_leading)


STRIKES: tuple[Callable[[Proxy, LogReader, Engine], Any], ...] = (
    cut_after_a_commit,
    cut_before_it_arrives,
    answers_held_past_a_take_over,
    requests_held_past_a_take_over,
)


@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: str(strike.__name__))
async def test_every_answer_stands_once_whatever_becomes_of_a_connection(database: Database, strike: Any) -> None:
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    reader = LogReader(database.service)
    async with two_engines(database) as both:
        engines = [reached.engine for reached in both]
        await until(lambda: any(engine.is_leading for engine in engines))
        await a_stocked_engine(
            Client(next(engine for engine in engines if engine.is_leading)), cpu=100_000, quota=400_000
        )
        crowd = Crowd(engines)
        clients = [asyncio.create_task(crowd.client(n)) for n in range(CLIENTS)]
        for _ in range(ROUNDS):
            await asyncio.sleep(0.2 + 0.3 * chance.random())
            leading, other = sorted(both, key=lambda reached: not reached.engine.is_leading)
            await strike(leading.proxy, reader, other.engine)
            leading.proxy.release()
            await crowd.answered(10 * CLIENTS)
        crowd.is_leaving = True
        await asyncio.wait_for(asyncio.gather(*clients), 30.0)
        end = reader.end()
        await until(lambda: all(engine.fleet.position == end for engine in engines))
        rows = rows_of(database)
        fleet = laws.fold_whole_commands(rows)
        laws.each_answer_stands_once(rows, crowd.acknowledged)
        assert [engine.fleet.living == fleet.living for engine in engines] == [True, True]
    reader.close()
    await end_tasks(*clients)
