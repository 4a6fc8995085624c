"""The sign-in guard: which failures count, for which clients, and the delay of the next attempt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from realtime.auth.devices import issue_device
from realtime.auth.rate_limit import RateLimiter
from realtime.auth.sign_in_guard import BY_DEVICE, BY_NAME, ClientInfo, SignInGuard
from realtime.auth.users import UserAccount
from realtime.core.fair_queue import Requester
from realtime.errors import TooManyRequests
from realtime.settings import Settings
from tests.support.workers import NO_REDIS, open_bus

KEY = "k" * 32
ANN = UserAccount(
    "ann", "right", admin=False, disabled=False, created_date=datetime.now(UTC), token_generations={"session": 0}
)
HERE = ClientInfo("192.0.2.7")
DELAYS = [0, 0, 0, 1, 2, 4, 8, 16, 20, 20]


class Passwords:
    """Compares passwords without hashing them, and records the requester and the delay of each comparison."""

    def __init__(self) -> None:
        self.verified: list[tuple[Requester, float]] = []

    async def verify(
        self, password: str, stored: str | None, requester: Requester, delay: float = 0
    ) -> tuple[bool, None]:
        self.verified.append((requester, delay))
        return password == stored, None

    @property
    def delays(self) -> list[float]:
        """Return the delays since the last call."""
        delays = [delay for _, delay in self.verified]
        self.verified.clear()
        return delays


@pytest.fixture
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture(params=["redis", "without redis"])
async def guard(settings: Settings, passwords: Passwords, request: pytest.FixtureRequest) -> AsyncIterator[SignInGuard]:
    """Return a guard that counts in Redis, and one without Redis."""
    if request.param == "without redis":
        settings = settings.model_copy(update={"redis_url": NO_REDIS})

    async def key() -> str:
        return KEY

    stand_in: Any = passwords
    async with open_bus(settings) as bus:
        yield SignInGuard(RateLimiter(bus), stand_in, key)


async def fail_to_sign_in(guard: SignInGuard, times: int, caller: ClientInfo = HERE, name: str = "ann") -> None:
    for _ in range(times):
        assert await guard.verify(name, "wrong", ANN if name == "ann" else None, caller) == (False, None)


async def test_failed_sign_ins_are_delayed_and_then_refused(guard: SignInGuard, passwords: Passwords) -> None:
    await fail_to_sign_in(guard, len(DELAYS))
    assert passwords.delays == DELAYS
    with pytest.raises(TooManyRequests) as refused:
        await guard.verify("ann", "right", ANN, HERE)
    assert 1 <= refused.value.seconds <= BY_NAME.rule.seconds
    with pytest.raises(TooManyRequests):
        await guard.verify("ann", "right", ANN, ClientInfo("192.0.2.8"))  # in the same wide network
    assert passwords.delays == []


async def test_unknown_name_is_delayed_and_refused_like_a_known_name(guard: SignInGuard, passwords: Passwords) -> None:
    await fail_to_sign_in(guard, len(DELAYS), name="nobody")
    assert passwords.delays == DELAYS
    with pytest.raises(TooManyRequests):
        await guard.verify("nobody", "right", None, HERE)


async def test_failed_sign_ins_do_not_delay_other_networks_or_names(guard: SignInGuard, passwords: Passwords) -> None:
    await fail_to_sign_in(guard, 10)
    passwords.verified.clear()
    assert await guard.verify("ann", "right", ANN, ClientInfo("198.51.100.7")) == (True, None)
    await fail_to_sign_in(guard, 1, name="bob")
    assert passwords.verified == [
        (Requester("198.51.100.0/24", "198.51.100.7"), 0),
        (Requester("192.0.2.0/24", "192.0.2.7"), 0),
    ]


async def test_correct_passwords_are_not_counted_as_failures(guard: SignInGuard, passwords: Passwords) -> None:
    for _ in range(50):
        assert await guard.verify("ann", "right", ANN, HERE) == (True, None)
    assert set(passwords.delays) == {0}


async def test_disabled_user_with_the_correct_password_counts_as_a_failure(
    guard: SignInGuard, passwords: Passwords
) -> None:
    disabled = UserAccount(
        "ann", "right", admin=False, disabled=True, created_date=ANN.created_date, token_generations={"session": 0}
    )
    for _ in range(4):
        assert await guard.verify("ann", "right", disabled, HERE) == (False, None)
    assert passwords.delays == DELAYS[:4]


async def test_address_that_tries_many_names_is_delayed_but_not_refused(
    guard: SignInGuard, passwords: Passwords
) -> None:
    for number in range(45):
        await fail_to_sign_in(guard, 1, name=f"name{number}")
    delays = passwords.delays
    assert delays[:20] == [0] * 20
    assert delays[20:26] == [1, 2, 4, 8, 16, 20]
    assert set(delays[26:]) == {20}


async def test_wide_network_that_tries_many_names_is_delayed(guard: SignInGuard, passwords: Passwords) -> None:
    for number in range(102):
        await fail_to_sign_in(guard, 1, ClientInfo(f"2001:db8:1:{number:x}::1"), name=f"name{number}")
    assert passwords.delays == [0] * 100 + [1, 2]


async def test_known_device_has_its_own_failure_limit(guard: SignInGuard, passwords: Passwords) -> None:
    device = issue_device(KEY, "ann", 0)
    known = ClientInfo("192.0.2.7", devices=[device])
    await fail_to_sign_in(guard, 10)
    passwords.verified.clear()
    assert await guard.verify("ann", "right", ANN, known) == (True, None)
    assert passwords.verified == [(Requester("192.0.2.0/24", device.partition("-")[0], trusted=True), 0)]


async def test_device_over_its_failure_limit_counts_as_unknown(guard: SignInGuard, passwords: Passwords) -> None:
    stolen = ClientInfo("203.0.113.1", devices=[issue_device(KEY, "ann", 0)])
    other = ClientInfo("203.0.113.1", devices=[issue_device(KEY, "ann", 0)])
    await fail_to_sign_in(guard, BY_DEVICE.rule.limit, stolen)
    assert passwords.delays == DELAYS
    await fail_to_sign_in(guard, BY_NAME.rule.limit, stolen)
    assert not any(requester.trusted for requester, _ in passwords.verified)
    with pytest.raises(TooManyRequests):
        await guard.verify("ann", "right", ANN, stolen)
    passwords.verified.clear()
    assert await guard.verify("ann", "right", ANN, other) == (True, None)
    assert passwords.delays == [0]


async def test_failed_password_changes_are_limited_per_session(guard: SignInGuard) -> None:
    for _ in range(9):
        assert await guard.verify_current(ANN, "right", "session", HERE)
    for _ in range(5):
        assert not await guard.verify_current(ANN, "wrong", "session", HERE)
    with pytest.raises(TooManyRequests):
        await guard.verify_current(ANN, "right", "session", HERE)
    assert await guard.verify_current(ANN, "right", "another session", HERE)
