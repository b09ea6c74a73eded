"""Which hosts of a table changed, so that what is kept about them looks only at those."""

CHANGES_MAX = 16_384


class RowChanges:
    """The rows of a table that changed, oldest first, of which each reader remembers how far it has read."""

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._forgotten = 0  # how many older ones were dropped

    def add(self, row: int) -> None:
        self._rows.append(row)
        if len(self._rows) >= CHANGES_MAX:
            del self._rows[: CHANGES_MAX // 2]
            self._forgotten += CHANGES_MAX // 2

    @property
    def end(self) -> int:
        """How many changes there have been: what a reader that has read all of them remembers."""
        return self._forgotten + len(self._rows)

    def since(self, read: int) -> list[int] | None:
        """The rows that changed since `end` was `read`, each once; None if some of them are forgotten."""
        if read < self._forgotten:
            return None
        return list(dict.fromkeys(self._rows[read - self._forgotten :]))
