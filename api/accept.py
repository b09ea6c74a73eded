"""Which form of an answer a client prefers (RFC 9110, 12.5.1)."""

from collections.abc import Iterable, Sequence

from api.reply import CSV, JSON

TABLE = CSV.partition(b";")[0]


def is_table(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a list is wanted as CSV."""
    given = [header for header in headers if header[0] == b"accept" and header[1] not in (b"*/*", JSON)]
    return bool(given) and prefers(headers, (JSON, TABLE)) == TABLE


def prefers(headers: Iterable[tuple[bytes, bytes]], offered: Sequence[bytes]) -> bytes:
    """The offered media type of the highest quality. Of equals, the one that is named more exactly; then the first.

    If none is acceptable, the first: an answer in another form is worth more than none.
    """
    ranges = [_range(part) for name, value in headers if name == b"accept" for part in value.split(b",")]
    if not ranges:
        return offered[0]
    rated = [(_rating(media, ranges), -n, media) for n, media in enumerate(offered)]
    (quality, _), _, best = max(rated)
    return best if quality > 0 else offered[0]


def _range(part: bytes) -> tuple[bytes, float]:
    media, *parameters = (piece.strip().lower() for piece in part.split(b";"))
    quality = next((piece[2:].strip() for piece in parameters if piece.startswith(b"q=")), b"1")
    try:
        return media, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media, 1.0


def _rating(media: bytes, ranges: Sequence[tuple[bytes, float]]) -> tuple[float, int]:
    """Its quality, by the most exact of the ranges that it is in, and how exact that is."""
    forms = (b"*/*", media.partition(b"/")[0] + b"/*", media)
    found = [(forms.index(given), quality) for given, quality in ranges if given in forms]
    exactness, quality = max(found, default=(-1, 0.0))
    return quality, exactness
