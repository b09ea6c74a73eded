"""The embedded servers, for real: kept data over kill -9, kept ports and passwords, permissions that hold."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from tests.conftest import NatsServer
from workers import child, embedded
from workers.embedded import Nats, Postgres, bring_up, free_port, is_free, keep_port


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that the test started, killed when it is over."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def directory(data: Path) -> Path:
    data.mkdir()
    return data


def started(
    server: embedded.Server, directory: Path, running: list[subprocess.Popen[bytes]]
) -> subprocess.Popen[bytes]:
    with open(directory / f"{server.name}.log", "ab") as log:
        running.append(bring_up(server, log))
    return running[-1]


def test_postgres_keeps_what_was_committed_over_a_kill(directory: Path, running: list[Any]) -> None:
    postgres = Postgres(directory)
    process = started(postgres, directory, running)
    with psycopg.connect(postgres.owner(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    process.kill()
    process.wait()

    # Another instance, as after the supervisor itself was killed: same port, same password, same data.
    again = Postgres(directory)
    process = started(again, directory, running)
    assert again.owner() == postgres.owner()
    with psycopg.connect(again.owner()) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SHOW server_version_num").fetchone()[0] >= "180000"  # type: ignore[index]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(again._conninfo("berth", "berth_owner"), passfile="/dev/null")
    process.send_signal(postgres.stop_signal)
    assert process.wait(10) == 0


def test_a_server_left_by_a_killed_supervisor_is_ended(directory: Path, running: list[Any]) -> None:
    left = started(Postgres(directory), directory, running)
    postgres = Postgres(directory)
    assert left.wait(10) == 0
    started(postgres, directory, running)


def test_a_process_id_that_a_stranger_has_now_does_not_keep_postgres_from_starting(
    directory: Path, running: list[Any]
) -> None:
    process = started(Postgres(directory), directory, running)
    process.kill()
    process.wait()
    file = directory / "postgres" / "cluster" / "postmaster.pid"
    _, *rest = file.read_text().split("\n")
    file.write_text("\n".join([str(os.getppid()), *rest]))
    started(Postgres(directory), directory, running)


def test_secrets_are_readable_by_their_owner_alone(directory: Path, running: list[Any]) -> None:
    server = Nats(directory)
    started(server, directory, running)
    Postgres(directory)
    files = [*server.credentials.values(), server.directory / "nats.conf", *(directory / "passwords").iterdir()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_port_is_kept_until_another_program_has_it(tmp_path: Path) -> None:
    port = keep_port(tmp_path, "nats")
    assert keep_port(tmp_path, "nats") == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not is_free(port)
        moved = keep_port(tmp_path, "nats")
    assert moved != port
    assert keep_port(tmp_path, "nats") == moved


def test_a_child_ends_with_the_process_that_started_it(tmp_path: Path, eventually: Any) -> None:
    program = (
        "import signal, sys, time; from pathlib import Path; from workers import child\n"
        "c = child.spawn(['sleep', '600'], log=sys.stdout.buffer, signal_at_our_death=signal.SIGTERM)\n"
        "print(c.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert child.identity(pid) is not None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: child.identity(pid) is None, within_s=5)


def test_a_process_that_does_not_stop_is_killed() -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    who = child.identity(stubborn.pid)
    assert who is not None
    child.end(who, with_signal=signal.SIGTERM, patience_s=0.1)
    assert stubborn.wait(5) == -signal.SIGKILL
    assert not child.is_running(who)
    stubborn.stdout.close()


def test_postgres_starts_behind_a_directory_closed_to_others(directory: Path, running: list[Any]) -> None:
    """A checkout in root's home is one: as root, PostgreSQL runs as another user, who could not pass by itself."""
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    data = closed / "data"
    data.mkdir()
    postgres = Postgres(data)
    started(postgres, data, running)
    with psycopg.connect(postgres.owner()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_nats_keeps_acknowledged_messages_over_a_kill(directory: Path, running: list[Any]) -> None:
    server = Nats(directory)
    process = started(server, directory, running)
    relay = NatsServer(server.url, server.credentials).options("relay")
    client = await nats.connect(**relay)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="BERTH_EVENTS", subjects=["berth.events.>"], deny_delete=True))
    await stream.publish("berth.events.vm.scheduled", b"{}")
    await client.close()
    process.kill()
    process.wait()

    again = Nats(directory)
    started(again, directory, running)
    assert again.url == server.url
    client = await nats.connect(**relay)
    assert (await client.jetstream().stream_info("BERTH_EVENTS")).state.messages == 1
    await client.close()


