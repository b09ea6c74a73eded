"""Commands on groups."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from commands import finding, quotas, warning
from commands.model import (
    CLASSES_MAX,
    CLASSES_PATCHED_MAX,
    ClassName,
    Command,
    Done,
    Name,
    Protectable,
    Redescribed,
    at_most,
)
from domain.errors import AlreadyExists, BelowUse, Conflict
from domain.group import KIND as GROUP
from domain.group import Group, GroupCreated, GroupDeleted, GroupUpdated
from domain.host import KIND as HOST
from domain.host import Host, would_break
from domain.quota import KIND as QUOTA
from domain.rack import KIND as RACK
from domain.scheduling.registry import STRATEGIES
from domain.transaction import Transaction
from domain.values import Overcommit, usable

DEFAULT_STRATEGY = "least_fragmentation"  # what measures best: docs/decisions/0005-the-default-strategy.md


def _known(strategy: str) -> str:
    if strategy not in STRATEGIES:
        raise ValueError(f"must be one of {', '.join(sorted(STRATEGIES))}")
    return strategy


def _at_most_three_decimals(ratio: float) -> float:
    exponent = Decimal(str(ratio)).as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -3:
        raise ValueError("at most 3 decimals")
    return ratio


StrategyName = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": sorted(STRATEGIES)}, mode="validation")
]
Ratio = Annotated[float, Field(gt=0, le=1000), AfterValidator(_at_most_three_decimals)]
Ratios = Annotated[dict[ClassName, Ratio], Field(max_length=CLASSES_MAX)]

REGION, STRATEGY = "If set, all its hosts must be in this region", "The strategy that chooses a host"


class CreateGroup(Protectable, creates=GROUP):
    """Create a group."""

    name: Name
    region: Name | None = Field(None, description=REGION)
    strategy: StrategyName = Field(DEFAULT_STRATEGY, description=STRATEGY)
    overcommit: Ratios = Field(
        {}, description="Over-commit factor by resource class, such as 4 for cpu; 1 if a class is not named"
    )


class _OnGroup(Command):
    group: Name


class UpdateGroup(_OnGroup, Redescribed, changes=GROUP):
    """Change a group.

    `overcommit` is merged class by class, null removes one; `force` leaves hosts above it.
    """

    region: Name | None = Field(None, description=REGION)
    # null is refused: a group always has one
    strategy: StrategyName = Field(DEFAULT_STRATEGY, description=STRATEGY)
    overcommit: Annotated[dict[ClassName, Ratio | None], Field(max_length=CLASSES_PATCHED_MAX)] | None = Field(
        None, description="Over-commit factor by resource class; merged class by class, null removes one"
    )
    force: bool = Field(False, description="Apply even if hosts then exceed it")


class DeleteGroup(_OnGroup, ends=GROUP):
    """Delete a group without hosts, and its quotas."""


def create(command: CreateGroup, tx: Transaction) -> Done:
    if tx.fleet.get(GROUP, command.name) is not None:
        raise AlreadyExists("group", command.name)
    overcommit, about = _thousandths(command.overcommit), command.about()
    warnings = (
        warning.of_region(tx, command.region)
        + warning.of_overcommit(tx, overcommit)
        + warning.of_external_id(tx, command.on(), about)
    )
    tx.record(
        command.on(),
        GroupCreated(
            uid=tx.new_id(),
            name=command.name,
            strategy=command.strategy,
            region=command.region,
            overcommit=overcommit,
            about=about,
        ),
    )
    return Done(created=True, warnings=warnings)


def update(command: UpdateGroup, tx: Transaction) -> Done:
    group = finding.find(tx, GROUP, command.group)
    event = GroupUpdated(
        command.given("strategy", group.strategy),
        command.given("region", group.region),
        _merged(group.overcommit, command),
        command.patched(group.about),
    )
    if event.region is not None and event.region != group.region:
        for host in _hosts(tx, group):
            must_stand_in_region(tx, rack=host.rack, region=event.region, host=host.name)
    before, after = group.overcommit, event.overcommit
    is_lowered = any(after.get(name, 1000) < before.get(name, 1000) for name in before.keys() | after.keys())
    if is_lowered and not command.force:  # only then is each host looked at
        broken: list[dict[str, Any]] = []
        for host in _hosts(tx, group):
            room = usable(host.capacity, before)
            then = would_break(host, capacity=host.capacity, overcommit=after)
            broken += [b for b in then if b["limit"] < room.get(b["resource"], 0)]
        if broken:
            raise BelowUse(broken[:100])
    warnings = (
        warning.of_region(tx, event.region, before=group.region)
        + warning.of_overcommit(tx, (name for name in event.overcommit if name not in group.overcommit))
        + warning.of_external_id(tx, command.on(), event.about, before=group.about)
    )
    if event != GroupUpdated(group.strategy, group.region, group.overcommit, group.about):
        tx.record(command.on(), event)
    return Done(warnings=warnings)


def delete(command: DeleteGroup, tx: Transaction) -> Done:
    """Only without hosts; its quotas end with it."""
    group = finding.find(tx, GROUP, command.group)
    finding.must_not_be_protected("group", group.name, group.about)
    quotas.must_not_be_protected(tx, group=group.name)
    finding.must_not_be_in_use(tx, GROUP, group.name, apart_from=(QUOTA,))
    quotas.end(tx, group=group.name)
    tx.record(command.on(), GroupDeleted())
    return Done()


def must_stand_in_region(tx: Transaction, *, rack: str | None, region: str, host: str) -> None:
    """Raises Conflict unless the host's rack is in the region to which its group is bound."""
    found = tx.fleet.get(RACK, rack) if rack is not None else None
    if found is None or found.region != region:
        where = f"in region {found.region!r}" if found is not None else "in no rack"
        raise Conflict(f"The group is bound to region {region!r}, but host {host!r} is {where}.", host)


def _hosts(tx: Transaction, group: Group) -> list[Host]:
    return list(tx.fleet.each(HOST, group=group.name))


def _thousandths(ratios: dict[str, float]) -> Overcommit:
    return {name: int(Decimal(str(ratio)) * 1000) for name, ratio in sorted(ratios.items())}


def _merged(overcommit: Overcommit, command: UpdateGroup) -> Overcommit:
    if "overcommit" not in command.model_fields_set:
        return overcommit
    if command.overcommit is None:
        return {}
    given = {name: ratio for name, ratio in command.overcommit.items() if ratio is not None}
    kept = {name: ratio for name, ratio in overcommit.items() if name not in command.overcommit}
    merged = dict(sorted({**kept, **_thousandths(given)}.items()))
    at_most(CLASSES_MAX, merged, overcommit, field="/overcommit")
    return merged


HANDLERS = {CreateGroup: create, UpdateGroup: update, DeleteGroup: delete}
