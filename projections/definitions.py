"""What defines each table of the read model, and so the name of the schema that holds all of them.

A living table's row is a function of one resource's own entry: it is defined by how the kind's events evolve its state
and by what its view says of rows. What a view says of lists, of joins and of terminals changes no row, and so does
another kind.
"""

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

from domain.kind import Kind
from domain.kinds import KINDS
from eventlog.definition import ROOT, definition

SCHEMA_PREFIX = "read_"

# What a view, a field or a kind says that is in no row.
BESIDE_THE_ROW = (
    *("amount_sorts", "amounts", "columns", "definitions", "description", "facts", "failed_states", "filter_as"),
    *("filter_sql", "filters", "from_fleet", "from_row", "in_scope", "is_above", "is_hidden", "is_in_scope"),
    *(
        "is_optional",
        "is_total",
        "joined",
        "others",
        "over",
        "path",
        "plural",
        "readers",
        "rebinds",
        "redacted",
        "refs",
    ),
    *("short", "sorts", "source", "sql", "sql_in_scope", "states", "stays_with", "wide", "yields"),
)
# All kinds and views together, where a kind finds its own; and the fleet, of which no row is made.
_NOT_FOLLOWED = ("domain.fleet:Fleet", "domain.kinds:KINDS", "projections.views:VIEWS")


def of_tables(root: Path = ROOT) -> dict[str, str]:
    """By kind, and by the other tables' names."""
    beside = {
        "sums": ("projections.sums:Sums", "projections.tables:sums"),
        "broken_rules": ("projections.broken:Broken", "projections.tables:broken_rules"),
        "audit": ("projections.ledger:audit_row", "projections.tables:audit"),
        "progress": ("projections.tables:progress",),
    }
    return {
        **{kind.name: _of_kind(kind, root) for kind in KINDS},
        **{name: definition(*roots, not_followed=_NOT_FOLLOWED, root=root) for name, roots in beside.items()},
    }


def _of_kind(kind: Kind[Any], root: Path) -> str:
    return definition(
        f"{_file(kind)}:KIND",
        f"projections.kinds.{kind.module}:VIEW",
        "projections.tables:_living",
        "projections.rows:row",
        left_out=BESIDE_THE_ROW,
        not_followed=(*_NOT_FOLLOWED, *(f"{_file(other)}:KIND" for other in KINDS if other is not kind)),
        root=root,
    )


def _file(kind: Kind[Any]) -> str:
    return str(kind.state.__module__)


# Words are folded as this version of Unicode says.
DEFINITIONS = {name: f"{found}/{unicodedata.unidata_version}" for name, found in of_tables().items()}
SCHEMA = SCHEMA_PREFIX + hashlib.sha256(repr(sorted(DEFINITIONS.items())).encode()).hexdigest()[:16]
