"""Which characters words may hold. Much is shown raw somewhere (a terminal, a page, a log): what would move its cursor,
break its line or turn its letters round is refused before it is kept for ever."""

import re
from collections.abc import Iterable

# Unicode's Bidi_Control: it shows a text as another one.
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_NOT_IN_PROSE = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_BIDI}]")
_NOT_IN_A_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_BIDI}]")


def without_nul(text: str) -> str:
    """For what machines tell, who print what they like. PostgreSQL keeps no NUL."""
    if "\0" in text:
        raise ValueError("a NUL character is not allowed")
    return text


def prose(text: str) -> str:
    """Lines and tabs are allowed."""
    return _without(_NOT_IN_PROSE, text)


def one_line(text: str) -> str:
    return _without(_NOT_IN_A_LINE, text)


def printable(text: str) -> str:
    """No invisible character either: two keys that look alike would be two."""
    if not text.isprintable():
        raise ValueError(f"{_first(c for c in text if not c.isprintable())} is not allowed: it is not printable")
    return text


def shown(text: str) -> str:
    """With the code of each character that would be refused of people, in its place."""
    return _NOT_IN_PROSE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _without(refused: re.Pattern[str], text: str) -> str:
    if found := refused.search(text):
        raise ValueError(f"{_first(found[0])} is not allowed: no control characters, and none that reverse text")
    return text


def _first(characters: Iterable[str]) -> str:
    return f"U+{ord(next(iter(characters))):04X}"
