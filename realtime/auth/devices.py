"""Device cookies: proof that somebody has signed in to an account with this browser before.

A sign-in from a known device has an allowance of its own, so that failed attempts from elsewhere cannot lock its owner
out (https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies). A device token is not
stored, opens nothing without the password, and ends with the password that it was issued for.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable

DEVICE_SECONDS = 400 * 24 * 3600
"""The longest time for which browsers keep a cookie (RFC 6265bis, section 5.5)."""
_TOKEN = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,12})-([0-9a-f]{64})")


def issue_device(key: str, name: str, generation: int, id: str | None = None) -> str:
    """Return a token for a browser in which a user has proved the password.

    Args:
        key: The server's secret.
        name: The user.
        generation: The generation of the user's sessions, which a new password ends.
        id: The id of a known device, whose token is renewed. By default it is a new device.
    """
    id = id or secrets.token_hex(12)
    issued = f"{int(time.time()):x}"
    return f"{id}-{issued}-{_code(key, name, generation, f'{id}-{issued}')}"


def find_device(key: str, tokens: Iterable[str], name: str, generation: int) -> str | None:
    """Return the id of the device that one of the tokens proves for a user, or ``None``."""
    now = time.time()
    for token in tokens:
        parts = _TOKEN.fullmatch(token)
        if parts is None or int(parts[2], 16) + DEVICE_SECONDS < now:
            continue
        if hmac.compare_digest(_code(key, name, generation, f"{parts[1]}-{parts[2]}"), parts[3]):
            return parts[1]
    return None


def same_device(token: str, other: str) -> bool:
    """Return whether two tokens were issued for one device."""
    return token.partition("-")[0] == other.partition("-")[0]


def _code(key: str, name: str, generation: int, device: str) -> str:
    return hmac.digest(key.encode(), f"device {name} {generation} {device}".encode(), "sha256").hex()
