"""A group: a pool of hosts with a placement policy. Quota is granted per group; a host is in one group."""

from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.kind import Kind
from domain.values import About, Overcommit


class GroupCreated(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    name: str
    strategy: str
    region: str | None = None
    overcommit: Overcommit = {}
    about: About = About()


class GroupUpdated(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole of what can be changed, as it is from now on."""

    strategy: str
    region: str | None = None
    overcommit: Overcommit = {}
    about: About = About()


class GroupDeleted(msgspec.Struct, frozen=True):
    pass


GroupEvent = GroupCreated | GroupUpdated | GroupDeleted


class Group(msgspec.Struct, frozen=True):
    uid: str
    name: str
    region: str | None
    strategy: str
    overcommit: Overcommit
    state: str  # active, deleted
    about: About


def evolve(group: Group, event: GroupEvent) -> Group:
    match event:
        case GroupCreated():
            return Group(
                uid=event.uid,
                name=event.name,
                region=event.region,
                strategy=event.strategy,
                overcommit=event.overcommit,
                state="active",
                about=event.about,
            )
        case GroupUpdated():
            return replace(
                group,
                region=event.region,
                strategy=event.strategy,
                overcommit=event.overcommit,
                about=event.about,
            )
        case GroupDeleted():
            return replace(group, state="deleted")
        case _:
            assert_never(event)


KIND = Kind(
    name="group",
    plural="groups",
    named_by=("group",),
    state=Group,
    states=("active", "deleted"),
    events={
        "group.created": GroupCreated,
        "group.updated": GroupUpdated,
        "group.deleted": GroupDeleted,
    },
    evolve=evolve,
    ends=frozenset({GroupDeleted}),
)
