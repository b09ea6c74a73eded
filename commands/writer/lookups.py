"""Rows of the log that a decision needs and memory does not hold: keys used long ago, operations that are over."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import psycopg
import structlog
from eventsourcing.persistence import PersistenceError

from commands.operations import ReportOperation
from commands.writer.gateway import Actor, Envelope, Item
from commands.writer.keys import remembers_refusals, streams_of_batch
from commands.writer.receipts import KnownRows, Receipts
from domain.errors import Unavailable
from domain.fleet import Fleet
from domain.operation import KIND as OPERATION
from domain.values import command_stream
from eventlog.codec import Row
from eventlog.read import LogReader

Spawn = Callable[[Coroutine[Any, Any, None]], object]

FAILURES = (PersistenceError, psycopg.Error, OSError)  # of reading the log
RETRY_S = 0.2

log = structlog.get_logger()


class LookUps:
    """One query at a time, for all that wait; those who come meanwhile go with the next."""

    def __init__(self, reader: LogReader, fleet: Fleet, receipts: Receipts, *, spawn: Spawn) -> None:
        self._reader = reader
        self._fleet = fleet
        self._receipts = receipts
        self._spawn = spawn
        self._asked: dict[str, asyncio.Future[Row | None]] = {}

    async def known(self, envelope: Envelope, *, patience_s: float) -> KnownRows:
        """What the log holds of what the envelope speaks of.

        Raises:
            Unavailable: the log could not be asked, or gave no answer in time.
        """
        streams: list[str] = []
        seen: dict[str, Row | None] = {}
        actor = envelope.actor.name
        for item in envelope.items:
            may_stand = (item.key != item.id or envelope.resent) and item.command.is_recorded
            if may_stand and not self._is_settled_in_memory(item, envelope.actor):
                streams.append(command_stream(actor, item.key))
                if item.fingerprint and envelope.batch is None:
                    streams.append(streams_of_batch(actor, item.key)[1])
            if may_stand and envelope.resent and not remembers_refusals(item):
                streams.append(command_stream(actor, item.id))  # where a refusal of it would stand
            if item.command.kind.startswith("operation."):
                on = item.command.on()
                if self._fleet.entry(on) is not None:
                    seen[on] = None
                else:
                    streams.append(on)
        if envelope.batch is not None and envelope.items[0].fingerprint:
            streams += streams_of_batch(envelope.actor.name, envelope.batch)
        if not streams:
            return seen
        if not self._asked:
            self._spawn(self._ask())
        loop = asyncio.get_running_loop()
        futures = [self._asked.setdefault(stream, loop.create_future()) for stream in streams]
        # They are shared: unlike gather, wait leaves them alone when this caller is cancelled.
        _, late = await asyncio.wait(futures, timeout=patience_s)
        if late:
            raise Unavailable(envelope.items[0].id)
        return seen | {row.stream: row for future in futures if (row := future.result()) is not None}

    def _is_settled_in_memory(self, item: Item, actor: Actor) -> bool:
        """Its receipt is in memory (so memory answers), or it can't be older than what memory holds completely."""
        if self._receipts.get(command_stream(actor.name, item.key)) is not None:
            return True
        if isinstance(item.command, ReportOperation) and item.key == item.command.key:
            operation = self._fleet.get(OPERATION, item.command.operation)
            return operation is not None and operation.started_at > self._receipts.horizon
        return False

    async def existing(self, streams: Sequence[str]) -> dict[str, Row]:
        """The last row of each of these streams, however long it takes."""
        while True:
            try:
                return await asyncio.to_thread(self._reader.existing, streams)
            except FAILURES as error:
                log.warning("look-up failed", error=str(error).strip())
                await asyncio.sleep(RETRY_S)

    async def _ask(self) -> None:
        asked: dict[str, asyncio.Future[Row | None]] = {}
        try:
            await asyncio.sleep(0)
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    found = await asyncio.to_thread(self._reader.existing, list(asked))
                except FAILURES as error:
                    log.warning("look-up failed", error=str(error).strip())
                    _refuse(asked)
                    continue
                for stream, future in asked.items():
                    if not future.done():
                        future.set_result(found.get(stream))
        finally:
            # Stopped: who asked is told so at once.
            _refuse(asked)
            _refuse(self._asked)


def _refuse(asked: dict[str, "asyncio.Future[Row | None]"]) -> None:
    for future in asked.values():
        if not future.done():
            future.set_exception(Unavailable())
