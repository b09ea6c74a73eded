"""Every state that lives, folded from the log, with the indexes that decisions need, and the transaction that can be
undone.

    log ── fold ──► Fleet ◄── record / undo ── Transaction ◄── handlers in `commands/`

The same fold serves the writer, a standby, the projector, time travel, what-if and verification. Each index is a
function of (old state, new state) alone, so undoing a change is applying it with the two exchanged.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from domain.group import Group
from domain.host import Host, controller_of
from domain.kinds import ENDS, EVOLVE
from domain.operation import Operation, Step
from domain.quota import Quota
from domain.rack import Rack
from domain.recorded import Recorded
from domain.scheduling.broken import BrokenRule, Places, SetKey, broken_rules
from domain.scheduling.index import CapacityIndex
from domain.tenant import Tenant
from domain.token import Token
from domain.values import (
    group_stream,
    host_stream,
    operation_stream,
    quota_stream,
    rack_stream,
    tenant_stream,
    token_stream,
    vm_stream,
)
from domain.vm import Vm

State = Tenant | Rack | Group | Host | Quota | Vm | Operation | Token


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A state that lives. `version` is the position of its last event; times are microseconds since 1970."""

    state: Any
    version: int
    created_at: int
    updated_at: int


class Fleet:
    """`entries` by stream id, and the indexes. `position` and `at` are those of the last event folded."""

    def __init__(self) -> None:
        self.log = ""
        self.position = 0
        self.at = 0
        self.entries: dict[str, Entry] = {}
        self.children: defaultdict[str | None, set[str]] = defaultdict(set)
        self.hosts_by_group: defaultdict[str, set[str]] = defaultdict(set)
        self.hosts_by_rack: defaultdict[str, set[str]] = defaultdict(set)
        self.vms_by_host: defaultdict[str, set[str]] = defaultdict(set)
        self.vms_by_tenant: defaultdict[str, set[str]] = defaultdict(set)
        self.quotas_by_group: defaultdict[str, set[str]] = defaultdict(set)
        self.quotas_by_tenant: defaultdict[str, set[str]] = defaultdict(set)
        self.tokens_by_tenant: defaultdict[str, set[str]] = defaultdict(set)
        self.members: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # (tenant, set) → VMs' streams
        self.tokens: dict[str, None] = {}  # every token's name
        self.racks_by_place: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # (region, dc or room; its name)
        self.hosts_by_bmc: defaultdict[tuple[str, str | None], set[str]] = defaultdict(set)
        self.by_external_id: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # (kind, id) → streams
        self.hosts_of_class: dict[str, int] = {}  # how many hosts have a capacity of it
        self.operations: dict[str, Operation] = {}  # those that run or are stuck, by id
        self.outstanding: dict[str, Step] = {}  # operation id → the step that a controller must still begin
        self.deadlines: dict[str, int] = {}  # operation id → the deadline of the step that is under way
        self.capacity = CapacityIndex(self.vms)
        self._indexes: dict[type, Callable[[str, Any, Any], None]] = {
            Tenant: self._index_tenant,
            Rack: self._index_rack,
            Group: self._index_group,
            Host: self._index_host,
            Quota: self._index_quota,
            Vm: self._index_vm,
            Operation: self._index_operation,
            Token: self._index_token,
        }

    # ── the fold ──

    def fold(self, recorded: Recorded) -> Entry | None:
        """Apply one event; answers the entry that it left, also when the aggregate ended with it (and so left the
        fleet)."""
        stream, event = recorded.stream, recorded.event
        self.position = position = recorded.position
        self.at = at = recorded.at
        evolve = EVOLVE.get(type(event))
        if evolve is None:  # the log's own and commands' events change no aggregate
            if position == 1:
                self.log = event.log
            return None
        old = self.entries.get(stream)
        before = old.state if old is not None else None
        state = evolve(before, event)
        entry = Entry(state, position, old.created_at if old is not None else at, at)
        if type(event) in ENDS:
            self.put(stream, old, None)
        else:  # what `put` does, without looking again: 3 % of a fold with the short way in `_index_vm`
            self.entries[stream] = entry
            self._indexes[type(state)](stream, before, state)
        return entry

    def put(self, stream: str, old: Entry | None, new: Entry | None) -> None:
        """Replace what stands at `stream`, and keep every index."""
        if new is not None:
            self.entries[stream] = new
        else:
            self.entries.pop(stream, None)
        before = old.state if old is not None else None
        after = new.state if new is not None else None
        if before is not None or after is not None:
            self._indexes[type(after if after is not None else before)](stream, before, after)

    # ── reading ──

    def find(self, stream: str) -> Any:
        """The state at `stream`, or None."""
        entry = self.entries.get(stream)
        return entry.state if entry is not None else None

    def tenant(self, name: str) -> Tenant | None:
        return self.find(tenant_stream(name))  # type: ignore[no-any-return]

    def rack(self, name: str) -> Rack | None:
        return self.find(rack_stream(name))  # type: ignore[no-any-return]

    def group(self, name: str) -> Group | None:
        return self.find(group_stream(name))  # type: ignore[no-any-return]

    def host(self, name: str) -> Host | None:
        return self.find(host_stream(name))  # type: ignore[no-any-return]

    def quota(self, group: str, tenant: str) -> Quota | None:
        return self.find(quota_stream(group, tenant))  # type: ignore[no-any-return]

    def vm(self, tenant: str, name: str) -> Vm | None:
        return self.find(vm_stream(tenant, name))  # type: ignore[no-any-return]

    def operation(self, id: str) -> Operation | None:
        return self.find(operation_stream(id))  # type: ignore[no-any-return]

    def token(self, name: str) -> Token | None:
        return self.find(token_stream(name))  # type: ignore[no-any-return]

    def names(self, kind: str) -> Iterator[str]:
        """The names of all that lives of one kind (of operations, those that are not over), or of all places at one
        level; costs what is taken of them."""
        match kind:
            case "tenant":
                return (name for children in self.children.values() for name in children)
            case "rack":
                return iter(self.capacity.racks)
            case "group":
                return iter(self.capacity.groups)
            case "host":
                return iter(self.capacity.hosts)
            case "quota":
                return (f"{group}/{name}" for group, names in self.quotas_by_group.items() for name in names)
            case "vm":
                return (stream[3:] for streams in self.vms_by_tenant.values() for stream in streams)
            case "operation":
                return iter(self.operations)
            case "token":
                return iter(self.tokens)
            case level:
                return (name for at, name in self.racks_by_place if at == level)

    def chain(self, tenant: str) -> list[str]:
        """The tenant and its ancestors, itself first."""
        chain: list[str] = []
        name: str | None = tenant
        while name is not None:
            chain.append(name)
            found = self.tenant(name)
            name = found.parent if found else None
        return chain

    def subtree(self, tenant: str) -> list[str]:
        """The tenant and all its descendants."""
        found = [tenant]
        for name in found:
            found.extend(sorted(self.children.get(name, ())))
        return found

    def quotas(self, group: str, chain: Iterable[str]) -> list[Quota]:
        """The quotas that stand in `group` for the tenants of `chain`."""
        entries = self.entries
        return [entries[stream].state for name in chain if (stream := quota_stream(group, name)) in entries]

    def group_of(self, vm: Vm) -> str:
        """A VM's group is its host's."""
        host = self.host(vm.host) if vm.host is not None else None
        return host.group if host is not None else vm.group

    def vms_on(self, host: str) -> list[Vm]:
        return [self.entries[stream].state for stream in sorted(self.vms_by_host.get(host, ()))]

    def vms_of(self, tenant: str) -> list[Vm]:
        return [self.entries[stream].state for stream in sorted(self.vms_by_tenant.get(tenant, ()))]

    def members_of(self, tenant: str, set: str) -> list[Vm]:
        return [self.entries[stream].state for stream in sorted(self.members.get((tenant, set), ()))]

    def broken_rules(self, set: SetKey, places: Places | None = None) -> list[BrokenRule]:
        """The rules of a tenant's set that do not hold at these places, as they stand unless told."""
        return broken_rules(places or Places(self.capacity), set[1], self.members_of(*set))

    def vms(self) -> Iterator[Vm]:
        return (self.entries[stream].state for streams in self.vms_by_tenant.values() for stream in streams)

    # ── the indexes ──

    def _index_tenant(self, stream: str, old: Tenant | None, new: Tenant | None) -> None:
        _move(
            self.children,
            stream[7:],
            old.parent if old else None,
            new.parent if new else None,
            was=old is not None,
            stays=new is not None,
        )
        self._index_about("tenant", stream, old, new)

    def _index_rack(self, stream: str, old: Rack | None, new: Rack | None) -> None:
        self.capacity.rack_changed(old, new)
        self._index_about("rack", stream, old, new)
        for level in ("region", "dc", "room"):
            before, after = getattr(old, level, None), getattr(new, level, None)
            if before != after:
                was, now = (level, before or ""), (level, after or "")
                _move(self.racks_by_place, stream[5:], was, now, was=before is not None, stays=after is not None)

    def _index_group(self, stream: str, old: Group | None, new: Group | None) -> None:
        self.capacity.group_changed(old, new)
        self._index_about("group", stream, old, new)

    def _index_host(self, stream: str, old: Host | None, new: Host | None) -> None:
        if old is None or new is None or old.group != new.group or old.rack != new.rack:
            name = stream[5:]
            was, stays = old is not None, new is not None
            _move(self.hosts_by_group, name, old.group if old else "", new.group if new else "", was=was, stays=stays)
            before, after = (old.rack if old else None), (new.rack if new else None)
            _move(
                self.hosts_by_rack,
                name,
                before or "",
                after or "",
                was=before is not None,
                stays=after is not None,
            )
        if old is None or new is None or old.about is not new.about:
            self._index_about("host", stream, old, new)
        if old is None or new is None or old.capacity is not new.capacity or old.bmc is not new.bmc:
            self._index_hardware(stream[5:], old, new)
        self.capacity.host_changed(old, new)

    def _index_hardware(self, name: str, old: Host | None, new: Host | None) -> None:
        counts = self.hosts_of_class
        for known, more in ((old, -1), (new, 1)):
            for of in known.capacity if known is not None else ():
                counts[of] = counts.get(of, 0) + more
                if not counts[of]:
                    del counts[of]
        before, after = controller_of(old.bmc if old else None), controller_of(new.bmc if new else None)
        if before != after:
            none = ("", None)
            was, stays = before is not None, after is not None
            _move(self.hosts_by_bmc, name, before or none, after or none, was=was, stays=stays)

    def _index_about(self, kind: str, stream: str, old: Any, new: Any) -> None:
        before = old.about.external_id if old is not None else None
        after = new.about.external_id if new is not None else None
        if before != after:
            was, now = (kind, before or ""), (kind, after or "")
            _move(self.by_external_id, stream, was, now, was=before is not None, stays=after is not None)

    def _index_quota(self, stream: str, old: Quota | None, new: Quota | None) -> None:
        if (old is None) != (new is None):
            quota = new or old
            assert quota is not None
            for index, key, value in (
                (self.quotas_by_group, quota.group, quota.tenant),
                (self.quotas_by_tenant, quota.tenant, quota.group),
            ):
                _move(index, value, key, key, was=old is not None, stays=new is not None)
        if old is None or new is None or old.about is not new.about:
            self._index_about("quota", stream, old, new)

    def _index_vm(self, stream: str, old: Vm | None, new: Vm | None) -> None:
        self.capacity.vm_changed(old, new)
        if old is None and new is not None and new.host is not None:
            self.vms_by_host[new.host].add(stream)
            self.vms_by_tenant[new.tenant].add(stream)
            for rule in new.rules:
                self.members[new.tenant, rule.set].add(stream)
            if new.about.external_id is not None:
                self._index_about("vm", stream, None, new)
            return
        before, after = (old.host if old else None), (new.host if new else None)
        if before != after:
            _move(self.vms_by_host, stream, before or "", after or "", was=before is not None, stays=after is not None)
        if old is None or new is None or old.about is not new.about:
            self._index_about("vm", stream, old, new)
        if (old is None) == (new is None):
            return
        vm = new or old
        assert vm is not None
        was, stays = old is not None, new is not None
        _move(self.vms_by_tenant, stream, vm.tenant, vm.tenant, was=was, stays=stays)
        for set in {rule.set for rule in vm.rules}:
            _move(self.members, stream, (vm.tenant, set), (vm.tenant, set), was=was, stays=stays)

    def _index_operation(self, stream: str, old: Operation | None, new: Operation | None) -> None:
        id = stream[10:]
        if new is None:
            self.operations.pop(id, None)
            self.outstanding.pop(id, None)
            self.deadlines.pop(id, None)
            return
        self.operations[id] = new
        step = new.current if new.state == "running" else None
        if step is None:
            self.outstanding.pop(id, None)
            self.deadlines.pop(id, None)
            return
        if step.state == "pending":  # its deadline runs from its start
            self.outstanding[id] = step
            self.deadlines.pop(id, None)
        else:
            self.outstanding.pop(id, None)
            self.deadlines[id] = step.deadline

    def _index_token(self, stream: str, old: Token | None, new: Token | None) -> None:
        before = old.tenant if old and old.state == "active" else None
        after = new.tenant if new and new.state == "active" else None
        _move(
            self.tokens_by_tenant,
            stream[6:],
            before or "",
            after or "",
            was=before is not None,
            stays=after is not None,
        )
        if new is not None:
            self.tokens[stream[6:]] = None
        else:
            self.tokens.pop(stream[6:], None)
        self._index_about("token", stream, old, new)


