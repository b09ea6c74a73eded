"""What no process can mend alone: a disk that is full, a database that is older than what was told of it."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.survival import laws
from tests.survival.load import Load
from tests.survival.place import Place, wait_until

DISK_MIB = 400


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


@pytest.fixture
def small_disk() -> Iterator[Place]:
    """A platform whose database has a small file system of its own; mounting one takes root, as in a container."""
    place = Place()
    disk = place.data / "postgres"
    disk.mkdir(parents=True)
    place.data.chmod(0o711)
    if os.geteuid() != 0:
        pytest.skip("a file system can be mounted by root alone")
    owner = pwd.getpwnam("nobody").pw_uid
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,uid={owner},mode=0700", "tmpfs", disk], check=True)
    try:
        with place:
            yield place
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
        shutil.rmtree(place.directory, ignore_errors=True)


def test_a_disk_that_is_full_loses_nothing_and_all_goes_on_when_there_is_room(small_disk: Place) -> None:
    filler = small_disk.data / "postgres" / "filler"
    with load_of(small_disk, seed=4) as load:
        time.sleep(1.0)
        _fill(filler)
        answered = len(load.acknowledged)
        time.sleep(4.0)
        filler.unlink()
        wait_until(lambda: len(load.acknowledged) > answered + 10)
        time.sleep(1.0)
    assert load.failures == []
    laws.check(small_disk, load.acknowledged)


def _fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as filler:
        block = bytes(64 * 1024)
        try:
            while True:
                filler.write(block)
        except OSError:
            pass
