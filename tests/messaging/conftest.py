"""A NATS that a test may kill and wipe."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventlog.read import LogReader
from tests.conftest import Database
from tests.messaging.stage import NatsProcess


@pytest.fixture
def nats_process(data: Path) -> Iterator[NatsProcess]:
    data.mkdir()
    process = NatsProcess(data)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def reader(database: Database) -> Iterator[LogReader]:
    found = LogReader(database.service)
    yield found
    found.close()
