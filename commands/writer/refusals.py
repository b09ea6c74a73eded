"""What a refusal may leave in the log, which keeps it for ever: how large it may be, and how often.

Who lacks permission, and reports that come too late or too early, cost nobody a decision and so could be sent without
end. The first of each hour are in the audit; of all others the metrics tell.
"""

from collections import OrderedDict

from prometheus_client import Counter

REFUSAL_BYTES_MAX = 32 * 1024  # of the event; a longer one is recorded without its request
REFUSALS_MAX = 1_000  # an hour and actor, of those that lack permission and of reports
HOUR_US = 3600 * 1_000_000
ACTORS_MAX = 10_000

UNRECORDED = Counter("berth_refusals_unrecorded", "Refusals that were not recorded, as the actor had too many")


class Refusals:
    """How many refusals of each actor were recorded in its present hour."""

    def __init__(self) -> None:
        self._by_actor: OrderedDict[str, tuple[int, int]] = OrderedDict()  # when the hour began, and how many since

    def may_record(self, actor: str, at: int) -> bool:
        """Whether one more of the actor is recorded, which counts it."""
        began, count = self._by_actor.get(actor, (at, 0))
        if at - began >= HOUR_US:
            began, count = at, 0
        if count >= REFUSALS_MAX:
            UNRECORDED.inc()
            return False
        self._by_actor[actor] = (began, count + 1)
        self._by_actor.move_to_end(actor)
        if len(self._by_actor) > ACTORS_MAX:
            self._by_actor.popitem(last=False)
        return True
