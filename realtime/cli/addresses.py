"""Server addresses that users pass on the command line."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from realtime.settings import is_loopback


def is_this_machine(url: str) -> bool:
    """Return whether a URL points to this machine, which must be reached without a proxy.

    This is the case for ``localhost``, its subdomains, and loopback addresses in every spelling that connects.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".").partition("%")[0]
    except ValueError:
        return False
    if is_loopback(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # 127.1, 0x7f000001
        except (OSError, ValueError):
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    # Connecting to the unspecified address connects to loopback.
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def proxy_problem(error: Exception) -> str:
    """Return an error message for proxy settings of the environment that a client library rejects."""
    reason = str(error).rstrip(".")
    return (
        f"the proxy settings of the environment cannot be used: {reason}."
        " Correct or unset http_proxy, https_proxy and all_proxy, or add the server to no_proxy"
    )
