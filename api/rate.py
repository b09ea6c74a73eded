"""How many requests a token may send: a bucket each, which fills at the rate and holds a second's worth.

Each API process counts for itself. Without a rate, nothing is counted.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from api.problems import RateLimited

BUCKETS_MAX = 10_000  # those used longest ago are forgotten, which fills them


class RateLimit:
    """Requests per second and token, with bursts of a second's worth (of one at least)."""

    def __init__(self, per_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # token → what was left, and when

    def take(self, token: str) -> None:
        """Let one request through.

        Raises:
            RateLimited: its bucket is empty.
        """
        if self._per_s == 0:
            return
        now = self._now()
        left, at = self._buckets.pop(token, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_s)
        is_let_through = left >= 1.0
        self._buckets[token] = (left - 1.0 if is_let_through else left), now
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        if not is_let_through:
            raise RateLimited(self._per_s, (1.0 - left) / self._per_s)
