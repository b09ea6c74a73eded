"""The read model's tables: living ones with a row a resource, their sums, the ledger of commands, and how far all have
come.

A read model is a cache: all of its tables are in one schema, whose name changes with what defines them
(`definitions.py`). Tables are named without a schema: a connection finds its own by `search_path`, so that the past can
have others.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from projections.field_types import Name, may_be_null
from projections.view import View
from projections.views import VIEWS

CHANNEL = "berth_projected"  # notified with `<schema> <position> <at>` at each commit

# Room on each page for the next versions of its rows: use changes with every claim, and touches no index then.
LIVELY_FILL, STILL_FILL = 70, 95

metadata = MetaData()


def _living(view: View[Any]) -> Table:
    """Row = f(one aggregate's own state). `key` is the stream without its kind; `words` is what free text looks in.

    `document` is shown as it stands, in the order of its keys: so JSON, not JSONB.
    """
    of_fields = ((field.name, field.column, may_be_null(field.schema), field.is_indexed) for field in view.fields)
    others = ((one.name, one.type, one.may_be_null, one.is_indexed) for one in view.stored)
    return Table(
        view.table,
        metadata,
        Column("key", Name, primary_key=True),
        Column("words", Text, nullable=False),
        Column("labels", JSONB, nullable=False),
        Column("document", JSON, nullable=False),
        *(
            Column(name, type, nullable=is_nullable, index=is_indexed or None)
            for name, type, is_nullable, is_indexed in (*of_fields, *others)
            if type is not None
        ),
        *view.indexes,
        postgresql_with={"fillfactor": LIVELY_FILL if view.is_lively else STILL_FILL},
    )


# By kind. An ended operation keeps its row for ever, though it has left the fleet.
LIVING: dict[str, Table] = {name: _living(view) for name, view in VIEWS.items()}

# A row a cell of `sums.py`: what the hosts of a group have, in a rack or in a dc. `usable` is capacity × over-commit,
# `document` a row of capacity but for its name.
sums = Table(
    "sums",
    metadata,
    Column("key", Name, primary_key=True),
    Column("level", Name, nullable=False),
    Column("group", Name, nullable=False),
    Column("region", Name),
    Column("dc", Name),
    Column("rack", Name, index=True),
    Column("usable", JSON, nullable=False),
    Column("document", JSON, nullable=False),
    Index("sums_by_group", "group", "level"),
    postgresql_with={"fillfactor": LIVELY_FILL},
)

# A row a VM of which a rule does not hold where it stands, as a rule none. `document` is a list.
broken_rules = Table(
    "broken_rules", metadata, Column("key", Name, primary_key=True), Column("document", JSON, nullable=False)
)

# All tables whose rows come and go, by what `changes.py` calls them.
CHANGING: dict[str, Table] = {**LIVING, "sums": sums, "broken_rules": broken_rules}

# One row a command, refused ones too; only ever added to. `owner` is the uid of the tenant that the command was about:
# who bears its name later is another. `reason` is folded, as free text looks in it.
audit = Table(
    "audit",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False, index=True),
    Column("id", Name, nullable=False, index=True),
    Column("actor", Name, nullable=False),
    Column("resource", Name),
    Column("command", Name, nullable=False),
    Column("outcome", Name, nullable=False),
    Column("owner", Name),
    Column("reason", Text),
    Column("document", JSON, nullable=False),
    Index("audit_by_actor", "actor", "position"),
    Index("audit_by_resource", "resource", "position"),
    Index("audit_by_command", "command", "position"),
)

# One row. `is_complete`: it has caught up with the log once, so that what it lacks is younger than itself.
progress = Table(
    "progress",
    metadata,
    Column("log", Name, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("is_complete", Boolean, nullable=False),
)
