"""The read model's tables: living ones with a row a resource, their sums, the ledger of commands, and how far all have
come.

A read model is a cache: all of its tables are in one schema, whose name changes with the sources that define what is in
it. Tables are named without a schema: a connection finds its own by `search_path`, so that the past can have others.
"""

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, Index, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.schema import SchemaItem

from domain.entry import Entry
from projections import resources
from projections.field_types import Name, may_be_null
from projections.view import View
from projections.views import VIEWS
from projections.words import folded

_PACKAGES = Path(__file__).resolve().parent.parent
_SOURCES = [
    *sorted((_PACKAGES / "domain").rglob("*.py")),
    *sorted((_PACKAGES / "projections" / "kinds").glob("*.py")),
    _PACKAGES / "projections" / "amounts.py",
    _PACKAGES / "projections" / "broken.py",
    _PACKAGES / "projections" / "fields.py",
    _PACKAGES / "projections" / "field_types.py",
    _PACKAGES / "projections" / "resources.py",
    _PACKAGES / "projections" / "view.py",
    _PACKAGES / "projections" / "documents.py",
    _PACKAGES / "projections" / "rows.py",
    _PACKAGES / "projections" / "sums.py",
    _PACKAGES / "projections" / "tables.py",
    _PACKAGES / "projections" / "words.py",
]

SCHEMA_PREFIX = "read_"
_DEFINED_BY = [unicodedata.unidata_version.encode(), *(source.read_bytes() for source in _SOURCES)]
SCHEMA = SCHEMA_PREFIX + hashlib.sha256(b"\0".join(_DEFINED_BY)).hexdigest()[:16]
CHANNEL = "berth_projected"  # notified with `<schema> <position> <at>` at each commit

# Room on each page for the next versions of its rows: use changes with every claim, and touches no index then.
LIVELY_FILL, STILL_FILL = 70, 95

metadata = MetaData()

_json = msgspec.json.Encoder().encode


def _living(name: str, *columns: SchemaItem, is_lively: bool = False) -> Table:
    """Row = f(one aggregate's own state). `key` is the stream without its kind; `words` is what free text looks in.

    `document` is shown as it stands, in the order of its keys: so JSON, not JSONB.
    """
    return Table(
        name,
        metadata,
        Column("key", Name, primary_key=True),
        Column("state", Name, nullable=False),
        Column("external_id", Name),
        Column("words", Text, nullable=False),
        Column("labels", JSONB, nullable=False),
        Column("version", BigInteger, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("document", JSON, nullable=False),
        *columns,
        postgresql_with={"fillfactor": LIVELY_FILL if is_lively else STILL_FILL},
    )


def _of_view(view: View[Any]) -> Table:
    """`key` is the stream without its kind; `words` is what free text looks in.

    `document` is shown as it stands, in the order of its keys: so JSON, not JSONB.
    """
    return Table(
        view.table,
        metadata,
        Column("key", Name, primary_key=True),
        Column("words", Text, nullable=False),
        Column("labels", JSONB, nullable=False),
        Column("document", JSON, nullable=False),
        *(
            Column(field.name, field.column, nullable=may_be_null(field.schema), index=field.is_indexed or None)
            for field in view.fields
            if field.column is not None
        ),
        *(Column(one.name, one.type, nullable=one.may_be_null, index=one.is_indexed or None) for one in view.stored),
        *view.indexes,
        postgresql_with={"fillfactor": LIVELY_FILL if view.is_lively else STILL_FILL},
    )


def row_of(stream: str, entry: Entry) -> dict[str, Any]:
    """The living table's row by column, a function of the entry alone."""
    kind, _, key = stream.partition("/")
    return _ROWS[kind](key, entry)


def _row_of_view(view: View[Any]) -> Callable[[str, Entry], dict[str, Any]]:
    own = resources.own
    columns = (
        *((field.name, field.of_entry) for field in view.fields if field.column is not None),
        *((one.name, one.of) for one in view.stored),
    )
    prefix = view.kind.name + "/"

    def row(key: str, entry: Entry) -> dict[str, Any]:
        document = own(prefix + key, entry)
        said = (document["name"], document["display_name"], document["description"], document["external_id"])
        return {
            "key": key,
            "words": folded("\n".join([text for text in said if text])),
            "labels": _text(document["labels"]),
            "document": _text(document),
            **{name: of(key, entry) for name, of in columns},
        }

    return row


def _text(value: Any) -> str:
    return _json(value).decode()


_ROWS = {kind: _row_of_view(view) for kind, view in VIEWS.items()}

tenants = _living("tenants", Column("uid", Name, nullable=False), Column("parent", Name, index=True))

racks = _of_view(VIEWS["rack"])

groups = _living("groups", Column("region", Name), Column("overcommit", JSONB, nullable=False))

hosts = _living(
    "hosts",
    Column("group", Name, nullable=False, index=True),
    Column("rack", Name, index=True),
    Column("capacity", JSONB, nullable=False),
    Column("used", JSONB, nullable=False),
    Index("hosts_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
    is_lively=True,
)

quotas = _living(
    "quotas",
    Column("group", Name, nullable=False, index=True),
    Column("tenant", Name, nullable=False, index=True),
    Column("over", Boolean, nullable=False),
    Column("limits", JSONB, nullable=False),
    Column("used", JSONB, nullable=False),
    is_lively=True,
)

vms = _living(
    "vms",
    Column("tenant", Name, nullable=False, index=True),
    Column("name", Name, nullable=False),
    Column("group", Name, nullable=False),
    Column("host", Name),
    Column("sets", ARRAY(Name), nullable=False),
    Index("vms_by_name", "name", "key"),
    Index("vms_by_host", "host", "key"),  # in the order in which a host shows them
    is_lively=True,
)

# An ended operation keeps its row for ever, though it has left the fleet.
operations = _living(
    "operations",
    Column("owner", Name),
    Column("kind", Name, nullable=False),
    Column("target", Name, nullable=False, index=True),
    Index("operations_by_owner", "owner", "key"),
    is_lively=True,
)

# With revoked ones, which nobody is shown: who asks with one must be refused.
tokens = _living(
    "tokens",
    Column("role", Name, nullable=False),
    Column("tenant", Name),
    Column("hash", Name, nullable=False, index=True),
    Column("expires_at", BigInteger),
)

LIVING: dict[str, Table] = {
    "tenant": tenants,
    "rack": racks,
    "group": groups,
    "host": hosts,
    "quota": quotas,
    "vm": vms,
    "operation": operations,
    "token": tokens,
}

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
