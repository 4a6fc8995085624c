"""Rules for new passwords: long enough, and not easy to guess."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from realtime.errors import PasswordRefused

MIN_PASSWORD_CHARACTERS = 15
"""The minimum for a password without a second factor (NIST SP 800-63B-4, section 3.1.1.2)."""
MAX_PASSWORD_BYTES = 1024
"""The maximum length in UTF-8."""
MIN_SCORE = 4
"""Minimum score from zxcvbn. 4 is the highest: at least 10^10 guesses, too many for an attack on a slow hash."""
ANALYZED_CHARACTERS = 32
"""Maximum length that is analyzed. Of a longer password, both ends are analyzed, and one of them has to be strong."""
MIN_WORD_CHARACTERS = 3
SERVER_WORDS = ("realtime", "notes")
ADVICE = "Use a few words that have nothing to do with each other"


def normalized(password: str) -> str:
    """Return a password in Unicode normalization form KC, so that it does not depend on the keyboard."""
    return unicodedata.normalize("NFKC", password)


def context_words(name: str, host: str | None) -> list[str]:
    """Return words that are easy to guess for an account: the user name and the names of the server."""
    return [name, *SERVER_WORDS, *re.findall(r"[^\W_]+", (host or "").lower())]


def check_password(password: str, words: Iterable[str]) -> None:
    """Check a new password.

    Args:
        password: The password.
        words: Words that are ignored, because they are easy to guess for this account.

    Raises:
        PasswordRefused: The password is too short, too long, or too easy to guess. The message gives the reason.
    """
    password = normalized(password)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise PasswordRefused(f"password: must have at least {MIN_PASSWORD_CHARACTERS} characters; a few words will do")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise PasswordRefused(f"password: must be at most {MAX_PASSWORD_BYTES} bytes of UTF-8")
    _check_strength(password, words)


def _check_strength(password: str, words: Iterable[str]) -> None:
    # Imported here because the library is slow to import, and servers without accounts do not need it.
    from zxcvbn_rs_py import zxcvbn

    remaining = _without(password, words)
    warning = None
    for part in dict.fromkeys((remaining[:ANALYZED_CHARACTERS], remaining[-ANALYZED_CHARACTERS:])):
        result = zxcvbn(part)
        if int(result.score) >= MIN_SCORE:
            return
        warning = warning or (result.feedback and result.feedback.warning)
    if remaining != password:
        reason = "Your name and the name of this server are ignored"
    else:
        reason = str(warning).removesuffix(".") if warning else "It consists of few or common words"
    raise PasswordRefused(f"password: too easy to guess. {reason}. {ADVICE}")


def _without(password: str, words: Iterable[str]) -> str:
    """Remove words from a password, ignoring case, longer words first."""
    removed = sorted({word for word in words if len(word) >= MIN_WORD_CHARACTERS}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, removed))
    return re.sub(pattern, "", password, flags=re.IGNORECASE) if removed else password
