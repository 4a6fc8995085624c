"""Random secrets, their digests, and signed tokens (JWT)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

ARGON2_PASSES = 1
"""With 46 MiB of memory, this is one of OWASP's recommendations for Argon2id (Password Storage Cheat Sheet)."""
JWT_SECONDS = 900
LINK_PREFIX = "ln_"
"""The prefix of link tokens."""
ALGORITHM = "HS256"


def new_secret() -> str:
    """Return a random secret of 256 bits as URL-safe text."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return the digest of a secret. It is stored instead of the secret, and can be shown to users.

    Half of a SHA-256 digest is enough: secrets are random, so an attack needs 2^128 attempts.
    """
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def link_token(key: str, note: int, nonce: str) -> str:
    """Return the secret of a link to a note. Its 256 bits are derived when they are needed, and not stored."""
    mac = hmac.digest(key.encode(), f"link {note} {nonce}".encode(), "sha256")
    return LINK_PREFIX + urlsafe_b64encode(mac).decode().rstrip("=")


def setup_token(key: str) -> str:
    """Return the secret for the sign-up of the first user. All workers with the same key return the same secret."""
    mac = hmac.digest(key.encode(), b"setup", "sha256")
    return urlsafe_b64encode(mac).decode().rstrip("=")


class TokenClaims(NamedTuple):
    """The claims of a signed token: the name of the user, and the id of the session with which the token ends."""

    name: str
    session: str


def make_jwt(key: str, claims: TokenClaims) -> str:
    """Return a signed token that is valid for :data:`JWT_SECONDS` (RFC 7519, HMAC with SHA-256)."""
    import jwt

    payload = {
        "sub": claims.name,
        "sid": claims.session,
        "jti": secrets.token_urlsafe(12),
        "exp": datetime.now(UTC) + timedelta(seconds=JWT_SECONDS),
    }
    return jwt.encode(payload, key, ALGORITHM)


def read_jwt(key: str, token: str) -> TokenClaims:
    """Verify a token, and return its claims. Raises ``ValueError`` if it is invalid or has expired."""
    import jwt

    try:
        payload = jwt.decode(token, key, [ALGORITHM], options={"require": ["sub", "sid", "jti", "exp"]})
    except jwt.InvalidTokenError as error:
        raise ValueError(str(error)) from None
    if not isinstance(payload["sid"], str):
        raise ValueError("no session")
    return TokenClaims(payload["sub"], payload["sid"])
