"""Slows down password guessing without locking out users.

Only failed attempts are counted. A browser in which the user has signed in before is a known device
(:mod:`realtime.auth.devices`): its attempts are served first, and its failures count only against that device. Other
failures are counted for each combination of name and network, and for each network. After a few failures, each further
one lengthens the delay of the next attempt, up to a maximum. Attackers can therefore slow down only attempts from their
own networks.
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
    from realtime.auth.users import UserAccount

WINDOW_SECONDS = 600
MAX_DELAY_SECONDS = 20.0


class Slowdown(NamedTuple):
    """The delay of attempts after failures of one kind: 1 s, doubled with each failure up to :data:`MAX_DELAY_SECONDS`.

    Attributes:
        rule: The rule that counts the failures.
        delayed_from: The number of failures from which attempts are delayed, at first by 1 s.
    """

    rule: RateRule
    delayed_from: int


BY_DEVICE = Slowdown(RateRule("sign-in-device", 10, WINDOW_SECONDS), 3)
"""For a device. At the limit, the device counts as unknown."""
BY_NAME = Slowdown(RateRule("sign-in-name", 10, WINDOW_SECONDS), 3)
"""For a name and a wide network (IPv4 /24 or IPv6 /48). At the limit, attempts are refused."""
BY_NETWORK = Slowdown(RateRule("sign-in-network", 40, WINDOW_SECONDS), 20)
"""For all names from an IPv4 address or an IPv6 /64."""
BY_WIDE_NETWORK = Slowdown(RateRule("sign-in-wide-network", 200, WINDOW_SECONDS), 100)
"""For all names from an IPv4 /24 or an IPv6 /48."""
SIGN_UP = RateRule("sign-up", 20, 60)
"""Limit on attempts to sign up from one address."""
CURRENT_PASSWORD = RateRule("password-change", 5, 60)
"""Limit on wrong passwords in a session, when the user changes the password or confirms a sensitive action with it."""
OPERATOR_REQUESTER = Requester("operator", "operator", trusted=True)
"""The operator of the server, on the command line."""
UNKNOWN_ADDRESS = "unknown"


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """The origin of a request.

    Attributes:
        address: The address of the client.
        agent: The user agent of the client.
        devices: The device tokens of the browser.
        host: The host name of the server in the request.
    """

    address: str | None = None
    agent: str | None = None
    devices: Sequence[str] = ()
    host: str | None = None


class Counters(Protocol):
    """Counts events by rule and key. :class:`realtime.auth.rate_limit.RateLimiter` is an implementation."""

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Count an event. Raises :class:`TooManyRequests` if the rule does not allow it."""

    async def add(self, rule: RateRule, key: str) -> None:
        """Count an event even if the rule does not allow it."""

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return how much of a rule's limit a key has used."""


