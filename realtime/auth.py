"""Secrets: how passwords are hashed and compared, what tokens are made of, and how they are read.

The libraries are imported where they are used: that takes a while, and a server without accounts needs neither.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from realtime.errors import PasswordRefused, TooMany

SHORTEST = 15
"""Characters of a password without a second factor (NIST SP 800-63B-4, section 3.1.1.2)."""
LONGEST = 1024
"""Bytes of UTF-8."""
PASSES = 1
"""With 46 MiB one of OWASP's recommendations for Argon2id (Password Storage Cheat Sheet)."""
AT_ONCE = 1
"""Passwords that a worker hashes at the same time: each takes a whole core and the memory of one hash."""
MOST_WAITING = 64
JWT_SECONDS = 900
ALGORITHM = "HS256"


def new_secret() -> str:
    """256 bits that nobody can guess, as text that can stand anywhere."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored in place of a secret, and can be told to anyone: nobody finds the secret that it is of.

    Half of a SHA-256 is enough, since secrets are random: there is nothing to try but 2^128 others.
    """
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def normalised(password: str) -> str:
    """A password in the one form that it has, however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, name: str) -> None:
    """Raises :class:`PasswordRefused` for a new password that is too easy to guess, or too long."""
    password = normalised(password)
    if len(password) < SHORTEST:
        raise PasswordRefused(f"password: must have at least {SHORTEST} characters; a few words will do")
    if len(password.encode()) > LONGEST:
        raise PasswordRefused(f"password: must be at most {LONGEST} bytes of UTF-8")
    if not password.casefold().replace(name, "").strip():
        raise PasswordRefused("password: must not be the name")
    if len(set(password)) < 3:
        raise PasswordRefused("password: must have more than two different characters")


class Passwords:
    """Hashes passwords with Argon2id, each with ``memory`` KiB, in threads, few at a time."""

    def __init__(self, memory: int) -> None:
        from pwdlib import PasswordHash
        from pwdlib.hashers.argon2 import Argon2Hasher

        self._hash = PasswordHash((Argon2Hasher(time_cost=PASSES, memory_cost=memory, parallelism=1),))
        # Of no password, but as much work to compare with as any other.
        self._nobody = f"$argon2id$v=19$m={memory},t={PASSES},p=1${'A' * 22}${'A' * 43}"
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """A hash to store. Raises :class:`TooMany`."""
        async with _Turn(self):
            return await asyncio.to_thread(self._hash.hash, normalised(password))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Whether a password is the one that was hashed, and a new hash of it if the stored one is out of date.

        With ``None`` it is compared with nobody's, which takes as long. Raises :class:`TooMany`.
        """
        async with _Turn(self):
            return await asyncio.to_thread(
                self._hash.verify_and_update, normalised(password), self._nobody if stored is None else stored
            )


class _Turn:
    """A turn at hashing. Beyond so many that wait nobody else is let in."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords

    async def __aenter__(self) -> None:
        passwords = self._passwords
        if passwords._waiting >= MOST_WAITING:
            raise TooMany(1)
        passwords._waiting += 1
        try:
            await passwords._turns.acquire()
        finally:
            passwords._waiting -= 1

    async def __aexit__(self, *_: object) -> None:
        self._passwords._turns.release()


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
