"""Reading over HTTP, beside a FastAPI no-op GET: 10,000 hosts in 250 racks, page by page; capacity by rack; one VM.

Nothing is written meanwhile: what a read costs, not what it waits for.
"""

import statistics

from msgspec.json import decode

from bench import load, over_http
from bench.load import Answered
from bench.over_http import ask, get
from bench.row import Row
from bench.servers import Servers
from bench.site import a_vm

HOSTS, RACKS, VMS = 10_000, 250, 5_000
PAGE = 1_000
CONNECTIONS = 8
TURNS = 3


def measure(servers: Servers, *, is_short: bool) -> list[Row]:
    hosts, racks, vms = (500, 10, 100) if is_short else (HOSTS, RACKS, VMS)
    turns, one_vm, pages, by_rack = (1, 200, 10, 20) if is_short else (TURNS, 6_000, 200, 500)
    with over_http.an_api(servers) as (port, token, _), over_http.a_noop(servers) as noop_port:
        over_http.stock(port, token, hosts=hosts, racks=racks)
        over_http.submit(port, token, [{"command": "vm.provision", **a_vm(n)} for n in range(vms)])
        over_http.project(servers)
        paths = _pages(port, token)
        asked = {
            "GET one VM": [f"/v1/vms/payments/vm-{n % vms}" for n in range(one_vm)],
            f"GET a page of {min(PAGE, hosts):,} of {hosts:,} hosts": (paths * pages)[:pages],
            f"GET capacity of {racks} racks, {hosts:,} hosts": ["/v1/capacity?by=rack"] * by_rack,
        }
        found: dict[str, list[tuple[Answered, Answered]]] = {name: [] for name in asked}
        for turn in range(turns + 1):
            for name, wanted in asked.items():
                answered = load.run(port, [get(path, token) for path in wanted], connections=CONNECTIONS)
                noop = load.run(noop_port, [get("/noop", "")] * max(300, len(wanted)), connections=CONNECTIONS)
                if turn:  # the first warms all up
                    found[name].append((answered, noop))
    return [row for name, pairs in found.items() for row in _rows(name, pairs)]


def _pages(port: int, token: str) -> list[str]:
    """The paths that lead through all hosts, from cursor to cursor."""
    paths, path = [], f"/v1/hosts?limit={PAGE}"
    while True:
        status, content = ask(port, "GET", path, token)
        assert status == 200, content
        paths.append(path)
        cursor = decode(content)["next_cursor"]
        if cursor is None:
            return paths
        path = f"/v1/hosts?limit={PAGE}&cursor={cursor}"


def _rows(name: str, pairs: list[tuple[Answered, Answered]]) -> list[Row]:
    per_s, noop_per_s = (statistics.median(pair[n].per_s for pair in pairs) for n in (0, 1))
    p99_ms, noop_p99_ms = (statistics.median(pair[n].p99_ms for pair in pairs) for n in (0, 1))
    return [
        Row(name, per_s, "/s", "none", True, noop_per_s, per_s / noop_per_s),
        Row(f"{name}, p99", p99_ms, "ms", "none", True, noop_p99_ms, p99_ms / noop_p99_ms),
    ]
