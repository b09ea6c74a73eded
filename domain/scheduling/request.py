"""What a placement is asked for."""

import msgspec

from domain.values import Resources
from domain.vm import Rule, Where


class PlacementRequest(msgspec.Struct, frozen=True):
    """`resources` without zero amounts."""

    tenant: str
    resources: Resources
    where: Where | None = None
    rules: tuple[Rule, ...] = ()
