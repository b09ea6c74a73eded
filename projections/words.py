"""Free text as `q` compares it: by NFKC and case folding, so that ＡＢＣ is abc and STRASSE is straße.

Both sides are folded here, in Python: what is stored when it is projected, what is looked for when it is asked. The
database only looks for one text in another, and so can't fold otherwise.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any
from unicodedata import combining, normalize

import msgspec

MARKS_MAX = 30
MARKS_FROM, MARKS_UNTIL = 0x300, 0x1F000
_JOINER = "\u034f"
_JSON_SIGNS = frozenset('"{}[]:,')

_encode = msgspec.json.Encoder().encode


def folded(text: str) -> str:
    """The compatibility caseless form of the Unicode standard (D146), composed; for ASCII that is lower case."""
    if text.isascii():
        return text.lower()
    text = _marks_in_a_row().sub(lambda run: run[0] + _JOINER, text)
    # Twice, as each of the two may give what the other has not seen yet.
    once = normalize("NFKD", normalize("NFD", text).casefold())
    return normalize("NFKC", once.casefold())


@cache
def _marks_in_a_row() -> re.Pattern[str]:
    """Normalising sorts the marks on a letter by insertion: 40,000 in a row take 15 s. So a joiner cuts long rows, as
    Unicode's stream-safe format has it (UAX #15); no language has that many."""
    marks = (chr(code) for code in range(MARKS_FROM, MARKS_UNTIL) if is_mark(chr(code)))
    return re.compile(f"[{''.join(marks)}]{{{MARKS_MAX}}}")


def is_mark(character: str) -> bool:
    """Whether it is sorted among marks, once it is decomposed."""
    return combining(normalize("NFKD", character)[0]) != 0


def is_in(words: str, document: Any) -> bool:
    """Do folded words stand in any one value (or field's name) of a JSON document?"""
    encoded = _encode(document)
    if encoded.isascii() and b"\\" not in encoded and _JSON_SIGNS.isdisjoint(words):
        # The same, 9 × faster: nothing is escaped there, and no sign of JSON's own is looked for.
        return words in encoded.decode().lower()
    return any(words in folded(text) for text in _texts(document))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield name
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case _:
            yield _encode(value).decode()
