"""What a kind of resource declares of itself. Whatever can be derived from a declaration is derived, and written
nowhere else; each domain file ends with its own `KIND`."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from domain.recorded import Recorded


class State(Protocol):
    """Of a resource of any kind."""

    @property
    def state(self) -> str: ...


S = TypeVar("S", bound=State)


class Former(msgspec.Struct, frozen=True):
    """How a topic that is no longer written is read: as the class that it had then, turned into the event of today. It
    is given the whole record, with stream, actor and time."""

    written_as: type
    upcast: Callable[[Recorded], Any]


def nobody(state: Any) -> str | None:
    """The owner of what belongs to no tenant."""
    return None


class Kind(msgspec.Struct, Generic[S], frozen=True, eq=False, kw_only=True):
    """One kind of resource. `S` is its state: a frozen struct with `uid`, `state` and, if people have words about it,
    `about`.

    `named_by` are the parts of its full name, which is its stream and its path too: `("tenant", "vm")` is
    `vm/<tenant>/<vm>`. `states` are the words that `state` may be, those of what has just ended in `ended`. `events`
    are those of today by topic, `former` the topics that were written once. `refs` are the fields of the state that
    name another resource, with its kind; `rebinds` are the events that may change one of them while the resource lives
    (the first and the last event of a life need not be said). `owner` is the tenant to whom it belongs; what is about
    another resource, whose stream its field `target` holds, belongs to that one's tenant. A `workload` runs for the
    tenant in its name: whoever is confined to a tenant may command those of its subtree, and nothing else. `own_path`
    is where one of them is read over HTTP, if not at `/v1/vms/{tenant}/{vm}`. What the engine makes has an id for a
    name.
    """

    name: str
    plural: str
    named_by: tuple[str, ...]
    state: type[S]
    states: tuple[str, ...]
    ended: frozenset[str] = frozenset({"deleted"})
    events: Mapping[str, type]
    former: Mapping[str, Former] = {}
    evolve: Callable[[Any, Any], S]
    ends: frozenset[type] = frozenset()
    owner: Callable[[S], str | None] = nobody
    target: str | None = None
    refs: Mapping[str, str] = {}
    rebinds: frozenset[type] = frozenset()
    is_workload: bool = False
    own_path: str = ""
    has_id_for_name: bool = False

    def stream(self, *name: str) -> str:
        """`vm/acme/web-1`, of `acme`, `web-1`."""
        return f"{self.name}/{'/'.join(name)}"

    @property
    def own_name(self) -> str:
        """The last part of its full name."""
        return self.named_by[-1]

    @property
    def outlives_its_end(self) -> bool:
        """Whether what is over goes on being shown, though it has left the fleet."""
        return bool(self.ends) and not self.ended

    @property
    def list_path(self) -> str:
        return f"/v1/{self.plural}"

    @property
    def path(self) -> str:
        """Where one of them is read, with a field for each part of its name."""
        return self.own_path or "/".join([self.list_path, *(f"{{{part}}}" for part in self.named_by)])

    def path_of(self, *name: str) -> str:
        return self.path.format_map(dict(zip(self.named_by, name, strict=True)))

    @property
    def module(self) -> str:
        """What its files in `commands/` and `projections/kinds/` are called: `maintainer_groups`."""
        return self.plural.replace("-", "_")
