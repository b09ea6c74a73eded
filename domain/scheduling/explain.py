"""Why nothing fits: reasons with counts, the host that lacks least, and the largest request of that shape that would
fit. Exact: vectors find the few hosts that come into question, integers and fractions decide among them."""

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import NoCapacity
from domain.scheduling.table import HostTable, Mask
from domain.values import Resources, ordered

# Wider than what rounding a sum over all classes may lose, so that the exact best is never left out.
ROUNDING = 1e-12
FEW_COLUMNS = 32  # up to here a loop is faster than numpy's sort of columns, which takes 40 µs for one

Amounts = NDArray[np.int64]


def counted(reasons: dict[str, int]) -> list[dict[str, Any]]:
    return [{"reason": reason, "hosts": hosts} for reason, hosts in reasons.items()]


def no_capacity(
    table: HostTable, passing: Mask, *, group: str, resources: Resources, reasons: dict[str, int]
) -> NoCapacity:
    """The refusal; `passing` are the hosts that only the capacity dropped."""
    rows = table.host_classes.first_of_each(np.flatnonzero(passing))
    nearest: dict[str, Any] | None = None
    largest_fit: Resources | None = None
    if len(rows):
        classes = ordered(resources)
        asked = [resources[name] for name in classes]
        free = table.free(classes, rows)
        best, short = _nearest(free, asked)
        nearest = {
            "host": table.names[int(rows[best])],
            "short": {name: lack for name, lack in zip(classes, short, strict=True) if lack},
        }
        if fit := _largest_fit(free, asked):
            largest_fit = dict(zip(classes, fit, strict=True))
    return NoCapacity(
        group=group,
        requested=resources,
        considered=len(table.names),
        reasons=counted(reasons),
        nearest=nearest,
        largest_fit=largest_fit,
        alternatives=[],
    )


def scaled_down(asked: Resources, room: Resources) -> Resources | None:
    """The largest request of the shape of `asked` that fits into `room`, or None if nothing of it does."""
    fit = _largest_fit(np.array([[room.get(name, 0)] for name in asked], dtype=np.int64), list(asked.values()))
    return dict(zip(asked, fit, strict=True)) if fit else None


def _nearest(free: Amounts, asked: list[int]) -> tuple[int, list[int]]:
    """The first host that lacks least, as the sum of lack ÷ asked over the classes, and what it lacks of each."""
    amounts = np.array(asked, dtype=np.int64)[:, None]
    short = np.maximum(amounts - free, 0)
    lack = (short / amounts).sum(0)

    def exact(amounts_short: list[int]) -> Fraction:
        return sum((Fraction(a, b) for a, b in zip(amounts_short, asked, strict=True)), Fraction())

    lacks = _distinct(short, lack <= lack.min() * (1 + ROUNDING))
    column = lacks[0]
    if len(lacks) > 1:
        column = min(lacks, key=lambda column: (exact(short[:, column].tolist()), column))
    return column, short[:, column].tolist()


def _largest_fit(free: Amounts, asked: list[int]) -> list[int] | None:
    """Per host the class with the least free ÷ asked bounds all: floor(asked × free_k ÷ asked_k) of each class.

    What comes to 0 is told as 1: every class has something free there, so that fits too.
    """
    amounts = np.array(asked, dtype=np.int64)[:, None]
    part = (free / amounts).min(0)
    if part.max() <= 0:
        return None

    def exact(column: int) -> Fraction:
        return min(Fraction(a, b) for a, b in zip(free[:, column].tolist(), asked, strict=True))

    scale = max(exact(column) for column in _distinct(free, part >= part.max() * (1 - ROUNDING)))
    return [max(1, amount * scale.numerator // scale.denominator) for amount in asked]


def _distinct(amounts: Amounts, chosen: NDArray[np.bool_]) -> list[int]:
    """The first of each set of equal columns among those chosen, as many hosts may be alike."""
    columns = np.flatnonzero(chosen)
    if len(columns) <= FEW_COLUMNS:
        firsts: dict[tuple[int, ...], int] = {}
        for column, lines in zip(columns.tolist(), amounts[:, columns].T.tolist(), strict=True):
            firsts.setdefault(tuple(lines), column)
        return list(firsts.values())
    _, first = np.unique(amounts[:, columns], axis=1, return_index=True)
    return [int(column) for column in columns[first]]
