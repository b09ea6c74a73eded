"""The pool of processes that fold the past: real ones, begun as the process `past` begins them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any

import msgspec
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from domain.errors import Unavailable
from eventlog.read import LogReader
from messaging.past import OfResource, OfVerification
from projections.projector import catch_up
from projections.resources import resource
from tests.conftest import ROOT
from tests.deciding import Site
from tests.projections.logs import a_site, live, write
from workers import child
from workers.past.pool import Pool
from workers.past.process import launching
from workers.settings import Settings


@pytest.fixture(scope="module")
def site() -> Site:
    site = a_site()
    live(site, seed=6, commands=60)
    return site


class Begun:
    """Begins workers, and knows which."""

    def __init__(self, settings: Settings) -> None:
        self._launch = launching(settings)
        self.processes: list[tuple[str, int]] = []

    def __call__(self, name: str, pool: socket) -> "subprocess.Popen[bytes]":
        process = self._launch(name, pool)
        self.processes.append((name, process.pid))
        return process

    def pids(self, name: str) -> list[int]:
        return [pid for other, pid in self.processes if other == name]


@pytest.fixture
def settings(database: Any, tmp_path: Path) -> Settings:
    conninfo = conninfo_to_dict(database.service)
    file = tmp_path / "password"
    file.write_text(str(conninfo.pop("password")))
    return Settings(postgres=make_conninfo(**conninfo), postgres_password_file=file)


@pytest.fixture
def begun(database: Any, site: Site, settings: Settings) -> Begun:
    write(database.service, site.rows)
    return Begun(settings)


def question(id: str, as_of: int, **more: Any) -> OfResource:
    return OfResource(id=id, stream="host/h1", as_of=as_of, **more)


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_one_that_is_busy_keeps_nobody_waiting_and_all_end_with_the_pool(begun: Begun, site: Site) -> None:
    end = site.fleet.position
    async with asyncio.timeout(60), Pool(begun) as pool:
        wanted = resource(site.fleet, "host/h1")
        assert msgspec.json.decode(await pool.answer(question("a", end))) == {"resource": wanted, "position": end}
        (first,) = begun.pids("1")
        async with stopped(first):
            held = asyncio.create_task(pool.answer(question("b", end)))  # its fold is near
            await asyncio.sleep(0)
            # Whoever asks for what lies before it is answered by another, which is begun for that.
            assert msgspec.json.decode(await pool.answer(question("c", 40)))["position"] == 40
            assert not held.done()
        assert msgspec.json.decode(await held)["resource"] == wanted
        assert [name for name, _ in begun.processes] == ["1", "2"]
    assert [child.identity(pid) for _, pid in begun.processes] == [None, None]


async def test_what_a_worker_left_is_asked_once_more(begun: Begun, site: Site) -> None:
    end = site.fleet.position
    async with asyncio.timeout(60), Pool(begun) as pool:
        await pool.answer(question("a", end))
        (first,) = begun.pids("1")
        os.kill(first, signal.SIGSTOP)
        left = asyncio.create_task(pool.answer(question("b", end)))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert msgspec.json.decode(await left)["position"] == end
        while len(begun.pids("1")) < 2 or not pool.is_ready:
            await asyncio.sleep(0.02)


async def test_what_ended_two_workers_is_asked_of_no_third() -> None:
    launched: list[str] = []

    def launch(name: str, pool: socket) -> "subprocess.Popen[bytes]":
        launched.append(name)
        return subprocess.Popen(["true"], stdin=pool.fileno())

    async with asyncio.timeout(60), Pool(launch) as pool:
        with pytest.raises(Unavailable):
            await pool.answer(question("a", 40))
        assert set(launched) == {"1", "2"}


async def test_a_verification_keeps_nobody_waiting_and_ends_with_whoever_awaits_it(
    begun: Begun, database: Any, site: Site
) -> None:
    reader = LogReader(database.service)
    catch_up(database.service, reader)
    reader.close()
    async with asyncio.timeout(60), Pool(begun) as pool:
        assert msgspec.json.decode(await pool.answer(OfVerification(id="v"))) == {
            "position": site.fleet.position,
            "events": site.fleet.position,
            "violations": [],
            "differences": [],
        }
        (pid,) = begun.pids("verify")
        assert child.identity(pid) is None
        verifying = asyncio.create_task(pool.answer(OfVerification(id="w")))
        while len(begun.pids("verify")) < 2:
            await asyncio.sleep(0.01)
        pid = begun.pids("verify")[1]
        os.kill(pid, signal.SIGSTOP)
        assert msgspec.json.decode(await pool.answer(question("a", 40)))["position"] == 40
        assert not verifying.done()
        pool.give_up("w")
        with pytest.raises(Unavailable):
            await verifying
        assert child.identity(pid) is None


async def test_what_nobody_awaits_is_not_asked(begun: Begun) -> None:
    async with asyncio.timeout(60), Pool(begun) as pool:
        await pool.answer(question("a", 40))
        (first,) = begun.pids("1")
        pool.give_up("early")  # before it came, as may be
        with pytest.raises(Unavailable):
            await pool.answer(question("early", 40))
        with pytest.raises(Unavailable):
            await pool.answer(question("late", 40, ends_at=time.time() - 1))
        async with stopped(first):
            with pytest.raises(Unavailable):
                await pool.answer(question("short", 40, ends_at=time.time() + 0.2))
            left = asyncio.create_task(pool.answer(question("left", 40)))
            await asyncio.sleep(0)
            pool.give_up("left")
            with pytest.raises(Unavailable):
                await left
        assert msgspec.json.decode(await pool.answer(question("b", 40)))["position"] == 40


def test_workers_end_with_their_pool_whatever_ended_it(
    settings: Settings, eventually: Callable[..., Any], tmp_path: Path
) -> None:
    program = """
import asyncio
from workers.past.pool import Pool
from workers.past.process import launching
from workers.settings import Settings

async def work():
    async with Pool(launching(Settings.from_environment())) as pool:
        await asyncio.sleep(60)

asyncio.run(work())
"""
    environment = {**os.environ, **settings.environment()}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: children.read_text().split(), within_s=30)
        (worker,) = map(int, children.read_text().split())
    finally:
        process.kill()
        process.wait()
    eventually(lambda: child.identity(worker) is None)