async def refused(server: NatsServer, user: str, subject: str) -> bool:
    """Whether `user` may not publish to `subject`: the server says so on the connection before it answers a flush."""
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error).lower())

    client = await nats.connect(**server.options(user), error_cb=note)
    await client.publish(subject, b"{}")
    # The client's first PING may overtake the message; the second one's answer comes behind the server's refusal.
    await client.flush()
    await client.flush()
    await client.close()
    return any("permissions violation for publish" in error for error in errors)


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("reader", "berth.events.vm.scheduled"),
        ("reader", "berth.commands.main"),
        ("reader", "berth.work.vm.create"),
        ("reader", "$JS.API.STREAM.DELETE.BERTH_EVENTS"),
        ("reader", "$JS.API.STREAM.PURGE.BERTH_EVENTS"),
        ("reader", "$JS.API.STREAM.MSG.DELETE.BERTH_EVENTS"),
        ("reader", "$JS.API.CONSUMER.CREATE.BERTH_WORK"),
        ("api", "berth.events.vm.scheduled"),
        ("dispatcher", "berth.events.vm.scheduled"),
        ("relay", "berth.commands.main"),
        ("controller-vm", "berth.reports.ipam"),
        ("controller-vm", "berth.commands.main"),
        ("controller-vm", "$JS.API.CONSUMER.CREATE.BERTH_WORK.vm.berth.work.ipam.>"),
        ("controller-vm", "$JS.API.CONSUMER.MSG.NEXT.BERTH_WORK.ipam"),
        ("past", "berth.commands.main"),
        ("engine", "berth.events.vm.scheduled"),
    ],
)
async def test_a_user_may_not_publish_what_is_not_its_own(nats_server: NatsServer, user: str, subject: str) -> None:
    assert await refused(nats_server, user, subject)


@pytest.mark.parametrize(
    ("user", "subject"),
    [("api", "berth.commands.main"), ("controller-vm", "berth.reports.vm"), ("relay", "berth.events.vm.scheduled")],
)
async def test_a_user_may_publish_its_own(nats_server: NatsServer, user: str, subject: str) -> None:
    assert not await refused(nats_server, user, subject)


async def test_a_reader_consumes_events_with_the_client_as_it_comes(nats_server: NatsServer) -> None:
    relay = await nats.connect(**nats_server.options("relay"))
    await relay.jetstream().add_stream(StreamConfig(name="BERTH_EVENTS", subjects=["berth.events.>"]))
    await relay.jetstream().publish("berth.events.vm.scheduled", b"1")
    outsider = {key: value for key, value in nats_server.options("reader").items() if key != "inbox_prefix"}
    reader = await nats.connect(**outsider)
    pushed = await reader.jetstream().subscribe("berth.events.>", ordered_consumer=True)
    assert (await pushed.next_msg(5)).data == b"1"
    pulled = await reader.jetstream().pull_subscribe("berth.events.>", durable="mine", stream="BERTH_EVENTS")
    [message] = await pulled.fetch(1, timeout=5)
    await message.ack_sync(timeout=5)
    await reader.close()
    await relay.close()


async def test_a_controller_works_off_its_queue(nats_server: NatsServer) -> None:
    dispatcher = await nats.connect(**nats_server.options("dispatcher"))
    await dispatcher.jetstream().add_stream(
        StreamConfig(name="BERTH_WORK", subjects=["berth.work.>"], retention="workqueue")  # type: ignore[arg-type]
    )
    mine = ConsumerConfig(name="vm", durable_name="vm", filter_subject="berth.work.vm.>", ack_policy=AckPolicy.EXPLICIT)
    await dispatcher.jetstream().add_consumer("BERTH_WORK", mine)
    await dispatcher.jetstream().publish("berth.work.vm.create", b"work")

    controller = await nats.connect(**nats_server.options("controller-vm"))
    queue = controller.jetstream()
    work = await queue.pull_subscribe_bind("vm", stream="BERTH_WORK")
    [message] = await work.fetch(1, timeout=5)
    await message.in_progress()
    await message.ack_sync(timeout=5)
    assert (await dispatcher.jetstream().stream_info("BERTH_WORK")).state.messages == 0
    await controller.close()
    await dispatcher.close()


async def test_a_report_is_answered_and_nobody_else_hears_the_answer(nats_server: NatsServer) -> None:
    api = await nats.connect(**nats_server.options("api"))
    controller = await nats.connect(**nats_server.options("controller-vm"))
    outsider = await nats.connect(
        **{key: value for key, value in nats_server.options("reader").items() if key != "inbox_prefix"}
    )
    overheard = await outsider.subscribe("_INBOX.>")
    await outsider.flush()

    async def answer(message: Any) -> None:
        await message.respond(b"accepted")

    await api.subscribe("berth.reports.*", cb=answer)
    await api.flush()
    assert (await controller.request("berth.reports.vm", b"{}", timeout=5)).data == b"accepted"
    await outsider.flush()
    assert overheard.pending_msgs == 0
    for client in (api, controller, outsider):
        await client.close()


async def test_a_message_of_eight_mebibytes_is_taken(nats_server: NatsServer) -> None:
    client = await nats.connect(**nats_server.options("relay"))
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()


def test_free_ports_are_free() -> None:
    assert is_free(free_port())
