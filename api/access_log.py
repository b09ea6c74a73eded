"""The access log: a line for each request, but of those that nobody known sent, or that were turned away, a line a
second."""

import asyncio
from collections import Counter

import structlog

TURNED_AWAY = frozenset({401, 429})
TOLD_EVERY_S = 1.0

log = structlog.get_logger()


class AccessLog:
    """Belongs to one event loop. Whoever turns up without a token, or with too many requests, costs no disk, and pushes
    nothing older out of a log that rotates: the first of a second is told as any other request, the rest in one line
    when the second is over. Each status counts for itself."""

    def __init__(self) -> None:
        # Bind once: structlog's lazy proxy would otherwise resolve the logger on every call.
        self._log = log.bind()
        self._untold: Counter[int] = Counter()
        self._counting: set[int] = set()

    def note(
        self, *, method: str, route: str, status: int, seconds: float, command: str | None, actor: str | None
    ) -> None:
        if (actor is None or status in TURNED_AWAY) and self._is_one_of_many(status):
            return
        self._log.info(
            "request answered",
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            command=command,
            actor=actor,
        )

    def _is_one_of_many(self, status: int) -> bool:
        if status in self._counting:
            self._untold[status] += 1
            return True
        self._counting.add(status)
        asyncio.get_running_loop().call_later(TOLD_EVERY_S, self._tell, status)
        return False

    def _tell(self, status: int) -> None:
        self._counting.discard(status)
        if more := self._untold.pop(status, 0):
            event = "requests turned away" if status in TURNED_AWAY else "requests without a token answered"
            self._log.warning(event, status=status, more=more, within_s=TOLD_EVERY_S)
