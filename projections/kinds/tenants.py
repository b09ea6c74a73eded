"""Tenants, as they are shown: with their path from the root, and what is right below them."""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from domain.fleet import Fleet
from domain.tenant import KIND, Tenant
from projections.field_types import BOOLEAN, MAYBE, STRINGS, Name
from projections.fields import Scope, common, joined, own, stored
from projections.inner_lists import READ_MAX, cut
from projections.members import with_members
from projections.view import Bearer, Document, Others, View

T = TypeVar("T")

_PATH = """
(
    WITH RECURSIVE up AS (
        SELECT own.key, own.state, own.parent, 0 AS depth FROM tenants own WHERE own.key = tenants.key
        UNION ALL
        SELECT above.key, above.state, above.parent, depth + 1 FROM up JOIN tenants above ON above.key = up.parent
    )
    SELECT json_agg(json_build_array(key, state) ORDER BY depth DESC) FROM up
)
"""
_CHILDREN = f"""
array_to_json(
    ARRAY(SELECT child.key FROM tenants child WHERE child.parent = tenants.key ORDER BY 1 LIMIT {READ_MAX})
)
"""


class Facts(NamedTuple, Generic[T]):
    path: T
    children: T


_json = msgspec.json.Encoder().encode
_document = msgspec.json.Decoder(Document).decode
_path = msgspec.json.Decoder(list[tuple[str, str]]).decode
_names = msgspec.json.Decoder(list[str]).decode


def _members(*, path: list[tuple[str, str]], children: list[str]) -> Document:
    """`path` are names and states, root first, and ends with the tenant.

    It is suspended with any tenant above it; by whom, the nearest says.
    """
    by = next((name for name, state in reversed(path) if state == "suspended"), None)
    shown = {"suspended": by is not None, "suspended_by": by, "path": [name for name, _ in path]}
    return cut({**shown, "children": children}, "children")


def _from_row(document: bytes, facts: Facts[bytes | None], scope: str | None) -> bytes:
    members = _members(path=_path(facts.path or b""), children=_names(facts.children or b""))
    if scope is None:
        return with_members(document, members)
    own = _document(document)
    if own["name"] == scope:
        own["parent"] = own["owner"] = None
    path = members["path"][members["path"].index(scope) :]
    by = members["suspended_by"]
    return _json(own | members | {"path": path, "suspended_by": by if by in path else None})


def _from_fleet(fleet: Fleet, tenant: Tenant, document: Document) -> Document:
    names = fleet.chain(tenant.parent) if tenant.parent is not None else []
    above = [found for name in reversed(names) if (found := fleet.get(KIND, name)) is not None]
    path = [(one.name, one.state) for one in (*above, tenant)]
    return document | _members(path=path, children=[child.name for child in fleet.each(KIND, parent=tenant.name)])


def redacted(scope: Scope, document: Mapping[str, Any], at: int | None) -> Document:
    """The document, or an event's data: the scope's own tenant has nothing above it; `path` begins with it."""
    shown = dict(document)
    for field in ("parent", "owner", "suspended_by"):
        if field in shown and not scope.has_tenant(shown[field], at):
            shown[field] = None
    for field in ("path", "children"):  # of the past, they may name what is not below it today
        if field in shown:
            shown[field] = [name for name in shown[field] if scope.has_tenant(name, at)]
    return shown


def _is_in_scope(scope: Scope, bearer: Bearer) -> bool:
    return scope.has_tenant(bearer.name, bearer.at)


VIEW: View[Tenant] = View(
    kind=KIND,
    fields=(
        *common(KIND, owner="tenants.parent"),
        own("parent", MAYBE, column=Name, is_indexed=True, filters=True, sorts=True, is_above=True),
        joined("suspended", BOOLEAN),
        joined("suspended_by", MAYBE),
        joined("path", STRINGS),
        joined("children", STRINGS),
        joined("children_truncated", BOOLEAN, is_optional=True),
    ),
    stored=(stored("uid", Name),),
    others=Others(facts=Facts(path=_PATH, children=_CHILDREN), from_row=_from_row, from_fleet=_from_fleet),
    in_scope="tenants.key IN (SELECT key FROM scope)",
    is_in_scope=_is_in_scope,
    redacted=redacted,
    short=("t",),
    columns=("name", "display_name", "parent", "state", "children"),
    wide=("path", "labels", "external_id", "version"),
    yields=("children", "display_name"),
)
