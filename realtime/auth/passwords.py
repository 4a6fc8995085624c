"""Password hashing in a dedicated thread."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from realtime.auth.password_rules import check_password, normalized
from realtime.auth.tokens import ARGON2_PASSES
from realtime.core.fair_queue import FairPool, Requester


class Passwords:
    """Hashes passwords with Argon2id in one dedicated thread. Requests take turns (:class:`FairQueue`).

    Hashing occupies a processor core. In its own thread, it does not delay other work, such as diffs and imports.

    Args:
        memory: The memory per hash in KiB.
    """

    def __init__(self, memory: int) -> None:
        from pwdlib import PasswordHash
        from pwdlib.hashers.argon2 import Argon2Hasher

        self._hash = PasswordHash((Argon2Hasher(time_cost=ARGON2_PASSES, memory_cost=memory, parallelism=1),))
        # Not the hash of a known password. Comparing a password with it takes as long as with a real hash.
        self._placeholder = f"$argon2id$v=19$m={memory},t={ARGON2_PASSES},p=1${'A' * 22}${'A' * 43}"
        self._pool = FairPool("passwords")

    async def aclose(self) -> None:
        """Stop the thread."""
        await self._pool.aclose()

    async def hash(self, password: str, words: Iterable[str], requester: Requester) -> str:
        """Check a new password, and return a hash to store.

        Args:
            password: The password.
            words: Words that are ignored, because they are easy to guess for this account.
            requester: The origin of the request.

        Raises:
            PasswordRefused: The password is too short, too long, or too easy to guess.
            TooManyRequests: Too many requests are waiting.
        """

        def check_and_hash() -> str:
            check_password(password, words)
            return self._hash.hash(normalized(password))

        return await self._pool.run(requester, check_and_hash)

    async def verify(
        self, password: str, stored: str | None, requester: Requester, delay: float = 0.0
    ) -> tuple[bool, str | None]:
        """Compare a password with a hash.

        Args:
            password: The password to check.
            stored: The stored hash. With ``None``, the comparison takes as long and never matches.
            requester: The origin of the request.
            delay: Seconds to wait first.

        Returns:
            Whether the password matches, and a new hash if the stored one is outdated.

        Raises:
            TooManyRequests: Too many requests are waiting.
        """
        compared = self._placeholder if stored is None else stored
        return await self._pool.run(
            requester, partial(self._hash.verify_and_update, normalized(password), compared), delay
        )
