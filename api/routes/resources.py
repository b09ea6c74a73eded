"""Every kind's routes: its list and one of it from its view, and what may be done to it from its commands."""

from collections.abc import Iterator
from typing import Any

from api.auth import ADMIN, EVERYONE, VIEWER
from api.commanding import command
from api.endpoint import Endpoint
from api.parameters import BOOLEAN, Parameter, filter_by, flag
from api.reading import PLACE_FILTERS, SUBTREE, listing, single
from commands.catalogue import handlers_of
from domain.kind import Kind
from domain.kinds import KINDS

OVER = Parameter("over", "Only those that are used above a limit (true), or not (false)", flag, BOOLEAN)
RULES_BROKEN = Parameter(
    "rules_broken", "Only those of which a rule does not hold where they stand (true), or not (false)", flag, BOOLEAN
)
FILTERS: dict[str, tuple[Parameter, ...]] = {
    "tenant": (filter_by("parent"),),
    "rack": (filter_by("region"), filter_by("dc"), filter_by("room")),
    "group": (filter_by("region"),),
    "host": (filter_by("group"), *PLACE_FILTERS),
    "quota": (filter_by("tenant"), SUBTREE, filter_by("group"), OVER),
    "vm": (
        filter_by("tenant"),
        SUBTREE,
        filter_by("host"),
        filter_by("cluster"),
        filter_by("pool"),
        filter_by("set"),
        RULES_BROKEN,
        filter_by("group"),
        *PLACE_FILTERS,
    ),
    "operation": (filter_by("target", "Only on this stream"), filter_by("kind")),
    "token": (filter_by("role"), filter_by("tenant")),
}
READERS = {"operation": EVERYONE, "token": ADMIN}


def routes_of(kind: Kind[Any]) -> Iterator[Endpoint]:
    filters, readers = FILTERS[kind.name], READERS.get(kind.name, VIEWER)
    yield listing(kind, kind.list_path, filters=filters, roles=readers)
    within, _, _ = kind.path.rpartition("/")
    if not within.startswith(kind.list_path):  # one is read below another: there they are listed, too
        above = kind.named_by[-2]
        rest = tuple(parameter for parameter in filters if parameter.name != above)
        yield listing(kind, within, filters=rest, roles=readers, within=above)
    yield single(kind, roles=readers)
    for model in handlers_of(kind):
        if model.route is not None:
            yield command(model, model.route)


# Workloads first: routes are tried in order, and theirs are those that must be fast.
ENDPOINTS = tuple(
    endpoint for kind in sorted(KINDS, key=lambda kind: not kind.is_workload) for endpoint in routes_of(kind)
)
