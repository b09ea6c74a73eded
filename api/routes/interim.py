"""What the views will say of the kinds that have none yet, in the views' own words."""

from typing import Any

import msgspec

from api.auth import ADMIN, EVERYONE, VIEWER
from api.parameters import BOOLEAN, STRING, TIME
from api.schemas import RESOURCES
from domain.kind import Kind
from projections.fields import title_of
from projections.lists import sortable
from projections.views import VIEWS


class Field(msgspec.Struct, frozen=True):
    name: str
    schema: dict[str, Any]
    description: str = ""


class Filter(msgspec.Struct, frozen=True):
    name: str
    description: str
    schema: dict[str, Any]


class Shown(msgspec.Struct, frozen=True):
    kind: Kind[Any]
    filters: tuple[Filter, ...]
    columns: tuple[str, ...]
    wide: tuple[str, ...]
    short: tuple[str, ...] = ()
    amounts: tuple[str, ...] = ()
    yields: tuple[str, ...] = ("display_name",)
    failed_states: tuple[str, ...] = ("failed",)
    readers: frozenset[str] = VIEWER

    @property
    def title(self) -> str:
        return title_of(self.kind)

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(Field(*field) for field in RESOURCES[self.title]["properties"].items())

    def all_filters(self) -> tuple[Filter, ...]:
        return (
            *self.filters,
            Filter("owner", "Only those that belong to this tenant", STRING),
            Filter("external_id", "Only the one with this key of yours", STRING),
            Filter("updated_since", "Only those that changed at or after this time", TIME),
        )

    def sorts(self) -> tuple[str, ...]:
        return sortable(self.kind.name)[0]

    @property
    def amount_sorts(self) -> Any:
        return True if sortable(self.kind.name)[1] else None


def _by(*names: str) -> tuple[Filter, ...]:
    return tuple(Filter(name, f"Only those of this {name}", STRING) for name in names)


_SUBTREE = Filter("subtree", "Only those of this tenant and all below it", STRING)
_PLACE = _by("region", "dc", "room", "rack")
_TABLES: dict[str, dict[str, Any]] = {
    "tenant": {
        "short": ("t",),
        "filters": _by("parent"),
        "columns": ("name", "display_name", "parent", "state", "children"),
        "wide": ("path", "labels", "external_id", "version"),
        "yields": ("children", "display_name"),
    },
    "group": {
        "short": ("g",),
        "filters": _by("region"),
        "columns": ("name", "display_name", "region", "strategy", "hosts"),
        "wide": ("overcommit", "available", "labels", "version"),
        "amounts": ("used", "capacity"),
        "yields": ("region", "display_name", "strategy"),
    },
    "host": {
        "short": ("h",),
        "filters": (*_by("group"), *_PLACE),
        "columns": ("name", "display_name", "state", "group", "rack", "vms"),
        "wide": ("dc", "region", "room", "unit", "owner", "available", "labels", "external_id", "version"),
        "amounts": ("used", "capacity"),
        "yields": ("display_name", "vms", "rack"),
    },
    "quota": {
        "short": ("q",),
        "filters": (
            *_by("tenant"),
            _SUBTREE,
            *_by("group"),
            Filter("over", "Only those that are used above a limit (true), or not (false)", BOOLEAN),
        ),
        "columns": ("group", "tenant", "display_name", "over"),
        "wide": ("effective_available", "version"),
        "amounts": ("used", "limits"),
    },
    "vm": {
        "short": ("v",),
        "filters": (
            *_by("tenant"),
            _SUBTREE,
            *_by("host", "cluster", "pool", "set"),
            Filter(
                "rules_broken",
                "Only those of which a rule does not hold where they stand (true), or not (false)",
                BOOLEAN,
            ),
            *_by("group"),
            *_PLACE,
        ),
        "columns": ("name", "display_name", "state", "group", "host"),
        "wide": (
            "rack",
            "dc",
            "region",
            "image",
            "addresses",
            "operation",
            "reason",
            "rules_broken",
            "labels",
            "version",
        ),
        "amounts": ("resources",),
        "yields": ("display_name", "group"),
    },
    "operation": {
        "short": ("op", "ops"),
        "filters": (Filter("target", "Only on this stream", STRING), *_by("kind")),
        "columns": ("name", "kind", "target", "state", "percent", "started_at"),
        "wide": ("waiting_for", "ended_at", "message", "version"),
        "yields": ("percent", "started_at"),
        "failed_states": ("failed", "cancelled", "stuck"),
        "readers": EVERYONE,
    },
    "token": {
        "filters": _by("role", "tenant"),
        "columns": ("name", "display_name", "role", "tenant", "state", "created_at", "expires_at"),
        "wide": ("description", "version"),
        "yields": ("created_at", "display_name", "expires_at", "tenant"),
        "readers": ADMIN,
    },
}


def view_of(kind: Kind[Any]) -> Any:
    return VIEWS.get(kind.name) or Shown(kind, **_TABLES[kind.name])
