"""Slows down guesses of passwords without locking anyone out.

Failed attempts are counted, right passwords are not. An attempt from a browser in which the user has signed in before
(:mod:`realtime.auth.devices`) is counted for that device alone and served first. All other attempts are counted by
name and network and by network, and wait longer after each failure. So an attacker can slow down their own networks
only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from realtime.auth.devices import find_device
from realtime.auth.password_rules import context_words
from realtime.auth.rate_limit import RateRule, RateUsage
from realtime.auth.tokens import digest
from realtime.core.fair_queue import Requester
from realtime.core.networks import network_of, wide_network_of
from realtime.errors import TooManyRequests

if TYPE_CHECKING:
    from realtime.auth.passwords import Passwords
    from realtime.auth.users import User

WINDOW_SECONDS = 600
MAX_DELAY_SECONDS = 20.0


class Slowdown(NamedTuple):
    """Failures of one kind: the number without a delay, and the rule that counts them.

    The delay doubles with each further failure, from 1 s up to :data:`MAX_DELAY_SECONDS`.
    """

    rule: RateRule
    free: int


BY_DEVICE = Slowdown(RateRule("sign-in-device", 10, WINDOW_SECONDS), 3)
"""A device that has used this up counts as unknown."""
BY_NAME = Slowdown(RateRule("sign-in-name", 10, WINDOW_SECONDS), 3)
"""Of one name from one provider's network. When it is used up, attempts are refused."""
BY_NETWORK = Slowdown(RateRule("sign-in-network", 40, WINDOW_SECONDS), 20)
"""Of all names from one address, or one IPv6 /64."""
BY_WIDE_NETWORK = Slowdown(RateRule("sign-in-wide-network", 200, WINDOW_SECONDS), 100)
"""Of all names from one IPv4 /24 or IPv6 /48."""
SIGN_UP = RateRule("sign-up", 20, 60)
"""Accounts that are made from one address."""
PASSWORD_CHANGE = RateRule("password-change", 5, 60)
"""Wrong passwords of one session, when it changes the password or confirms it."""
OPERATOR_REQUESTER = Requester("operator", "operator", trusted=True)
"""Whoever has the machine."""
UNKNOWN_ADDRESS = "unknown"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """The origin of a request: its address, the name of the browser, and the device tokens that the browser holds.

    ``host`` is the name under which it reached the server.
    """

    address: str | None = None
    agent: str | None = None
    devices: Sequence[str] = ()
    host: str | None = None


class Counters(Protocol):
    """Counts events by rule and key. :class:`realtime.auth.rate_limit.RateLimiter` does it over all workers."""

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Count an event. Raises :class:`TooManyRequests` if the rule does not allow it."""

    async def add(self, rule: RateRule, key: str) -> None:
        """Count an event, whether or not the rule allows more."""

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return how many events were counted."""


class UnlimitedCounters:
    """Counters that count nothing, for the operator of the server."""

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Allow everything."""

    async def add(self, rule: RateRule, key: str) -> None:
        """Count nothing."""

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return no events."""
        return RateUsage(0, 0)


@dataclass(frozen=True, slots=True)
class _AttemptPriority:
    """The queue that an attempt waits in, and the counters of its failures."""

    requester: Requester
    counted: Sequence[tuple[Slowdown, str]]


