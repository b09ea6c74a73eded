"""What no process can mend alone: a disk that is full, a database that is older than what was told of it."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.conftest import ROOT
from tests.survival import laws
from tests.survival.load import Load
from tests.survival.place import Place, wait_until

FULL_S = 4.0
ROOM_BYTES = 64 * 1024


def load_of(place: Place, *, seed: int) -> Load:
    token = (place.data / "admin.token").read_text().strip()
    return Load(place.endpoints["http"], token, seed=seed, clients=3, rate=30.0)


def test_a_database_restored_from_an_older_backup_stops_the_relay_until_a_person_has_looked() -> None:
    with Place() as place:
        with load_of(place, seed=1) as before:
            time.sleep(1.0)
        laws.check(place, before.acknowledged)
        place.stop()
        backup = place.directory / "backup"
        subprocess.run(["cp", "-a", place.data / "postgres", backup], check=True)
        shutil.copy(place.journal, place.directory / "journal.backup")
        place.start()
        with load_of(place, seed=2) as lost:
            time.sleep(1.0)
        laws.check(place, lost.acknowledged)
        place.stop()
        shutil.rmtree(place.data / "postgres")
        backup.rename(place.data / "postgres")
        shutil.move(place.directory / "journal.backup", place.journal)  # the hypervisors were restored too

        place.start()
        with load_of(place, seed=3) as after:
            time.sleep(1.0)
        wait_until(lambda: "berth relay rebuild" in (place.data / "log" / "relay.log").read_text())
        rebuild = [sys.executable, "-m", "cli.main", "relay", "rebuild", "--yes", "--data", str(place.data)]
        subprocess.run(rebuild, cwd=ROOT, check=True, timeout=60)
        laws.check(place, [*before.acknowledged, *after.acknowledged])


def test_a_disk_that_is_full_loses_nothing_and_all_goes_on_when_there_is_room() -> None:
    with Place() as place:
        with load_of(place, seed=4) as load:
            time.sleep(1.0)
            full_from, told = time.monotonic(), set[int]()
            while time.monotonic() < full_from + FULL_S:
                servers = _servers(place)  # a server that is started anew knows nothing of it
                _let_files_grow_to(str(ROOM_BYTES), servers - told)
                told |= servers
                time.sleep(0.02)
            _let_files_grow_to("unlimited", _servers(place))
            answered = len(load.acknowledged)
            time.sleep(3.0)
        assert load.failures == []
        assert len(load.acknowledged) > answered
        assert load.longest_silence_s(full_from) > FULL_S / 2, "the disk was not full"
        laws.check(place, load.acknowledged)


def _servers(place: Place) -> set[int]:
    """The postmaster and its backends, of whatever server runs now."""
    postmaster = place.pids().get("postgres", 0)
    try:
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    except FileNotFoundError:  # it has just ended
        return set()
    return {postmaster, *map(int, children)}


def _let_files_grow_to(most: str, pids: set[int]) -> None:
    """For these processes it is as if the disk were full. Told as their own user, who alone may without a privilege."""
    for pid in pids:
        with suppress(FileNotFoundError):
            of = Path(f"/proc/{pid}").stat()
            owner = {"user": of.st_uid, "group": of.st_gid} if os.geteuid() == 0 else {}
            subprocess.run(["prlimit", f"--pid={pid}", f"--fsize={most}:"], check=False, **owner)
