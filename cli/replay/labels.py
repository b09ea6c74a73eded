"""Names as the API takes them (RFC 1123 labels), from what a trace calls things."""

import re

LENGTH_MAX = 63


def label(text: str, *, length_max: int = LENGTH_MAX) -> str:
    """`text` as a label: lower case, hyphens for what is not allowed."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:length_max].strip("-") or "x"


class Labels:
    """Gives each thing a label of its own, the same one each time; two things never share one."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._given: dict[tuple[str, ...], str] = {}
        self._taken: set[str] = set()

    def of(self, *thing: str) -> str:
        """The label of a thing, named by its last part if that is free, else by all of them, else numbered."""
        if thing in self._given:
            return self._given[thing]
        wanted = [label(self._prefix + thing[-1]), label(self._prefix + "-".join(thing))]
        number = 1
        while wanted[0] in self._taken:
            wanted = wanted[1:] or [f"{label(self._prefix + thing[-1], length_max=LENGTH_MAX - 8)}-{number}"]
            number += 1
        self._given[thing] = wanted[0]
        self._taken.add(wanted[0])
        return wanted[0]
