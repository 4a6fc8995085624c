"""Secrets: how passwords are hashed and compared, what tokens are made of, and how they are read.

The libraries are imported where they are used: that takes a while, and a server without accounts needs neither.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from realtime.auth.password_rules import check_password, normalised
from realtime.core.fair_queue import FairPool, Requester

PASSES = 1
"""With 46 MiB one of OWASP's recommendations for Argon2id (Password Storage Cheat Sheet)."""
JWT_SECONDS = 900
LINK = "ln_"
"""What the token of a link begins with."""
ALGORITHM = "HS256"


def new_secret() -> str:
    """256 bits that nobody can guess, as text that can stand anywhere."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored in place of a secret, and can be told to anyone: nobody finds the secret that it is of.

    Half of a SHA-256 is enough, since secrets are random: there is nothing to try but 2^128 others.
    """
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


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


def link_token(key: str, note: int, nonce: str) -> str:
    """The secret in a link to a note: 256 bits that are made again when they are to be shown, and stored nowhere."""
    code = hmac.digest(key.encode(), f"link {note} {nonce}".encode(), "sha256")
    return LINK + urlsafe_b64encode(code).decode().rstrip("=")


def setup_token(key: str) -> str:
    """Return the secret that whoever signs up first has to know. All workers on one database have the same."""
    code = hmac.digest(key.encode(), b"setup", "sha256")
    return urlsafe_b64encode(code).decode().rstrip("=")


class Claims(NamedTuple):
    """What a signed token says: whose it is, and the session that it lives with."""

    name: str
    session: str


def make_jwt(key: str, claims: Claims) -> str:
    """A token for :data:`JWT_SECONDS`, signed (RFC 7519, HMAC with SHA-256)."""
    import jwt

    told = {
        "sub": claims.name,
        "sid": claims.session,
        "jti": secrets.token_urlsafe(12),
        "exp": datetime.now(UTC) + timedelta(seconds=JWT_SECONDS),
    }
    return jwt.encode(told, key, ALGORITHM)


def read_jwt(key: str, token: str) -> Claims:
    """What a token says. Raises ``ValueError`` for one that was not made with this key, or has expired."""
    import jwt

    try:
        told = jwt.decode(token, key, [ALGORITHM], options={"require": ["sub", "sid", "jti", "exp"]})
    except jwt.InvalidTokenError as error:
        raise ValueError(str(error)) from None
    if not isinstance(told["sid"], str):
        raise ValueError("no session")
    return Claims(told["sub"], told["sid"])