class Transaction:
    """Changes to a fleet that can be taken back: whole, or to a mark.

    `events` are those since `settle`. The engine sets the attributes below before each command.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.journal: list[tuple[str, Entry | None]] = []
        self.events: list[Recorded] = []
        self.ended: dict[str, Entry] = {}  # what left the fleet since `settle`, as it was at its end
        self.known: Mapping[str, Any] = {}  # streams that the log is known to hold, with the last row of what has ended
        self.at = 0  # microseconds since 1970, the same for all events of a command
        self.command = ""
        self.actor = ""
        self.role = ""
        self.scope: str | None = None  # the tenant that the actor is confined to
        self.reason: str | None = None
        self.step_timeout_s = 600
        self.controllers: Container[str] = ()  # the names of those that do the work
        self.new_id: Callable[[], str] = _not_given
        self.new_secret: Callable[[], str] = _not_given
        self._base = (fleet.position, fleet.at)

    def record(self, stream: str, event: Any, *, version: int = 0) -> None:
        """Note that `event` happened; the fleet has evolved when this returns."""
        position = self.fleet.position + 1
        recorded = Recorded(stream, version or position, position, self.at, self.actor, self.command, event)
        self.journal.append((stream, self.fleet.entries.get(stream)))
        entry = self.fleet.fold(recorded)
        if type(event) in ENDS and entry is not None:
            self.ended[stream] = entry
        self.events.append(recorded)

    def settle(self) -> None:
        """Nobody asks any more what was recorded; undoing it, as a whole, takes the journal alone.

        Were all of it kept until the commit, each command would be decided in memory that no cache holds.
        """
        self.events.clear()
        self.ended.clear()

    def mark(self) -> tuple[int, int, int, int]:
        return len(self.journal), len(self.events), self.fleet.position, self.fleet.at

    def undo(self, mark: tuple[int, int, int, int] | None = None) -> None:
        """Back to `mark`, or to the beginning."""
        changes, events, position, at = mark or (0, 0, *self._base)
        fleet = self.fleet
        while len(self.journal) > changes:
            stream, old = self.journal.pop()
            self.ended.pop(stream, None)
            fleet.put(stream, fleet.entries.get(stream), old)
        del self.events[events:]
        fleet.position, fleet.at = position, at


def last_entry(events: Iterable[Recorded]) -> Entry | None:
    """What the events of one stream, from its first, lead to; also if it has ended."""
    entry, alive = None, None
    for recorded in events:
        event = recorded.event
        state = EVOLVE[type(event)](alive.state if alive else None, event)
        entry = Entry(state, recorded.position, alive.created_at if alive else recorded.at, recorded.at)
        alive = None if type(event) in ENDS else entry
    return entry


def _not_given() -> str:
    raise AssertionError("the engine gives each transaction its ids and secrets")


def _move(index: Any, name: str, before: Any, after: Any, *, was: bool, stays: bool) -> None:
    """Keep `index` (key → set of names): `name` was under `before` if `was`, and is under `after` if `stays`."""
    if was:
        names = index[before]
        names.discard(name)
        if not names:
            del index[before]
    if stays:
        index[after].add(name)
