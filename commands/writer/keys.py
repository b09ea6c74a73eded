"""Whose an idempotency key is: one request's for ever, be it a single command, a batch, or an item of one.

key of a command   ─► command/<actor>/<key>
key of a batch     ─► command/<actor>/<key>.<i> of its items; settled once, before the first of them is decided
"""

from collections.abc import Sequence

import msgspec

from commands.operations import ReportOperation
from commands.writer.gateway import Item
from commands.writer.receipts import KnownRows, Receipt, Receipts, receipt_of
from domain.errors import IdempotencyMismatch
from domain.values import command_stream
from eventlog.codec import decode


class BatchKey(msgspec.Struct, eq=False):
    """A key that a client gave to several commands. `streams` are those of its items and those by which it is seen
    that the key was used for something else."""

    id: str  # of its first command
    streams: Sequence[str]
    fingerprint: str
    is_settled: bool = False
    mismatch: str | None = None  # the command that has the key


def batch_key(actor: str, items: Sequence[Item], batch: str) -> BatchKey:
    streams = [command_stream(actor, item.key) for item in items]
    return BatchKey(items[0].id, [*streams, *streams_of_batch(actor, batch)], items[0].fingerprint)


def streams_of_batch(actor: str, batch: str) -> tuple[str, str]:
    """Where it shows that a batch's key was used: for one command, or for another batch."""
    return command_stream(actor, batch), command_stream(actor, f"{batch}.0")


def remembers_refusals(item: Item) -> bool:
    """Whether a refusal takes the key. A report's does not, as what came too early may come true; nor does that of a
    key which was made up of what is asked. Such a refusal is recorded under its command's own id."""
    return item.key == item.id or (bool(item.fingerprint) and not isinstance(item.command, ReportOperation))


class Keys:
    """Keys that were used, by their receipts, and keys of batches that are being decided."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts
        self._held: dict[str, BatchKey] = {}  # by stream

    def receipt(self, item: Item, actor: str, known: KnownRows) -> Receipt | None:
        """What came of the command when it was sent before."""
        found = self._at(command_stream(actor, item.key), known)
        if found is None and known and not remembers_refusals(item):
            return self._at(command_stream(actor, item.id), known)  # refused, and this very envelope was sent again
        return found

    def mismatch(self, item: Item, actor: str, known: KnownRows, batch: BatchKey | None) -> IdempotencyMismatch | None:
        """The refusal, if the key is another request's."""
        if batch is not None:
            self._settle(batch, known)
            return IdempotencyMismatch(batch.mismatch) if batch.mismatch is not None else None
        stream = command_stream(actor, item.key)
        used = self._at(stream, known)
        if used is not None and used.fingerprint and item.fingerprint != used.fingerprint:
            return IdempotencyMismatch(used.command)
        holder = self._held.get(stream) if self._held else None
        if holder is not None and item.fingerprint != holder.fingerprint:
            return IdempotencyMismatch(holder.id)
        if item.fingerprint and used is None:
            first = self._receipts.of_batch(stream) or self._at(stream + ".0", known)
            if first is not None and first.batch == item.key:
                return IdempotencyMismatch(first.command)
        return None

    def let_go(self, batch: BatchKey) -> None:
        """All of it is decided, or nobody waits for it any more."""
        for stream in batch.streams:
            if self._held.get(stream) is batch:
                del self._held[stream]

    def _settle(self, batch: BatchKey, known: KnownRows) -> None:
        """All of the batch is done under its key, or nothing: from here on its keys are nobody else's."""
        if batch.is_settled:
            return
        batch.is_settled, batch.mismatch = True, None
        for stream in batch.streams:
            used, holder = self._at(stream, known) or self._receipts.of_batch(stream), self._held.get(stream)
            if used is not None and used.fingerprint != batch.fingerprint:
                batch.mismatch = used.command
            elif holder is not None and holder.fingerprint != batch.fingerprint:
                batch.mismatch = holder.id
            if batch.mismatch is not None:
                return
        for stream in batch.streams:
            self._held.setdefault(stream, batch)

    def _at(self, stream: str, known: KnownRows) -> Receipt | None:
        if (receipt := self._receipts.get(stream)) is not None:
            return receipt
        return receipt_of(decode(row)) if (row := known.get(stream)) is not None else None
