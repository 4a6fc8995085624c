"""Device cookies, which prove that a user has signed in with this browser before.

Sign-ins from a known device have a separate rate limit, so that failed attempts from other devices cannot lock out the
user (https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies). A device token is not
stored, gives no access without the password, and becomes invalid when the password changes.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from collections.abc import Iterable

DEVICE_SECONDS = 400 * 24 * 3600
"""The maximum lifetime of a cookie in browsers (RFC 6265bis, section 5.5)."""
_TOKEN = re.compile(r"([0-9a-f]{24})-([0-9a-f]{1,12})-([0-9a-f]{64})")


def issue_device(key: str, name: str, generation: int, id: str | None = None) -> str:
    """Return a token for a browser in which a user has entered the password.

    Args:
        key: The signing key.
        name: The user.
        generation: The generation of the user's sessions. It changes with the password.
        id: The id of a known device whose token is renewed. By default, the device is new.
    """
    id = id or secrets.token_hex(12)
    issued = f"{int(time.time()):x}"
    return f"{id}-{issued}-{_mac(key, name, generation, f'{id}-{issued}')}"


def find_device(key: str, tokens: Iterable[str], name: str, generation: int) -> str | None:
    """Return the device id in the first token that is valid for a user, or ``None``."""
    now = time.time()
    for token in tokens:
        match = _TOKEN.fullmatch(token)
        if match is None or int(match[2], 16) + DEVICE_SECONDS < now:
            continue
        if hmac.compare_digest(_mac(key, name, generation, f"{match[1]}-{match[2]}"), match[3]):
            return match[1]
    return None


def same_device(token: str, other: str) -> bool:
    """Return whether two tokens were issued for the same device."""
    return token.partition("-")[0] == other.partition("-")[0]


def _mac(key: str, name: str, generation: int, device: str) -> str:
    return hmac.digest(key.encode(), f"device {name} {generation} {device}".encode(), "sha256").hex()
