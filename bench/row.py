"""One line of the table."""

import msgspec


class Row(msgspec.Struct, frozen=True):
    """`baseline` was measured in the same run, in the same unit; `ratio` is figure ÷ baseline."""

    name: str
    figure: float
    unit: str
    target: str
    reached: bool
    baseline: float | None = None
    ratio: float | None = None
