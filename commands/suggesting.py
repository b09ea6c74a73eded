"""The name that was probably meant, at a price that does not grow with the fleet: few names are compared with all of
them; of many, those that one slip of a finger may have become are looked up."""

from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from heapq import nlargest
from itertools import islice

ALIKE = 0.7  # from here on, of 1
COMPARED_MAX = 40  # names; some 5 µs each by their letters
CLOSELY_COMPARED_MAX = 3  # of those; some 50 µs each
TRIES_MAX = 1_500  # look-ups; some 0.2 µs each. Enough for one slip anywhere in a name of 20 characters
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_"
LONGEST = 130  # what is longer is no name


def nearest(name: str, *, known: Iterable[str], exists: Callable[[str], bool]) -> str | None:
    """The name among `known` that is most like `name`; None if none is. `exists` tells whether one is known."""
    if len(name) > LONGEST:
        return None
    first = list(islice(known, COMPARED_MAX + 1))
    if len(first) <= COMPARED_MAX:
        return _most_alike(name, sorted(first))
    return next(filter(exists, islice(_slips(name), TRIES_MAX)), None)


def _most_alike(name: str, known: list[str]) -> str | None:
    """As difflib.get_close_matches, which compares closely whatever has the same letters."""
    matcher = SequenceMatcher(None, b=name)

    def has_letters(other: str) -> float:
        matcher.set_seq1(other)
        return matcher.quick_ratio()

    def is_alike(other: str) -> float:
        matcher.set_seq1(other)
        return matcher.ratio()

    best = max(nlargest(CLOSELY_COMPARED_MAX, known, key=has_letters), key=is_alike, default=None)
    return best if best is not None and is_alike(best) >= ALIKE else None


def _slips(name: str) -> Iterator[str]:
    """All names at one slip from this one: the cheap kinds first, and from the end, where numbers are."""
    cuts = [(name[:at], name[at:]) for at in range(len(name), -1, -1)]
    yield from (head[:-1] + tail[0] + head[-1] + tail[1:] for head, tail in cuts if head and tail)
    yield from (head + tail[1:] for head, tail in cuts if tail)
    for head, tail in cuts:
        for character in CHARACTERS:
            yield head + character + tail
            if tail:
                yield head + character + tail[1:]
