"""What a replay needs on the platform: a group with the trace's hosts in racks, a tenant whose quota is no limit."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cli.connection import Connection, new_key
from cli.errors import Refused
from cli.replay.labels import Labels, label
from cli.replay.trace import Trace

ATOMIC_COMMANDS_MAX = 200
ATOMIC_HOSTS_MAX = 1000
AMOUNT_MAX = 2**53 - 1  # what the API takes as an amount
RUN_LENGTH_MAX = 28  # leaves room for the names of racks and hosts behind it


class Stage(NamedTuple):
    """The names that this run made. `run` stands before all of them, so that several replays live side by side."""

    run: str
    group: str
    tenant: str
    hosts: int
    racks: int
    capacity: dict[str, int]


def run_name(trace: str) -> str:
    return f"{label(f'replay-{trace}', length_max=RUN_LENGTH_MAX)}-{new_key()[-6:]}"


def build(connection: Connection, trace: Trace, *, strategy: str, run: str) -> Stage:
    """Make everything that the replay needs."""
    for path, body in (
        ("/v1/groups", {"name": run, "strategy": strategy, "description": f"Replay of the trace {trace.name}"}),
        ("/v1/tenants", {"name": run, "description": f"Replay of the trace {trace.name}"}),
    ):
        connection.request("POST", path, body=body, headers={"Idempotency-Key": new_key()})
    limits = ample_limits(trace)
    quota = f"/v1/groups/{run}/quotas/{run}"
    connection.request("PUT", quota, body={"limits": limits}, headers={"Idempotency-Key": new_key()})
    racks = rack_commands(trace, run)
    hosts = host_commands(trace, run, racks)
    for commands in _chunks([command for _, command in racks], ATOMIC_COMMANDS_MAX):
        _all_or_nothing(connection, commands)
    for commands in _chunks(hosts, ATOMIC_HOSTS_MAX):
        _all_or_nothing(connection, commands)
    return Stage(
        run=run, group=run, tenant=run, hosts=len(trace.machines), racks=len(racks), capacity=total_capacity(trace)
    )


def rack_commands(trace: Trace, run: str) -> list[tuple[str, dict[str, Any]]]:
    """A `rack.create` for each rack of the trace, beside the trace's own name for it."""
    labels = Labels(f"{run}-")
    places = dict.fromkeys((machine.region, machine.dc, machine.rack) for machine in trace.machines)
    return [
        (
            rack,
            {"command": "rack.create", "name": labels.of(region, dc, rack), "region": label(region), "dc": label(dc)},
        )
        for region, dc, rack in places
    ]


def host_commands(trace: Trace, run: str, racks: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A `host.register` for each host that has anything; `racks` as `rack_commands` gives them."""
    rack_names = {(command["region"], command["dc"], place): command["name"] for place, command in racks}
    labels = Labels(f"{run}-")
    commands = [
        {
            "command": "host.register",
            "name": labels.of(machine.host),
            "group": run,
            "rack": rack_names[label(machine.region), label(machine.dc), machine.rack],
            "capacity": machine.capacity,
        }
        for machine in trace.machines
    ]
    return [command for command in commands if command["capacity"]]


def ample_limits(trace: Trace) -> dict[str, int]:
    """Limits that the trace cannot reach, even if nothing of it were ever deleted."""
    limits: dict[str, int] = {"vms": 0}
    for request in trace.requests:
        if request.action == "create":
            limits["vms"] += 1
            for name, amount in request.resources.items():
                limits[name] = min(limits.get(name, 0) + amount, AMOUNT_MAX)
    return limits


def total_capacity(trace: Trace) -> dict[str, int]:
    """Σ of the hosts per class; a class that no host has is left out."""
    total: dict[str, int] = {}
    for machine in trace.machines:
        for name, amount in machine.capacity.items():
            total[name] = total.get(name, 0) + amount
    return total


def _all_or_nothing(connection: Connection, commands: Sequence[dict[str, Any]]) -> None:
    body = {"commands": list(commands), "atomic": True}
    answer = connection.request("POST", "/v1/commands", body=body, headers={"Idempotency-Key": new_key()})
    for result in answer.objects("results", count=len(commands), status=int):
        if result["status"] >= 400:
            raise Refused(result)


def _chunks(commands: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(commands), size):
        yield commands[start : start + size]
