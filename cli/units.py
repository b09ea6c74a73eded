"""Amounts as people write and read them: `8GiB`, `1.5TiB`, `cpu=4`. Inside, whole numbers in the unit of the class."""

import re
from fractions import Fraction
from typing import Any

KNOWN_CLASSES = ("cpu", "memory_mib", "storage_gib", "gpu")
COUNTS = ("vms", "hosts", "clusters", "volumes", "ips")
MIB = {"mib": Fraction(1), "gib": Fraction(1024), "tib": Fraction(1024 * 1024)}
UNITS = ("MiB", "GiB", "TiB", "PiB")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
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


def human(value: Any, resource_class: str) -> str:
    """An amount with the unit in which a person thinks of it; other values as they are."""
    if not isinstance(value, int) or isinstance(value, bool):
        return "–" if value is None else str(value)
    if resource_class.endswith("_mib"):
        return _scaled(value, smallest=0)
    if resource_class.endswith("_gib"):
        return _scaled(value, smallest=1)
    if resource_class.endswith("_milli"):
        return f"{value / 1000:g}"
    return f"{value:,}"


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


def _scaled(value: int, *, smallest: int) -> str:
    scaled, unit = float(value), smallest
    while scaled >= 1024 and unit < len(UNITS) - 1:
        scaled, unit = scaled / 1024, unit + 1
    digits = f"{scaled:.1f}".rstrip("0").rstrip(".")
    return f"{digits} {UNITS[unit]}"
