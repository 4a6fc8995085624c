"""Networks of client addresses: what counts as one client, and what one party may hold as a whole."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(4096)  # asked several times for each connection
def network_of(address: str) -> str:
    """What an address is counted as: itself, or the network of an IPv6 address, which one subscriber has as a whole."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return address
    if place.version == 4:
        return address
    return str(place.ipv4_mapped or ipaddress.ip_network((place, 64), strict=False))


@lru_cache(4096)
def wide_network_of(address: str) -> str:
    """Return the network that one party may hold as a whole: the /24 of an IPv4 address, the /48 of an IPv6 address."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = place.ipv4_mapped if isinstance(place, ipaddress.IPv6Address) else None
    place = mapped or place
    return str(ipaddress.ip_network((place, 24 if place.version == 4 else 48), strict=False))
