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

# By stream, what the log is known to hold: its row, or None for what was in the fleet when that was asked. That may be
# over by the time of the decision, and must not be taken for what never was.
Known = Mapping[str, Row | None]

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
        return Receipt(
            event.id,
            recorded.position,
            recorded.at,
            event.fingerprint,
            event.resource,
            event.operation,
            event.created,
            None,
            event.batch,
            event.warnings,
        )
    return Receipt(
        event.id,
        recorded.position,
        recorded.at,
        event.fingerprint,
        event.resource,
        None,
        False,
        event.problem,
        event.batch,
    )


class Receipts:
    """Receipts by key's stream, oldest first."""

    def __init__(self) -> None:
        self._by_stream: OrderedDict[str, Receipt] = OrderedDict()
        self.horizon = 0

    def get(self, stream: str) -> Receipt | None:
        return self._by_stream.get(stream)

    def remember(self, recorded: Recorded) -> None:
        """Keep the receipt, if its key was given by a client; one that was made up never comes again."""
        if recorded.event.key != recorded.event.id:
            self._by_stream[recorded.stream] = receipt_of(recorded)
            self._forget_old(recorded.at)

    def begin_after(self, at: int) -> None:
        """What was decided up to `at` is not here, as the fleet comes from a checkpoint: those keys are looked up."""
        self.horizon = max(self.horizon, at)

    def forget(self, stream: str) -> None:
        """Its command was undone."""
        self._by_stream.pop(stream, None)

    def _forget_old(self, now: int) -> None:
        oldest = next(iter(self._by_stream.values()))
        while len(self._by_stream) > RECEIPTS_MAX or oldest.at < now - RECEIPT_AGE_US_MAX:
            _, gone = self._by_stream.popitem(last=False)
            self.horizon = max(self.horizon, gone.at)
            oldest = next(iter(self._by_stream.values()))
