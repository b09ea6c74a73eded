"""Placement written down plainly: one host after the other, with Python's own integers, floats and fractions.

Nothing here is taken from `domain.scheduling`, as the tests hold the two against each other.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from domain.group import Group
from domain.host import Host
from domain.rack import Rack
from domain.vm import Rule, Vm, Where

FIRST = ["cpu", "memory_mib", "storage_gib", "gpu"]


def in_order(classes: set[str]) -> list[str]:
    return [name for name in FIRST if name in classes] + sorted(classes - set(FIRST))


def copies(free: dict[str, int], shape: dict[str, int]) -> int:
    """How many of the shape the amounts would take."""
    return max(0, min(free[name] // amount for name, amount in shape.items()))


class Site:
    """Hosts, racks and groups by name, as they stand."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.racks: dict[str, Rack] = {}
        self.groups: dict[str, Group] = {}
        self.vms: list[Vm] = []

    def hosts_of(self, group: str) -> list[Host]:
        return [self.hosts[name] for name in sorted(self.hosts) if self.hosts[name].group == group]

    def usable(self, host: Host, name: str) -> int:
        ratio = Fraction(self.groups[host.group].overcommit.get(name, 1000), 1000)
        return int(host.capacity.get(name, 0) * ratio)

    def left(self, host: Host, name: str) -> int:
        """Below 0 where more is in use than there is; of a class that the host does not have there is nothing."""
        whole = self.usable(host, name)
        return whole and whole - host.used.get(name, 0)

    def free(self, host: Host, name: str) -> int:
        """At least 0, as what is available is shown."""
        return max(0, self.left(host, name))

    def rack_of(self, host: str) -> Rack | None:
        found = self.hosts.get(host)
        return self.racks.get(found.rack) if found is not None and found.rack is not None else None

    def at_level(self, host: str, level: str) -> Any:
        if level == "host":
            return host
        rack = self.rack_of(host)
        if rack is None:
            return None
        return rack.name if level == "rack" else (rack.region, rack.dc)

    # ── one host at a time ──

    def why_not(
        self,
        host: Host,
        resources: dict[str, int],
        where: Where | None,
        rules: Sequence[Rule],
        members: Mapping[str, Sequence[Vm]],
    ) -> str | None:
        """The first reason that drops the host."""
        if host.state != "available":
            return "state"
        if where is not None:
            rack = self.rack_of(host.name)
            for level in ("region", "dc", "room"):
                asked = getattr(where, level)
                if asked is not None and (rack is None or getattr(rack, level) != asked):
                    return "place"
            if where.rack is not None and (rack is None or rack.name != where.rack):
                return "place"
            if where.host is not None and host.name != where.host:
                return "place"
            if any(host.about.labels.get(key) != value for key, value in where.labels.items()):
                return "labels"
        for rule in self.binding(rules, members):
            if not self.keeps(rule, host, rules, members[rule.set]):
                return f"rule:{rule.type}"
        for name in in_order(set(resources)):
            if resources[name] > self.free(host, name):
                return f"insufficient:{name}"
        return None

    def binding(self, own: Sequence[Rule], members: Mapping[str, Sequence[Vm]]) -> list[Rule]:
        """Own rules, then those of the members of the same sets."""
        found = list(own)
        sets: list[str] = []
        for rule in own:
            if rule.set not in sets:
                sets.append(rule.set)
        for name in sets:
            found += [rule for vm in members[name] for rule in vm.rules if rule.set == name]
        return found

    def keeps(self, rule: Rule, host: Host, own: Sequence[Rule], others: Sequence[Vm]) -> bool:
        here = self.at_level(host.name, rule.level)
        if here is None:
            return False
        standing = [(vm, self.at_level(vm.host, rule.level)) for vm in others if vm.host is not None]
        if rule.type == "affinity":
            return all(place == here for _, place in standing)
        if rule.type == "anti_affinity":
            return all(place != here for _, place in standing)
        if rule.type == "partition":
            mine = self.number(rule, own)
            return all(place != here or self.number(rule, vm.rules) == mine for vm, place in standing)
        assert rule.type == "spread" and rule.max_skew is not None
        places = {self.at_level(other.name, rule.level) for other in self.hosts_of(host.group)} - {None}
        counts = {place: sum(1 for _, at in standing if at == place) for place in places}
        return counts[here] + 1 - min(counts.values()) <= rule.max_skew

    @staticmethod
    def number(rule: Rule, rules: Sequence[Rule]) -> int | None:
        numbers = [r.partition for r in rules if (r.type, r.set, r.level) == ("partition", rule.set, rule.level)]
        return numbers[0] if numbers else None

    def score(self, host: Host, resources: dict[str, int], strategy: str) -> float:
        classes = in_order(
            {name for other in self.hosts_of(host.group) for name, amount in other.capacity.items() if amount}
        )
        parts = []
        for name in classes:
            cap = self.usable(host, name)
            left = cap - host.used.get(name, 0) - resources.get(name, 0)
            parts.append((cap > 0, left / cap if cap else 0.0))
        if strategy == "first_fit":
            return 0.0
        if strategy == "least_fragmentation":
            free = {name: self.left(host, name) for name in classes}
            after = {name: amount - resources.get(name, 0) for name, amount in free.items()}
            loss = sum(w * (copies(free, shape) - copies(after, shape)) for shape, w in self.weights(host.group))
            return float(loss) + self.score(host, resources, "best_fit")
        if strategy in ("best_fit", "worst_fit"):
            total = 0.0
            for _, part in parts:
                total += part
            return total / len(parts) * (1 if strategy == "best_fit" else -1)
        used = [1.0 - part for there, part in parts if there]
        if not used:
            return 0.0
        total = 0.0
        for part in used:
            total += part
        mean = total / len(used)
        spread = 0.0
        for part in used:
            spread += (part - mean) * (part - mean)
        return spread / len(used)

    def weights(self, group: str) -> list[tuple[dict[str, int], int]]:
        """The shapes of the VMs placed in the group that hold a place, each with its weight."""
        hosts = self.hosts_of(group)
        standing = Counter(
            tuple(sorted(vm.resources.items())) for vm in self.vms if vm.group == group and vm.host is not None
        )
        found = []
        for shape, count in standing.items():
            parts = [(amount, max((self.usable(host, name) for host in hosts), default=0)) for name, amount in shape]
            if all(amount <= largest for amount, largest in parts):
                size = max(ceil(Fraction(1000 * amount, largest)) for amount, largest in parts)
                found.append((dict(shape), size * ceil(len(f"{count:b}") / 2)))
        return found

    # ── over the group ──

    def place(
        self,
        group: str,
        resources: dict[str, int],
        strategy: str,
        where: Where | None,
        rules: Sequence[Rule],
        members: Mapping[str, Sequence[Vm]],
    ) -> dict[str, Any]:
        """`host`, `runner_up`, `score` (None where nothing fits), `reasons`, `nearest`, `largest_fit`, `fitting`."""
        reasons: dict[str, int] = {}
        fitting: list[tuple[float, str]] = []
        short: list[Host] = []
        for host in self.hosts_of(group):
            why = self.why_not(host, resources, where, rules, members)
            if why is None:
                fitting.append((self.score(host, resources, strategy), host.name))
                continue
            reasons[why] = reasons.get(why, 0) + 1
            if why.startswith("insufficient:"):
                short.append(host)
        fitting.sort()
        return {
            "host": fitting[0][1] if fitting else None,
            "score": fitting[0][0] if fitting else None,
            "runner_up": {"host": fitting[1][1], "score": fitting[1][0]} if len(fitting) > 1 else None,
            "reasons": reasons,
            "nearest": self.nearest(short, resources) if not fitting else None,
            "largest_fit": self.largest_fit(short, resources) if not fitting else None,
            "fitting": len(fitting),
        }

    def nearest(self, hosts: list[Host], resources: dict[str, int]) -> dict[str, Any] | None:
        found: list[tuple[Fraction, str, dict[str, int]]] = []
        for host in hosts:
            short = {n: a - self.free(host, n) for n, a in resources.items() if a > self.free(host, n)}
            found.append((sum((Fraction(s, resources[n]) for n, s in short.items()), Fraction()), host.name, short))
        if not found:
            return None
        _, name, short = min(found, key=lambda one: one[:2])
        return {"host": name, "short": short}

    def largest_fit(self, hosts: list[Host], resources: dict[str, int]) -> dict[str, int] | None:
        scales = [min(Fraction(self.free(host, n), a) for n, a in resources.items()) for host in hosts]
        scale = max(scales, default=Fraction())
        return {n: max(1, int(a * scale)) for n, a in resources.items()} if scale else None

    def totals(self, group: str) -> tuple[dict[str, int], dict[str, int]]:
        """Without classes that come to 0."""
        used: dict[str, int] = {}
        available: dict[str, int] = {}
        for host in self.hosts_of(group):
            for name, amount in host.used.items():
                used[name] = used.get(name, 0) + amount
            if host.state == "available":
                for name in host.capacity:
                    available[name] = available.get(name, 0) + self.free(host, name)
        return {n: a for n, a in used.items() if a}, {n: a for n, a in available.items() if a}
