"""Password hashing, in a pool of its own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from realtime.auth.password_rules import check_password, normalised
from realtime.auth.tokens import PASSES
from realtime.core.fair_queue import FairPool, Requester


class Passwords:
    """Hashes passwords with Argon2id, each with ``memory`` KiB, in a thread of their own, one at a time.

    A hash takes a whole core. With a thread of its own it neither waits for other work, such as diffs and imports, nor
    holds that up. The requests take turns (:class:`FairQueue`).
    """

    def __init__(self, memory: int) -> None:
        from pwdlib import PasswordHash
        from pwdlib.hashers.argon2 import Argon2Hasher

        self._hash = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=memory, parallelism=1),))
        # Of no password, but as much work to compare with as any other.
        self._nobody = f"$argon2id$v=19$m={memory},t={PASSES},p=1${'A' * 22}${'A' * 43}"
        self._pool = FairPool("passwords")

    async def aclose(self) -> None:
        """Stop the thread."""
        await self._pool.aclose()

    async def hash(self, password: str, words: Iterable[str], requester: Requester) -> str:
        """Check a new password, and return a hash to store.

        Args:
            password: The password.
            words: Words that do not count, because they are easy to guess for this account.
            requester: The party that the work is done for.

        Raises:
            PasswordRefused: The password is too short, too long, or too easy to guess.
            TooMany: Too many requests are waiting.
        """

        def check_and_hash() -> str:
            check_password(password, words)
            return self._hash.hash(normalised(password))

        return await self._pool.run(requester, check_and_hash)

    async def verify(
        self, password: str, stored: str | None, requester: Requester, delay: float = 0.0
    ) -> tuple[bool, str | None]:
        """Return whether a password is the one that was hashed, and a new hash if the stored one is out of date.

        Args:
            password: The password to check.
            stored: The hash to compare with. ``None`` compares with the hash of no password, which takes as long.
            requester: The party that the work is done for.
            delay: Seconds to wait before it.

        Raises:
            TooMany: Too many requests are waiting.
        """
        known = self._nobody if stored is None else stored
        return await self._pool.run(
            requester, partial(self._hash.verify_and_update, normalised(password), known), delay
        )
