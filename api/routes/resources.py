"""Every kind's routes: its list and one of it from its view, and what may be done to it from its commands."""

from collections.abc import Iterator
from typing import Any

from api.commanding import command
from api.endpoint import Endpoint
from api.reading import listing, single
from commands.catalogue import handlers_of
from domain.kind import Kind
from domain.kinds import KINDS
from projections.views import VIEWS


def routes_of(kind: Kind[Any]) -> Iterator[Endpoint]:
    view = VIEWS[kind.name]
    yield listing(view, kind.list_path)
    above, _, _ = kind.path.rpartition("/")
    if not above.startswith(kind.list_path):  # where one is read below another, there they are listed too
        yield listing(view, above, within=kind.named_by[-2])
    yield single(view)
    for model in handlers_of(kind):
        if model.route is not None:
            yield command(model, model.route)


ENDPOINTS = tuple(endpoint for kind in KINDS for endpoint in routes_of(kind))
