"""Random secrets, their digests, and signed tokens (JWT)."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

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


def link_token(key: str, note: int, nonce: str) -> str:
    """The secret in a link to a note: 256 bits that are made again when they are to be shown, and stored nowhere."""
    code = hmac.digest(key.encode(), f"link {note} {nonce}".encode(), "sha256")
    return LINK + urlsafe_b64encode(code).decode().rstrip("=")


def setup_token(key: str) -> str:
    """Return the secret that whoever signs up first has to know. All workers on one database have the same."""
    code = hmac.digest(key.encode(), b"setup", "sha256")
    return urlsafe_b64encode(code).decode().rstrip("=")


class TokenClaims(NamedTuple):
    """What a signed token says: whose it is, and the session that it lives with."""

    name: str
    session: str


def make_jwt(key: str, claims: TokenClaims) -> str:
    """A token for :data:`JWT_SECONDS`, signed (RFC 7519, HMAC with SHA-256)."""
    import jwt

    told = {
        "sub": claims.name,
        "sid": claims.session,
        "jti": secrets.token_urlsafe(12),
        "exp": datetime.now(UTC) + timedelta(seconds=JWT_SECONDS),
    }
    return jwt.encode(told, key, ALGORITHM)


def read_jwt(key: str, token: str) -> TokenClaims:
    """What a token says. Raises ``ValueError`` for one that was not made with this key, or has expired."""
    import jwt

    try:
        told = jwt.decode(token, key, [ALGORITHM], options={"require": ["sub", "sid", "jti", "exp"]})
    except jwt.InvalidTokenError as error:
        raise ValueError(str(error)) from None
    if not isinstance(told["sid"], str):
        raise ValueError("no session")
    return TokenClaims(told["sub"], told["sid"])
