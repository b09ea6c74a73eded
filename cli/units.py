"""Amounts as people write and read them: `8GiB`, `1.5TiB`, `cpu=4`. Inside, whole numbers in the unit of the class."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from datetime import time as datetime_time
from fractions import Fraction
from typing import Any, NamedTuple

KNOWN_CLASSES = ("cpu", "memory_mib", "storage_gib", "gpu")
COUNTS = ("vms", "hosts", "clusters", "volumes", "ips")
MIB = {"mib": Fraction(1), "gib": Fraction(1024), "tib": Fraction(1024 * 1024)}
UNITS = ("MiB", "GiB", "TiB", "PiB")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
TIMES = "a time (2026-11-24T15:00:00Z, 2026-11-24, 22:00; UTC) or how long ago (90s, 10m, 1h, 2d)"
MOMENTS = f"a position, {TIMES}"
_AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_HOUR = re.compile(r"\d{2}:\d{2}(:\d{2})?")
AGO_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def amount(text: str, resource_class: str) -> int:
    """`text` as a whole number in the unit of its class: `8GiB` of `memory_mib` is 8192; a bare number stands as it is.

    Raises:
        ValueError: not a quantity, a unit that does not fit the class, or no whole number of it.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no amount; write a whole number" + _unit_hint(resource_class))
    number, unit = Fraction(match.group(1)), match.group(2).lower()
    value = number * _factor(unit, resource_class, text)
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of {resource_class}")
    return int(value)


def assignment(text: str) -> tuple[str, int]:
    """`class=amount`, as in `--resource nvme=2` and `--limit memory_mib=64GiB`."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"{text!r} is no class=amount; write it as nvme=2")
    return name, amount(value, name)


def duration_s(text: str) -> float:
    """`90`, `90s`, `2m`, `500ms`, `1h` in seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write it as 90s or 2m")
    return float(match.group(1)) * DURATION_S[match.group(2)]


def moment(text: str, *, now: datetime) -> str:
    """A position as it stands, or a time as `past` takes it.

    Raises:
        ValueError: it is none of them; says which there are.
    """
    given = text.strip()
    if given.isascii() and given.isdigit():
        return given
    try:
        return past(given, now=now)
    except ValueError:
        raise ValueError(f"{text!r} is no moment; write {MOMENTS}") from None


def past(text: str, *, now: datetime) -> str:
    """A time, a date, an hour (the last such) or how long ago, as the API's RFC 3339 in UTC.

    Raises:
        ValueError: it is none of them; says which there are.
    """
    given = text.strip()
    try:
        if ago := _AGO.fullmatch(given):
            return _rfc3339(now - timedelta(seconds=float(ago.group(1)) * AGO_S[ago.group(2)]))
        if _HOUR.fullmatch(given):
            at = datetime.combine(now.date(), datetime_time.fromisoformat(given), tzinfo=UTC)
            return _rfc3339(at if at <= now else at - timedelta(days=1))
        return time(given)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; write {TIMES}") from None


def time(text: str) -> str:
    """A time or a date, in UTC if it does not say otherwise, as the API's RFC 3339.

    Raises:
        ValueError: it is neither.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time; write 2026-11-24T15:00:00Z or 2026-11-24 (UTC)") from None
    return _rfc3339(at if at.tzinfo else at.replace(tzinfo=UTC))


def human(value: Any, resource_class: str) -> str:
    """An amount with the unit in which a person thinks of it; other values as they are."""
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, int) or isinstance(value, bool):
        return "–" if value is None else str(value)
    if resource_class.endswith("_mib"):
        return _with_unit(value, smallest=0)
    if resource_class.endswith("_gib"):
        return _with_unit(value, smallest=1)
    if resource_class.endswith("_milli"):
        return f"{value / 1000:g}"
    return f"{value:,}"


class Scale(NamedTuple):
    """The one unit of a column of amounts."""

    unit: str  # as it stands in the title; of cpu there is none
    size: int  # how many of the API's unit it is


def titles(classes: Iterable[str]) -> dict[str, str]:
    """Each class' title: as short as `title` says, but its own name where two would have the same."""
    short = {name: title(name) for name in classes}
    having = Counter(short.values())
    return {name: word if having[word] == 1 else name for name, word in short.items()}


def under_title(value: Any, resource_class: str, heading: str) -> str:
    """An amount below that title: under the class' own name in the unit that it names."""
    is_own = heading == resource_class and resource_class.endswith("_milli") and isinstance(value, int)
    return f"{value:,}" if is_own else human(value, resource_class)


def scale(resource_class: str, amounts: Iterable[int]) -> Scale:
    """The largest unit in which every amount has two digits, or is shown exactly with one decimal."""
    if resource_class.endswith("_milli"):
        return Scale("", 1000)
    if not resource_class.endswith(("_mib", "_gib")):
        return Scale("", 1)
    smallest = 0 if resource_class.endswith("_mib") else 1
    sizes = [Scale(unit, 1024**step) for step, unit in enumerate(UNITS[smallest:])]
    above_zero = {amount for amount in amounts if amount > 0}
    if not above_zero:
        return Scale("GiB", sizes[1 - smallest].size)
    fits = [s for s in sizes if all(amount >= 10 * s.size or amount * 10 % s.size == 0 for amount in above_zero)]
    return fits[-1]


def scaled(value: int, scale: Scale) -> str:
    """An amount in that unit: at most one decimal, two below 1."""
    if value % scale.size == 0:
        return str(value // scale.size)
    amount = value / scale.size
    if amount < 0.01:
        return "<0.01"
    return f"{amount:.{2 if amount < 1 else 1}f}".rstrip("0").rstrip(".")


def promised(capacity: dict[str, int], ratios: Mapping[str, float]) -> dict[str, int]:
    """Capacity × over-commit, rounded down; ratios have at most three decimals."""
    return {name: amount * round(1000 * ratios.get(name, 1)) // 1000 for name, amount in capacity.items()}


def title(resource_class: str) -> str:
    """A class as a column's title where amounts carry their unit: `memory_mib` → `memory`."""
    return re.sub(r"_(mib|gib|milli)$", "", resource_class)


def class_order(classes: set[str]) -> list[str]:
    """Classes in the order in which people expect them: the known, the operators' own, then the counts."""
    own = sorted(classes - set(KNOWN_CLASSES) - set(COUNTS))
    return [*(name for name in KNOWN_CLASSES if name in classes), *own, *(name for name in COUNTS if name in classes)]


def _factor(unit: str, resource_class: str, text: str) -> Fraction:
    if not unit:
        return Fraction(1)
    if unit in MIB and resource_class.endswith("_mib"):
        return MIB[unit]
    if unit in MIB and resource_class.endswith("_gib"):
        return MIB[unit] / 1024
    raise ValueError(f"{text!r}: {resource_class} has no unit {unit!r}" + _unit_hint(resource_class))


def _unit_hint(resource_class: str) -> str:
    if resource_class.endswith("_mib"):
        return ", or with a unit, as 8GiB (MiB without one)"
    if resource_class.endswith("_gib"):
        return ", or with a unit, as 2TiB (GiB without one)"
    return ""


def _with_unit(value: int, *, smallest: int) -> str:
    scaled, unit = float(value), smallest
    while scaled >= 1024 and unit < len(UNITS) - 1:
        scaled, unit = scaled / 1024, unit + 1
    digits = f"{scaled:.1f}".rstrip("0").rstrip(".")
    return f"{digits} {UNITS[unit]}"


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
