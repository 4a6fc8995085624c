"""Rules for new passwords: long enough, and not easy to guess."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from realtime.errors import PasswordRefused

SHORTEST = 15
"""Characters of a password without a second factor (NIST SP 800-63B-4, section 3.1.1.2)."""
LONGEST = 1024
"""Bytes of UTF-8."""
MIN_SCORE = 4
"""On zxcvbn's scale from 0 to 4: more than 10^10 guesses, which a slow hash makes hopeless."""
ANALYZED_CHARACTERS = 32
"""The time of the analysis grows with the length. Of a longer password both ends are analyzed; one has to be strong."""
SHORTEST_WORD = 3
SERVER_WORDS = ("realtime", "notes")
ADVICE = "Use a few words that have nothing to do with each other"


def normalised(password: str) -> str:
    """Return a password in the one form that it has, however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", password)


def context_words(name: str, host: str | None) -> list[str]:
    """Return words that are easy to guess for one account: the user's name, and the names of the server."""
    return [name, *SERVER_WORDS, *re.findall(r"[^\W_]+", (host or "").lower())]


def check_password(password: str, words: Iterable[str]) -> None:
    """Check a new password.

    Args:
        password: The password.
        words: Words that do not count, because they are easy to guess for this account.

    Raises:
        PasswordRefused: It is too short, too long, or too easy to guess. The message says why and what to do.
    """
    password = normalised(password)
    if len(password) < SHORTEST:
        raise PasswordRefused(f"password: must have at least {SHORTEST} characters; a few words will do")
    if len(password.encode()) > LONGEST:
        raise PasswordRefused(f"password: must be at most {LONGEST} bytes of UTF-8")
    _check_strength(password, words)


def _check_strength(password: str, words: Iterable[str]) -> None:
    # The library is imported here because it takes a while, and a server without accounts does not need it.
    from zxcvbn_rs_py import zxcvbn

    counted = _without(password, words)
    warning = None
    for part in dict.fromkeys((counted[:ANALYZED_CHARACTERS], counted[-ANALYZED_CHARACTERS:])):
        result = zxcvbn(part)
        if int(result.score) >= MIN_SCORE:
            return
        warning = warning or (result.feedback and result.feedback.warning)
    if counted != password:
        reason = "Your name and the name of this server do not count"
    else:
        reason = str(warning).removesuffix(".") if warning else "It is made of few or common words"
    raise PasswordRefused(f"password: too easy to guess. {reason}. {ADVICE}")


def _without(password: str, words: Iterable[str]) -> str:
    """Return a password without some words, longer words first, in any case."""
    removed = sorted({word for word in words if len(word) >= SHORTEST_WORD}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, removed))
    return re.sub(pattern, "", password, flags=re.IGNORECASE) if removed else password
