"""What must hold after anything: nothing acknowledged is lost, nothing is done twice, and everybody knows the same."""

import asyncio
import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
import psycopg

from domain.command import CommandAccepted, CommandRejected
from domain.fleet import Fleet
from domain.invariants import violations
from domain.recorded import LeaderTookOver, LogOpened, Recorded
from domain.values import from_rfc3339
from domain.vm import KIND as VM
from eventlog.codec import Row, decode
from messaging import subjects
from messaging.event_json import body
from tests.messaging.stage import messages
from tests.platform.client import Client
from tests.survival.load import Acknowledged
from tests.survival.place import Place, wait_until
from workers.settings import Settings

SETTLED_S_MAX = 90.0


def check(place: Place, acknowledged: Sequence[Acknowledged]) -> int:
    """Wait until all is quiet, then look at everything as of one position; answers how many events there are.

    Quiet is more than that no operation runs: work that was delivered twice is reported once more after its operation
    has ended, and that report is refused and recorded. So no work may be left either.
    """
    client = place.client()
    wait_until(lambda: _runs_nothing(place) and asyncio.run(_work_left(place)) == 0, within_s=SETTLED_S_MAX)
    rows = events(place)
    fleet = fold_whole_commands(rows)
    each_answer_stands_once(rows, acknowledged)
    _controllers_did_nothing_twice(place, fleet)
    found = client.post("/v1/verify?full=true", {}).json()
    while "code" in found:  # the process that verifies was killed too
        assert found["code"] == "unavailable", found
        time.sleep(0.2)
        found = client.post("/v1/verify?full=true", {}).json()
    assert (found["violations"], found["differences"]) == ([], []), found
    asyncio.run(_nats_holds_the_log(place, rows))
    return len(rows)


def await_caught_up(place: Place) -> None:
    """Wait until the read model and NATS hold all that the log holds now, and no operation runs that runs now, whatever
    comes meanwhile."""
    client = place.client()
    (last,) = wait_until(lambda: _asked(client, "/v1/events", sort="-position", limit=1))
    end = last["position"]

    def has_caught_up() -> bool:
        running = _asked(client, "/v1/operations", state="running", limit=1000, min_position=end)
        newest = _asked(client, "/v1/events", sort="-position", limit=1)
        if running is None or newest is None:
            return False
        is_over = all(from_rfc3339(one["started_at"]) > from_rfc3339(last["at"]) for one in running)
        return is_over and _relay_lag_events(client) <= newest[0]["position"] - end

    wait_until(has_caught_up, within_s=SETTLED_S_MAX)


def _asked(client: Client, path: str, **query: Any) -> list[dict[str, Any]] | None:
    """The items of a list; None while there is nobody to answer."""
    try:
        answer = client.get(path, **query)
    except httpx.TransportError:
        return None
    return list(answer.json()["items"]) if answer.status_code == 200 else None


def _relay_lag_events(client: Client) -> float:
    try:
        lag = re.search(r"^berth_relay_lag_events (\S+)$", client.get("/metrics").text, re.MULTILINE)
    except httpx.TransportError:
        lag = None
    return float(lag[1]) if lag is not None else math.inf


def events(place: Place) -> list[Row]:
    with psycopg.connect(place.endpoints["postgres"]) as connection:
        found = connection.cursor(binary=True).execute(
            "SELECT originator_id, originator_version, notification_id, topic, state FROM berth.events"
            " ORDER BY notification_id"
        )
        return [Row(*row) for row in found]


def _runs_nothing(place: Place) -> bool:
    client = place.client()
    last = _asked(client, "/v1/events", sort="-position", limit=1)
    if not last:
        return False
    running = _asked(client, "/v1/operations", state="running", limit=1, min_position=last[0]["position"])
    assert not _asked(client, "/v1/operations", state="stuck", limit=1), "stuck, though every controller answers"
    return running == []