class UnlimitedCounters:
    """Counters that count nothing and allow everything, for the operator of the server."""

    async def acquire(self, rule: RateRule, key: str) -> None:
        """Allow everything."""

    async def add(self, rule: RateRule, key: str) -> None:
        """Count nothing."""

    async def usage(self, rule: RateRule, key: str) -> RateUsage:
        """Return zero usage."""
        return RateUsage(0, 0)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt: its requester, which determines its place in the queue, and the counters to add a failure to."""

    requester: Requester
    counters: Sequence[tuple[Slowdown, str]]


class SignInGuard:
    """Checks and hashes passwords. Delays a sign-in attempt after earlier failures."""

    def __init__(self, counters: Counters, passwords: Passwords, read_key: Callable[[], Awaitable[str]]) -> None:
        self._counters = counters
        self._passwords = passwords
        self._read_key = read_key

    async def aclose(self) -> None:
        """Stop the thread that hashes passwords."""
        await self._passwords.aclose()

    async def device_of(self, user: UserAccount, client: ClientInfo) -> str | None:
        """Return the id of the client's device if the user has signed in on it before, or ``None``."""
        return find_device(await self._read_key(), client.devices, user.name, user.token_generations["session"])

    async def verify(
        self, name: str, password: str, user: UserAccount | None, client: ClientInfo
    ) -> tuple[bool, str | None]:
        """Check the password of a user. An unknown name gives the same result as a wrong password, after the same time.

        Args:
            name: The name in the request.
            password: The password.
            user: The user with this name, or ``None``.
            client: The origin of the request.

        Returns:
            Whether the password is right and the user is enabled; and a new hash if the stored one is outdated, else
            ``None``.

        Raises:
            TooManyRequests: There were too many failed attempts, or too many requests are waiting.
        """
        attempt = await self._attempt_of(name, user, client)
        usages = await asyncio.gather(*(self._counters.usage(kind.rule, key) for kind, key in attempt.counters))
        for (kind, _), usage in zip(attempt.counters, usages, strict=True):
            if kind is BY_NAME and usage.used >= kind.rule.limit:
                raise TooManyRequests(usage.seconds)
        delay = max(_delay(kind, usage) for (kind, _), usage in zip(attempt.counters, usages, strict=True))
        stored = None if user is None else user.hash
        is_right, hash = await self._passwords.verify(password, stored, attempt.requester, delay)
        is_right = is_right and user is not None and not user.disabled
        if not is_right:
            await asyncio.gather(*(self._counters.add(kind.rule, key) for kind, key in attempt.counters))
        return is_right, hash

    async def _attempt_of(self, name: str, user: UserAccount | None, client: ClientInfo) -> _Attempt:
        requester = _requester_of(client)
        device = None if user is None else await self.device_of(user, client)
        if device is not None:
            usage = await self._counters.usage(BY_DEVICE.rule, device)
            if usage.used < BY_DEVICE.rule.limit:
                return _Attempt(Requester(requester.group, device, trusted=True), [(BY_DEVICE, device)])
        # A digest, because the name may be a password that was typed into the wrong field.
        name_key = digest(f"{await self._read_key()} {name} {requester.group}")
        counters = [(BY_NAME, name_key), (BY_NETWORK, requester.member), (BY_WIDE_NETWORK, requester.group)]
        return _Attempt(requester, counters)

    async def verify_current(self, user: UserAccount | None, password: str, session: str, client: ClientInfo) -> bool:
        """Return whether a password is the current one of a signed-in user. Failures are counted by session.

        Raises:
            TooManyRequests: There were too many failures in this session, or too many requests are waiting.
        """
        usage = await self._counters.usage(CURRENT_PASSWORD, session)
        if usage.used >= CURRENT_PASSWORD.limit:
            raise TooManyRequests(usage.seconds)
        stored = None if user is None else user.hash
        is_right, _ = await self._passwords.verify(password, stored, _requester_of_session(session, client))
        if not is_right:
            await self._counters.add(CURRENT_PASSWORD, session)
        return is_right

    async def count_sign_up(self, client: ClientInfo) -> None:
        """Count an attempt to sign up. Raises :class:`TooManyRequests`."""
        if client.address is not None:
            await self._counters.acquire(SIGN_UP, client.address)

    async def hash(self, name: str, password: str, client: ClientInfo | None, session: str | None = None) -> str:
        """Check a new password, and return a hash to store.

        Args:
            name: The user.
            password: The new password.
            client: The origin of the request, or ``None`` for the operator of the server.
            session: The session of a signed-in user.

        Raises:
            PasswordRefused: The password is too short, too long, or too easy to guess.
            TooManyRequests: Too many requests are waiting.
        """
        if client is None:
            requester = OPERATOR_REQUESTER
        else:
            requester = _requester_of(client) if session is None else _requester_of_session(session, client)
        words = context_words(name, None if client is None else client.host)
        return await self._passwords.hash(password, words, requester)


def _requester_of(client: ClientInfo) -> Requester:
    address = client.address or UNKNOWN_ADDRESS
    return Requester(wide_network_of(address), network_of(address))


def _requester_of_session(session: str, client: ClientInfo) -> Requester:
    return Requester(_requester_of(client).group, session, trusted=True)


def _delay(kind: Slowdown, usage: RateUsage) -> float:
    """Return the delay of the next attempt in seconds."""
    excess = usage.used - kind.delayed_from
    return 0.0 if excess < 0 else min(MAX_DELAY_SECONDS, 2.0**excess)
