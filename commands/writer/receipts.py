"""What makes commands idempotent: the receipts of lately used keys in memory, all others in the log.

A key's stream is `command/<actor>/<key>`, unique in the log for ever. Receipts in memory are complete back to
`horizon`, so that a key which can't be older than that needs no look-up.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from domain.command import CommandAccepted, CommandEvent, Warned
from domain.recorded import Recorded
from eventlog.codec import Row

# Streams that the log is known to hold, each with its last row, or None if it was in the fleet at the look-up. Such a
# stream may have ended by the time of the decision, and must not be taken for one that never existed.
KnownRows = Mapping[str, Row | None]

RECEIPTS_MAX = 100_000
RECEIPT_AGE_US_MAX = 3600 * 1_000_000


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a repeat of the command is answered with. `at` is microseconds since 1970."""

    command: str
    position: int
    at: int
    fingerprint: str
    on: str | None
    operation: str | None
    created: bool
    problem: dict[str, Any] | None
    batch: str | None
    warnings: tuple[Warned, ...] = ()


def receipt_of(recorded: Recorded) -> Receipt:
    """The receipt in a recorded `command.accepted` or `command.rejected`."""
    event: CommandEvent = recorded.event
    if isinstance(event, CommandAccepted):
        # positional: names would take 0.1 µs of each command
        return Receipt(
            event.id,
            recorded.position,
            recorded.at,
            event.fingerprint,
            event.resource,
            event.operation,
            event.created,
            None,  # problem
            event.batch,
            event.warnings,
        )
    return Receipt(
        command=event.id,
        position=recorded.position,
        at=recorded.at,
        fingerprint=event.fingerprint,
        on=event.resource,
        operation=None,
        created=False,
        problem=event.problem,
        batch=event.batch,
    )


class Receipts:
    """Receipts by key's stream, oldest first."""

    def __init__(self) -> None:
        self._by_stream: OrderedDict[str, Receipt] = OrderedDict()
        self._of_batches: dict[str, Receipt] = {}  # of some item, by the stream that the batch's key would have
        self.horizon = 0

    def get(self, stream: str) -> Receipt | None:
        return self._by_stream.get(stream)

    def of_batch(self, stream: str) -> Receipt | None:
        """The receipt of an item of the batch whose key is that of this stream."""
        return self._of_batches.get(stream)

    def remember(self, recorded: Recorded) -> None:
        """Keep the receipt, if its key was given by a client; one that was made up never comes again."""
        if recorded.event.key != recorded.event.id:
            receipt = self._by_stream[recorded.stream] = receipt_of(recorded)
            if receipt.batch is not None and receipt.fingerprint:
                self._of_batches[_stream_of_batch(recorded.stream)] = receipt
            self._forget_old(recorded.at)

    def begin_after(self, at: int) -> None:
        """What was decided up to `at` is not here, as the fleet comes from a checkpoint: those keys are looked up."""
        self.horizon = max(self.horizon, at)

    def forget(self, stream: str) -> None:
        """Its command was undone."""
        if (gone := self._by_stream.pop(stream, None)) is not None:
            self._drop(stream, gone)

    def _forget_old(self, now: int) -> None:
        oldest = next(iter(self._by_stream.values()))
        while len(self._by_stream) > RECEIPTS_MAX or oldest.at < now - RECEIPT_AGE_US_MAX:
            stream, gone = self._by_stream.popitem(last=False)
            self._drop(stream, gone)
            self.horizon = max(self.horizon, gone.at)
            oldest = next(iter(self._by_stream.values()))

    def _drop(self, stream: str, gone: Receipt) -> None:
        if gone.batch is not None and self._of_batches.get(of_batch := _stream_of_batch(stream)) is gone:
            del self._of_batches[of_batch]


def _stream_of_batch(stream: str) -> str:
    """An item's key is its batch's, a dot, and its index."""
    return stream.rpartition(".")[0]
