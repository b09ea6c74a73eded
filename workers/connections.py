"""What processes hold open while they run: a connection to NATS, a reader of the log."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from nats.aio.client import Client

from eventlog.components import Health
from eventlog.read import LogReader
from messaging.connect import connected
from workers.settings import Settings


def to_nats(settings: Settings, health: Health | None = None) -> AbstractAsyncContextManager[Client]:
    return connected(health, **settings.nats_options())


@contextmanager
def log_reader(conninfo: str) -> Iterator[LogReader]:
    reader = LogReader(conninfo)
    try:
        yield reader
    finally:
        reader.close()
