"""Device tokens: validity and expiry."""

from __future__ import annotations

import time

import pytest

from realtime.auth.devices import DEVICE_SECONDS, find_device, issue_device, same_device

KEY = "k" * 32


def test_device_token_identifies_the_device_of_its_user() -> None:
    token = issue_device(KEY, "ann", 0)
    id = find_device(KEY, ["nonsense", token], "ann", 0)
    assert id is not None
    renewed = issue_device(KEY, "ann", 0, id)
    assert find_device(KEY, [renewed], "ann", 0) == id
    assert same_device(token, renewed)
    assert not same_device(token, issue_device(KEY, "ann", 0))


@pytest.mark.parametrize(("key", "name", "generation"), [("x" * 32, "ann", 0), (KEY, "bob", 0), (KEY, "ann", 1)])
def test_device_token_of_another_key_user_or_generation_is_rejected(key: str, name: str, generation: int) -> None:
    assert find_device(key, [issue_device(KEY, "ann", 0)], name, generation) is None


def test_forged_device_token_is_rejected() -> None:
    id, issued, code = issue_device(KEY, "ann", 0).split("-")
    other = issue_device(KEY, "ann", 0).split("-")[0]
    later = f"{int(issued, 16) + 1:x}"
    forged = [
        *(f"{other}-{issued}-{code}", f"{id}-{later}-{code}", f"{id}-{issued}-{'0' * 64}", f"{id}-{issued}-{code}x"),
        *("", "-", "--", f"{id}-{issued}", f"{id}--{code}", f"{id}-{issued}-{code.upper()}", "x" * 9000),
    ]
    assert find_device(KEY, forged, "ann", 0) is None


def test_device_token_expires_after_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    token = issue_device(KEY, "ann", 0)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + DEVICE_SECONDS - 60)
    assert find_device(KEY, [token], "ann", 0) is not None
    monkeypatch.setattr(time, "time", lambda: now + DEVICE_SECONDS + 60)
    assert find_device(KEY, [token], "ann", 0) is None
