"""The small values that every aggregate speaks in: resources, names, stream ids, times, and the words of people."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import msgspec

# Resource class → amount. Never changed in place: a changed amount is a new dict. A plain dict, because the log's path
# encodes and decodes some hundred thousand of them a second.
Resources = dict[str, int]

# Thousandths by class; a class without one has 1000. Integers, so that floor(capacity × over-commit) is exact anywhere.
Overcommit = dict[str, int]

# Counts are reserved keys of a quota's `limits` and `used`, beside the resource classes.
COUNTS = ("vms", "hosts", "clusters", "volumes", "ips")

# The order in which classes are checked, scored and shown: these first, an operator's own by name.
FIRST_CLASSES = ("cpu", "memory_mib", "storage_gib", "gpu")

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
AMOUNT_MAX = 2**53 - 1  # exact in JSON numbers everywhere, and sums of a thousand hosts stay below 2^63

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class About(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What people say about a resource; never read by a decision, but for labels and the protection from destructive
    verbs."""

    display_name: str | None = None
    external_id: str | None = None
    description: str | None = None
    labels: dict[str, str] = {}
    protected: bool = False


NOTHING_SAID = About()  # one for all of whom nothing is said


class Bmc(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to reach a host's management controller; `credential` is a reference into a secret store, never a secret.
    `system` tells the hosts of one controller apart, as in a chassis."""

    address: str
    protocol: str | None = None
    credential: str | None = None
    system: str | None = None


def plus(a: Resources, b: Resources) -> Resources:
    total = dict(a)
    for name, amount in b.items():
        total[name] = total.get(name, 0) + amount
    return total


def minus(a: Resources, b: Resources) -> Resources:
    """a − b; classes that come to 0 leave the mapping, so that what was given back leaves no trace."""
    rest = dict(a)
    for name, amount in b.items():
        left = rest.get(name, 0) - amount
        if left:
            rest[name] = left
        else:
            rest.pop(name, None)
    return rest


def larger(a: Resources, b: Resources) -> Resources:
    """The larger amount per class."""
    return {name: max(a.get(name, 0), b.get(name, 0)) for name in ordered(a.keys() | b.keys())}


def excess(a: Resources, b: Resources) -> Resources:
    """What `a` has more than `b`, per class; classes where it has not are absent."""
    return {name: amount - b.get(name, 0) for name, amount in a.items() if amount > b.get(name, 0)}


def ordered(classes: "set[str] | frozenset[str] | Resources") -> list[str]:
    """Classes in the order in which they are checked and shown."""
    rest = sorted(name for name in classes if name not in FIRST_CLASSES)
    return [name for name in FIRST_CLASSES if name in classes] + rest


def usable(capacity: Resources, overcommit: Overcommit) -> Resources:
    """floor(capacity × over-commit) per class."""
    if not overcommit:
        return capacity
    return {name: amount * overcommit.get(name, 1000) // 1000 for name, amount in capacity.items()}


def available(capacity: Resources, overcommit: Overcommit, used: Resources) -> Resources:
    """floor(capacity × over-commit) − used per class of `capacity`, at least 0."""
    return {name: max(0, amount - used.get(name, 0)) for name, amount in usable(capacity, overcommit).items()}


def ratios(overcommit: Overcommit) -> dict[str, float]:
    """Thousandths as the ratios that people write; exact to 3 decimals."""
    return {name: thousandths / 1000 for name, thousandths in overcommit.items()}


def kind_of(stream: str) -> str:
    return stream.partition("/")[0]


def name_of(stream: str) -> str:
    return stream.partition("/")[2]


def command_stream(actor: str, key: str) -> str:
    return f"command/{actor}/{key}"


def to_rfc3339(at: int) -> str:
    """Microseconds since 1970 (UTC) as `2026-11-24T15:39:28.123456Z`."""
    seconds, microseconds = divmod(at, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    # Most times that are shown together are of few seconds: 4 × faster.
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def from_rfc3339(text: str) -> int:
    """The inverse; also takes any offset, and at most microseconds.

    Raises:
        ValueError: not an RFC 3339 time, or without an offset.
    """
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time needs an offset, for example 2026-11-24T15:00:00Z")
    return (at - EPOCH) // timedelta(microseconds=1)
