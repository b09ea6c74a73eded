"""Placement rules as a flag: `anti_affinity:web:host`, `spread:web:rack:1`, `partition:db:rack:2`."""

from typing import Any

import click

HELP = "affinity, anti_affinity, spread (N = max_skew) or partition (N = its number) over a set, at host, rack or dc."
NUMBERED = {"spread": "max_skew", "partition": "partition"}
TYPES = ("affinity", "anti_affinity", *NUMBERED)


def parse(text: str) -> dict[str, Any]:
    """The rule that a flag says.

    Raises:
        UsageError: it is none.
    """
    rule_type, _, rest = text.partition(":")
    given = rest.split(":")
    wanted = 3 if rule_type in NUMBERED else 2
    if rule_type not in TYPES or len(given) != wanted or not all(given):
        raise click.UsageError(
            f"--rule takes type:set:level, with a number behind for spread and partition, not {text!r}"
        )
    rule: dict[str, Any] = {"type": rule_type, "set": given[0], "level": given[1]}
    if rule_type in NUMBERED:
        if not given[2].isdigit():
            raise click.UsageError(f"--rule {text!r}: {given[2]!r} is no number")
        rule[NUMBERED[rule_type]] = int(given[2])
    return rule
