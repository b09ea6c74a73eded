"""What is done to a platform under load. Each fault leaves it as a person would find it: nobody helps it up again."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable

import psycopg
from psycopg.sql import SQL, Identifier

from messaging import subjects
from messaging.connect import connected
from tests.survival.place import Place
from workers.settings import Settings

Fault = Callable[[Place, random.Random], None]

PAUSED_S = 3.0  # past the silence after which a standby takes over


def _killing(name: str) -> Fault:
    def fault(place: Place, chance: random.Random) -> None:
        place.await_restart(name, place.kill(name))

    return fault


def leader_killed(place: Place, chance: random.Random) -> None:
    name = place.leading_engine()
    place.await_restart(name, place.kill(name))


def leader_paused(place: Place, chance: random.Random) -> None:
    """A standby takes over meanwhile; the paused one wakes and believes to lead."""
    _pause(place, place.leading_engine(), PAUSED_S + chance.random())


def projector_paused(place: Place, chance: random.Random) -> None:
    _pause(place, "projector", PAUSED_S)


def everything_killed(place: Place, chance: random.Random) -> None:
    """As a power cut to the machine, but for what the disk has not got yet."""
    names = [name for name in place.pids() if name != "supervisor"]
    chance.shuffle(names)
    killed = {name: place.kill(name) for name in names}
    for name, pid in killed.items():
        place.await_restart(name, pid)


def nats_down(place: Place, chance: random.Random) -> None:
    _pause(place, "nats", 5.0)


def nats_down_for_a_minute(place: Place, chance: random.Random) -> None:
    _pause(place, "nats", 60.0)


def nats_wiped(place: Place, chance: random.Random) -> None:
    pid = place.pid("nats")
    os.kill(pid, signal.SIGSTOP)  # so that it is gone before anything of it is
    for path in (place.data / "nats").rglob("*.blk"):
        path.unlink(missing_ok=True)
    for path in sorted((place.data / "nats" / "streams").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    os.kill(pid, signal.SIGKILL)
    place.await_restart("nats", pid)


async def _delete_streams(place: Place) -> None:
    settings = Settings(nats=place.endpoints["nats"], nats_credentials=place.data / "nats" / "relay.json")
    async with connected(**settings.nats_options()) as client:
        for name in (subjects.EVENTS, subjects.AUDIT):
            await client.jetstream().delete_stream(name)


async def _purge_work(place: Place) -> None:
    settings = Settings(nats=place.endpoints["nats"], nats_credentials=place.data / "nats" / "dispatcher.json")
    async with connected(**settings.nats_options()) as client:
        await client.jetstream().purge_stream(subjects.WORK)


def work_purged(place: Place, chance: random.Random) -> None:
    """By one who has the dispatcher's password. The streams of events let nobody purge them."""
    asyncio.run(_purge_work(place))


def streams_deleted(place: Place, chance: random.Random) -> None:
    """By a foreigner who got hold of the relay's password: nobody else may."""
    asyncio.run(_delete_streams(place))


def read_model_dropped(place: Place, chance: random.Random) -> None:
    with psycopg.connect(place.endpoints["postgres"], autocommit=True) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'read\\_%'").fetchall()
        for (schema,) in found:
            while True:
                try:
                    connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
                    break
                except psycopg.errors.DeadlockDetected:  # with the projector, which writes there
                    pass


def connections_cut(place: Place, chance: random.Random) -> None:
    """Every backend of the service is ended, in the middle of whatever it does."""
    with psycopg.connect(place.endpoints["postgres"], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = current_user AND pid <> pg_backend_pid()"
        )


def _pause(place: Place, name: str, for_s: float) -> None:
    pid = place.pid(name)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(for_s)
    os.kill(pid, signal.SIGCONT)


def standby_killed(place: Place, chance: random.Random) -> None:
    leading = place.leading_engine()
    name = next(name for name in place.pids() if name.startswith("engine") and name != leading)
    place.await_restart(name, place.kill(name))


FAULTS: dict[str, Fault] = {
    "leader killed": leader_killed,
    "leader paused past its take-over": leader_paused,
    "standby killed": standby_killed,
    **{
        f"{name} killed": _killing(name)
        for name in ("api", "projector", "relay", "dispatcher", "controller", "nats", "postgres", "past")
    },
    "everything killed at once": everything_killed,
    "projector paused": projector_paused,
    "NATS unreachable": nats_down,
    "NATS unreachable for a minute": nats_down_for_a_minute,
    "NATS wiped": nats_wiped,
    "streams deleted": streams_deleted,
    "work purged": work_purged,
    "read model dropped": read_model_dropped,
    "database connections cut": connections_cut,
}

# Those that the suite has time for; the others wait for redelivery, which takes half a minute.
QUICK = (
    "leader killed",
    "leader paused past its take-over",
    "api killed",
    "postgres killed",
    "everything killed at once",
    "streams deleted",
    "read model dropped",
    "database connections cut",
)
