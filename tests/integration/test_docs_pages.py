"""The reference pages: their headers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.api import webapp
from realtime.api.webapp import NONCE

PATHS = ["/docs", "/docs/oauth2-redirect", "/redoc"]


@pytest.mark.parametrize("path", PATHS)
def test_reference_page_has_a_strict_security_policy(client: TestClient, path: str) -> None:
    first, second = client.get(path), client.get(path + "/")
    policy = first.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    for rule in ("default-src 'none'", "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    nonces = []
    for answer in (first, second):
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        (nonce,) = set(re.findall(r"'nonce-([\w-]{20,})'", answer.headers["Content-Security-Policy"]))
        for kind in ("script-src", "style-src"):
            assert f"{kind} 'nonce-{nonce}';" in answer.headers["Content-Security-Policy"]
        assert NONCE not in answer.text
        assert all(f'nonce="{nonce}"' in tag for tag in re.findall(r"<(?:script|style)[^>]*>", answer.text))
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("path", PATHS)
def test_reference_page_without_a_build_returns_503(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webapp, "STATIC", tmp_path)
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (
        503,
        {"detail": "The web app is not built. Install the package again"},
    )