async def _work_left(place: Place) -> int:
    """Messages that wait in BERTH_WORK, or were taken and not acknowledged."""
    settings = Settings(nats=place.endpoints["nats"], nats_credentials=place.data / "nats" / "dispatcher.json")
    client = await nats.connect(**settings.nats_options(), max_reconnect_attempts=0)
    try:
        return (await client.jetstream().stream_info(subjects.WORK)).state.messages
    except nats.errors.Error:
        return 1
    finally:
        await client.close()


def fold_whole_commands(rows: Sequence[Row]) -> Fleet:
    """Positions have no gap, a command's events stand together and end with its own, accounts are right after each."""
    fleet = Fleet()
    of_command: list[Recorded] = []
    for n, row in enumerate(rows, 1):
        recorded = decode(row)
        assert row.position == n, f"position {n} is missing"
        fleet.fold(recorded)
        if of_command and of_command[-1].command != recorded.command:
            assert isinstance(of_command[-1].event, CommandAccepted | CommandRejected), f"half a command before {n}"
            of_command = []
        if isinstance(recorded.event, LogOpened | LeaderTookOver):
            continue
        of_command.append(recorded)
        if isinstance(recorded.event, CommandAccepted | CommandRejected):
            of_command = []
            if n % 50 == 0:
                assert violations(fleet) == []
    assert not of_command, "the log ends with half a command"
    assert violations(fleet) == []
    return fleet


def each_answer_stands_once(rows: Sequence[Row], acknowledged: Sequence[Acknowledged]) -> None:
    by_stream: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.stream.startswith("command/admin/"):
            by_stream[row.stream].append(row)
    for answer in acknowledged:
        stands = by_stream[f"command/admin/{answer.key}"]
        assert len(stands) == 1, f"{answer} stands {len(stands)} times"
        recorded = decode(stands[0])
        assert recorded.command == answer.command, answer
        was_accepted = answer.status < 400 or answer.status == 424
        assert isinstance(recorded.event, CommandAccepted) == was_accepted, answer
        if not answer.waited:
            assert stands[0].position == answer.position, answer


def _controllers_did_nothing_twice(place: Place, fleet: Fleet) -> None:
    """What stands at the controllers is what Berth believes; nothing was made anew after its deletion was confirmed.

    A controller that was killed at work does that work again: the same uid, so the same thing.
    """
    standing: set[str] = set()
    gone: set[str] = set()
    for done in place.did():
        match done["step"]:
            case "vm.create":
                assert done["uid"] not in gone, f"{done} was made after it was deleted"
                standing.add(done["uid"])
            case "vm.delete":
                standing.discard(done["uid"])
                gone.add(done["uid"])
    vms = list(fleet.each(VM))
    assert standing == {vm.uid for vm in vms if vm.claims}
    assert [name for name, n in Counter((vm.tenant, vm.name) for vm in vms).items() if n > 1] == []


async def _nats_holds_the_log(place: Place, rows: Sequence[Row]) -> None:
    given = json.loads(Path(place.endpoints["nats_credentials"]).read_text())
    reader = await nats.connect(place.endpoints["nats"], user=given["user"], password=given["password"])
    try:
        async with asyncio.timeout(SETTLED_S_MAX):
            while True:
                try:
                    if (await reader.jetstream().stream_info("BERTH_EVENTS")).state.last_seq >= len(rows):
                        break
                except nats.errors.Error:
                    pass
                await asyncio.sleep(0.05)
        held = (await messages(reader, "BERTH_EVENTS"))[: len(rows)]
        assert [found.seq for found in held] == [row.position for row in rows]
        assert [found.data for found in held] == [body(row) for row in rows]
        commands = [row for row in rows if row.topic.startswith("command.")]
        async with asyncio.timeout(SETTLED_S_MAX):
            while (await reader.jetstream().stream_info("BERTH_AUDIT")).state.messages < len(commands):
                await asyncio.sleep(0.05)
        audit = (await messages(reader, "BERTH_AUDIT"))[: len(commands)]
        assert [found.data for found in audit] == [body(row) for row in commands]
    finally:
        await reader.close()
