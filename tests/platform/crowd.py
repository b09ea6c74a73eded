"""`python -m tests.platform.crowd URL TOKEN WHAT`: what one viewer can ask for, again and again, in a process of its
own.

Each connection sends its next request when the last is answered, or its stream has told enough. Ends after
`SECONDS_MAX`, if nobody ends it before.
"""

import asyncio
import json
import os
import secrets
import sys
from urllib.parse import urlsplit

SECONDS_MAX = 60.0
AGAIN_S = 1.0  # after a refusal, as `Retry-After` says
STREAM_BYTES = 200_000  # of a stream, before it is closed and opened again

VALUES = {f"x{n}": 0 for n in range(190)}
BATCH = json.dumps({"commands": [{"command": "vm.provision", **VALUES}] * 1_000}).encode()
UNKNOWN_FIELDS = json.dumps({f"x{n}": 0 for n in range(19_900)}).encode()


def vms(count: int, *, group: str = "*", cpu: int = 1, atomic: bool = True) -> bytes:
    """VMs for tenant t0 in every group; the last one's size may be told."""
    vm = {"command": "vm.provision", "tenant": "t0", "group": group}
    amounts = [1] * (count - 1) + [cpu]
    commands = [{**vm, "name": f"v{n}", "resources": {"cpu": amount}} for n, amount in enumerate(amounts)]
    return json.dumps({"commands": commands, "atomic": atomic}).encode()


# The most that one unit may be, of what is offered in every group (`commands/costs.py`).
OF_EVERY_GROUP = 140
NONE_HAS = 1_000  # as much cpu as no host has

# What is sent, again and again on a connection that is kept: the path, the body, how many connections, the answer.
SENDERS = {
    "large batches": ("/v1/commands", BATCH, 4, 200),
    "large bodies": ("/v1/vms", UNKNOWN_FIELDS, 4, 422),
    "guessed tokens": ("/v1/whoami", b"", 64, 401),
    "refused atomic batches": ("/v1/commands", vms(OF_EVERY_GROUP, cpu=NONE_HAS), 16, 409),
    "dry runs of atomic batches": ("/v1/commands?dry_run=true", vms(OF_EVERY_GROUP), 16, 200),
    "refused batches": ("/v1/commands", vms(1_000, cpu=NONE_HAS, atomic=False), 3, 200),
    "dry runs of batches": ("/v1/commands?dry_run=true", vms(1_000, atomic=False), 3, 200),
    "refusals": (
        "/v1/vms",
        json.dumps({"tenant": "t0", "name": "v", "group": "*", "resources": {"cpu": NONE_HAS}}).encode(),
        8,
        409,
    ),
}
# Those whose every unit takes about as long as one may: a change waits for the one that is under way.
UNITS = frozenset({"refused atomic batches", "dry runs of atomic batches"})
# The path, how many connections, whether it is a stream that is left open.
CROWDS = {
    "searches": ("/v1/events?q=nothing-has-this&count=true&limit=1", 8, False),
    "streams from the beginning": ("/v1/events/stream?after=0", 60, False),
    "metrics": ("/metrics", 16, False),
    "listeners": ("/v1/events/stream", 1_000, True),
    "audits": ("/v1/audit?q=nothing-has-this&count=true&limit=1", 16, False),
    "pages": ("/v1/hosts?limit=1000", 64, False),
    "tables": ("/v1/events?limit=1000", 16, False),
}


async def ask(host: str, port: int, request: bytes, *, stays_open: bool) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            taken = 0
            while (data := await reader.read(65_536)) and (stays_open or taken < STREAM_BYTES):
                taken += len(data)
            writer.close()
            if not head.startswith(b"HTTP/1.1 200"):
                await asyncio.sleep(AGAIN_S)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(AGAIN_S)


async def send(host: str, port: int, path: str, body: bytes, token: str, *, status: int) -> None:
    """Without a body, each request has a token of its own."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            while True:
                secret = token if body else secrets.token_urlsafe()
                head = (
                    f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {secret}\r\n"
                )
                length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
                writer.write(f"{head}{length}\r\n".encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                for line in answer.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        await reader.readexactly(int(line.partition(b":")[2]))
                got = int(answer[9:12])
                assert got in (status, 429, 503), answer
                if got != status:
                    await asyncio.sleep(AGAIN_S)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(AGAIN_S)


async def main(url: str, token: str, what: str) -> None:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    if what in SENDERS:
        path, body, connections, status = SENDERS[what]
        async with asyncio.timeout(SECONDS_MAX):
            of_each = (
                send(address.hostname, address.port, path, body, token, status=status) for _ in range(connections)
            )
            await asyncio.gather(*of_each)
        return
    path, connections, stays_open = CROWDS[what]
    accept = "text/csv" if what == "tables" else "*/*"
    request = (
        f"GET {path} HTTP/1.1\r\nHost: berth\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    async with asyncio.timeout(SECONDS_MAX):
        await asyncio.gather(
            *(ask(address.hostname, address.port, request, stays_open=stays_open) for _ in range(connections))
        )


if __name__ == "__main__":
    os.nice(10)  # viewers have machines of their own
    asyncio.run(main(*sys.argv[1:]))
