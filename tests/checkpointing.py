"""A checkpoint that shows who started from it."""

from domain.entry import Entry
from domain.fleet import Fleet
from domain.tenant import Tenant
from domain.values import About
from eventlog.checkpoints import Snapshot, snapshot

MARK = "tenant/only-in-the-checkpoint"


def marked(fleet: Fleet) -> Snapshot:
    """The fleet, and a tenant that the log says nothing of."""
    taken = snapshot(fleet)
    entry = Entry(Tenant("u", "only-in-the-checkpoint", None, "active", About()), 1, 1, 1)
    living = {**taken.living, "tenant": {**taken.living["tenant"], MARK: entry}}
    return Snapshot(taken.log, taken.position, taken.at, living)
