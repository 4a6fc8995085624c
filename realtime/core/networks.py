"""The networks of client addresses. Limits count the clients of one network together."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(4096)  # called several times for each connection
def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


@lru_cache(4096)
def wide_network_of(address: str) -> str:
    """Return the network that counts as one organization: the /24 of an IPv4 address, or the /48 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    parsed = mapped or parsed
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))
