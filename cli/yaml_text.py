"""A value as YAML. PyYAML's own emitter takes five seconds for a list of some thousand hosts, this a tenth of that.

Only what values from JSON need: block mappings and lists, and a string is plain if it cannot be taken for anything
else, or double-quoted, with its unprintable characters as escapes: the data is exact, and safe on a terminal.
"""

import json
import re
from functools import lru_cache
from typing import Any

from cli import terminal

_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@-]*[A-Za-z0-9_/])?")
_TAKEN = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})  # for something else, in any case


def text(value: Any) -> str:
    lines: list[str] = []
    _block(value, "", lines)
    return "\n".join(lines) + "\n"


def _block(value: Any, pad: str, lines: list[str]) -> None:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            if entry and isinstance(entry, dict | list):
                lines.append(f"{pad}{_string(str(name))}:")
                _block(entry, pad if isinstance(entry, list) else pad + "  ", lines)
            else:
                lines.append(f"{pad}{_string(str(name))}: {_scalar(entry)}")
    elif isinstance(value, list) and value:
        inner = pad + "  "
        for entry in value:
            first = len(lines)
            _block(entry, inner, lines)
            lines[first] = f"{pad}- {lines[first][len(inner) :]}"
    else:
        lines.append(pad + _scalar(value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return str(value)  # a whole number, {} or []


def _float(value: float) -> str:
    """YAML's floats have a point, in front of an exponent too."""
    shown = repr(value)
    if shown.strip("-") in ("inf", "nan"):
        return shown.replace("inf", ".inf").replace("nan", ".nan")
    mantissa, sign, exponent = shown.partition("e")
    return f"{mantissa}.0{sign}{exponent}" if sign and "." not in mantissa else shown


@lru_cache(maxsize=8192)
def _string(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    return terminal.escaped(json.dumps(value, ensure_ascii=False))