class SignInGuard:
    """Checks and hashes passwords, and decides how long each caller has to wait for it."""

    def __init__(self, counters: Counters, passwords: Passwords, key: Callable[[], Awaitable[str]]) -> None:
        self._counters = counters
        self._passwords = passwords
        self._key = key

    async def aclose(self) -> None:
        """Stop the thread that hashes."""
        await self._passwords.aclose()

    async def device_of(self, person: User, caller: ClientInfo) -> str | None:
        """Return the id of the device from which a user has signed in before, or ``None``."""
        return find_device(await self._key(), caller.devices, person.name, person.token_generations["session"])

    async def verify(
        self, name: str, password: str, person: User | None, caller: ClientInfo
    ) -> tuple[bool, str | None]:
        """Return whether a password is that of a user, and a new hash if the stored one is out of date.

        The work and the answer are the same for a name that nobody has. Raises :class:`TooManyRequests`.
        """
        standing = await self._standing(name, person, caller)
        usages = await asyncio.gather(*(self._counters.usage(kind.rule, key) for kind, key in standing.counted))
        for (kind, _), usage in zip(standing.counted, usages, strict=True):
            if kind is BY_NAME and usage.used >= kind.rule.limit:
                raise TooManyRequests(usage.seconds)
        delay = max(_delay(kind, usage) for (kind, _), usage in zip(standing.counted, usages, strict=True))
        stored = None if person is None else person.hash
        right, hash = await self._passwords.verify(password, stored, standing.requester, delay)
        right = right and person is not None and not person.disabled
        if not right:
            await asyncio.gather(*(self._counters.add(kind.rule, key) for kind, key in standing.counted))
        return right, hash

    async def _standing(self, name: str, person: User | None, caller: ClientInfo) -> _AttemptPriority:
        requester = _requester_of(caller)
        device = None if person is None else await self.device_of(person, caller)
        if device is not None:
            usage = await self._counters.usage(BY_DEVICE.rule, device)
            if usage.used < BY_DEVICE.rule.limit:
                return _AttemptPriority(Requester(requester.group, device, trusted=True), [(BY_DEVICE, device)])
        # A digest: the name may be a password in the wrong field.
        of_name = digest(f"{await self._key()} {name} {requester.group}")
        counted = [(BY_NAME, of_name), (BY_NETWORK, requester.member), (BY_WIDE_NETWORK, requester.group)]
        return _AttemptPriority(requester, counted)

    async def verify_old(self, person: User | None, password: str, session: str, caller: ClientInfo) -> bool:
        """Return whether a password is that of a signed-in user, whose failures are counted by session.

        Raises :class:`TooManyRequests`.
        """
        usage = await self._counters.usage(PASSWORD_CHANGE, session)
        if usage.used >= PASSWORD_CHANGE.limit:
            raise TooManyRequests(usage.seconds)
        stored = None if person is None else person.hash
        right, _ = await self._passwords.verify(password, stored, _of_session(session, caller))
        if not right:
            await self._counters.add(PASSWORD_CHANGE, session)
        return right

    async def count_sign_up(self, caller: ClientInfo) -> None:
        """Count an attempt to make an account. Raises :class:`TooManyRequests`."""
        if caller.address is not None:
            await self._counters.acquire(SIGN_UP, caller.address)

    async def hash(self, name: str, password: str, caller: ClientInfo | None, session: str | None = None) -> str:
        """Check a new password, and return a hash to store.

        Args:
            name: The user.
            password: The new password.
            caller: The origin of the request. ``None`` is the operator of the server.
            session: The session of a signed-in user.

        Raises:
            PasswordRefused: The password is too short, too long, or too easy to guess.
            TooMany: Too many requests are waiting.
        """
        if caller is None:
            requester = OPERATOR_REQUESTER
        else:
            requester = _requester_of(caller) if session is None else _of_session(session, caller)
        words = context_words(name, None if caller is None else caller.host)
        return await self._passwords.hash(password, words, requester)


def _requester_of(caller: ClientInfo) -> Requester:
    address = caller.address or UNKNOWN_ADDRESS
    return Requester(wide_network_of(address), network_of(address))


def _of_session(session: str, caller: ClientInfo) -> Requester:
    return Requester(_requester_of(caller).group, session, trusted=True)


def _delay(kind: Slowdown, usage: RateUsage) -> float:
    """Return the seconds to wait after the failures that were counted."""
    excess = usage.used - kind.free
    return 0.0 if excess < 0 else min(MAX_DELAY_SECONDS, 2.0**excess)
