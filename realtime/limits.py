"""How often somebody may do something."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """So many a minute."""

    name: str
    per_minute: int


SIGN_IN_ACCOUNT = Rule("sign-in-account", 5)
SIGN_IN_ADDRESS = Rule("sign-in-address", 20)


class Limits:
    """What is left of each rule."""

    async def take(self, rule: Rule, key: str) -> None:
        """Takes one. Raises :class:`TooMany`."""
