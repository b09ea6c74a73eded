"""The address that a request came from, as the audit keeps it.

`X-Forwarded-For` is what anybody writes there. It is believed from a proxy that was configured as trusted, and goes on
from there as long as it names another such proxy; and only as far as addresses stand in it.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

WITH_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::[0-9]{1,5})?")

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Raises ValueError: one is neither an address nor a network."""
    return tuple(ip_network(text) for text in texts)


def source(peer: str | None, headers: Iterable[tuple[bytes, bytes]], *, trusted: Sequence[Network]) -> str | None:
    """`peer` is the other end of the connection. Each proxy appends whom it was asked by, so it is read backwards."""
    address = _address(peer) if trusted and peer is not None else None
    if address is None:
        return peer
    hops = [hop for name, value in headers if name == b"x-forwarded-for" for hop in value.decode("latin-1").split(",")]
    while hops and any(address in network for network in trusted):
        before = _address(hops.pop().strip())
        if before is None:
            break
        address = before
    return str(address)


def _address(text: str) -> Address | None:
    """Some proxies append the port: 203.0.113.7:4711, [2001:db8::7]:4711."""
    found = WITH_PORT.fullmatch(text)
    try:
        address = ip_address(found[1] or found[2] if found is not None else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:  # any text
            return None
        return address.ipv4_mapped or address
    return address
