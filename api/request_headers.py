"""A request's headers by their names, where some came more than once."""

from collections.abc import Iterable

from api.problems import RepeatedHeader

# Those that say one thing. All others are lists, or nothing here reads them.
SINGLE = {
    name.lower().encode(): name
    for name in (
        "Authorization",
        "Berth-Reason",
        "Content-Type",
        "Host",
        "Idempotency-Key",
        "If-Match",
        "If-None-Match",
        "Last-Event-ID",
    )
}


def combined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Lists that came in several lines as one, as RFC 9110 (5.3) has it.

    Raises:
        RepeatedHeader: one that has a single value came more than once.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in found:
            found[name] = value
        elif name in SINGLE:
            raise RepeatedHeader([{"field": f"header:{SINGLE[name]}", "message": "is given twice"}])
        else:
            found[name] += b", " + value
    return found
