"""Rules for new passwords: refused and accepted passwords, the reasons, and the cost of the check."""

from __future__ import annotations

import pytest
import zxcvbn_rs_py

from realtime.auth.password_rules import ADVICE, ANALYZED_CHARACTERS, check_password, context_words
from realtime.errors import PasswordRefused


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword",
        "Password123Password123",
        "p@$$w0rdp@$$w0rd",
        "iloveyouiloveyou",
        "123456789012345",
        "qwertyuiopasdfgh",
        "1qaz2wsx3edc4rfv",
        "abcdefghijklmnopqrstuvwxyz",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "Summer2024Summer2024",
        "thisisapassword",
        "ﬁﬁﬁﬁﬁﬁﬁﬁ",
        "a" * 1000,
    ],
)
def test_guessable_password_is_refused_with_reason_and_advice(password: str) -> None:
    with pytest.raises(PasswordRefused) as refused:
        check_password(password, [])
    said, reason, advice = refused.value.detail.split(". ")
    assert (said, advice) == ("password: too easy to guess", ADVICE)
    assert len(reason) > 10


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "nine lives of a patient cat",
        "vB7#kQ9!mZ2$wX5",
        "Ångström Ångström",
        "мой любимый старый велосипед",
        "長い合言葉はとても安全です秘密",
        "ann has a very loud bicycle bell",
        "a" * 40 + " nine lives of a patient cat",
        "nine lives of a patient cat " + "a" * 900,
    ],
)
def test_password_that_is_hard_to_guess_is_accepted(password: str) -> None:
    check_password(password, context_words("ann", "notes.example"))


@pytest.mark.parametrize(
    "password", ["annannannannannann", "ann.realtime.notes", "Ann@Example1Example", "realtimenotes2026", "ann"]
)
def test_password_made_of_user_and_host_name_is_refused(password: str) -> None:
    with pytest.raises(PasswordRefused):
        check_password(password.ljust(15, "1"), context_words("ann", "notes.example:8000"))


def test_short_user_name_in_a_password_is_ignored() -> None:
    check_password("go on and goggle at a pogo stick", context_words("go", None))


def test_long_password_is_analyzed_only_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    analyze = zxcvbn_rs_py.zxcvbn
    analyzed: list[str] = []

    def record(password: str) -> zxcvbn_rs_py.Entropy:
        analyzed.append(password)
        return analyze(password)

    monkeypatch.setattr(zxcvbn_rs_py, "zxcvbn", record)
    with pytest.raises(PasswordRefused):
        check_password("a" * 500 + "b" * 500, [])
    assert analyzed == ["a" * ANALYZED_CHARACTERS, "b" * ANALYZED_CHARACTERS]
