"""The page and the reference pages: their security policies and their assets."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.api import webapp
from realtime.api.webapp import NONCE, STATIC

PAGES = ["/", "/docs", "/docs/oauth2-redirect", "/redoc"]


@pytest.mark.parametrize("page", PAGES)
def test_page_has_a_strict_security_policy(client: TestClient, page: str) -> None:
    first, second = client.get(page), client.get(page if page == "/" else page + "/")
    policy = first.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*", policy)
    own_rule = "script-src 'self'" if page == "/" else "form-action 'none'"
    for rule in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", own_rule):
        assert rule in policy
    nonces = []
    for answer in (first, second):
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        (nonce,) = set(re.findall(r"'nonce-([\w-]{20,})'", answer.headers["Content-Security-Policy"]))
        for kind in ("script-src", "style-src") if page != "/" else ():
            assert f"{kind} 'nonce-{nonce}';" in answer.headers["Content-Security-Policy"]
        assert NONCE not in answer.text
        assert f'nonce="{nonce}"' in answer.text
        assert all(f'nonce="{nonce}"' in tag for tag in re.findall(r"<(?:script|style)[^>]*>", answer.text))
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("page", PAGES[1:])
def test_reference_page_without_a_build_returns_503(
    client: TestClient, page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(webapp, "STATIC", tmp_path)
    answer = client.get(page)
    said = "The web app is not built. Install the package again"
    assert (answer.status_code, answer.json()) == (503, {"detail": said})


@pytest.mark.parametrize("page", PAGES)
def test_assets_are_local_immutable_and_compressed(client: TestClient, page: str) -> None:
    named = re.findall(r"""(?:src|href)=["']([^"']+)""", client.get(page).text)
    paths = [path for path in named if path.startswith("/assets/")]
    assert paths
    assert set(named) - set(paths) <= {"/icon.svg", "/notes/" if page == "/" else "/openapi.json"}
    assert page != "/" or {path.rpartition(".")[2] for path in paths} == {"js", "css"}
    for path in paths:
        assert re.search(r"-[\w-]{8}\.(js|css)$", path)
        plain = client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        if len(plain.content) < 1024:  # too small to be compressed
            continue
        for encoding in ("br", "gzip"):
            packed = client.get(path, headers={"Accept-Encoding": f"{encoding};q=1.0"})
            assert packed.headers["Content-Encoding"] == encoding
            assert packed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert packed.headers["Vary"] == "Accept-Encoding"
            assert packed.headers["Content-Type"] == plain.headers["Content-Type"]
            assert int(packed.headers["Content-Length"]) < len(plain.content)
            stored = (STATIC / "assets" / path.rpartition("/")[2]).with_name(path.rpartition("/")[2] + ".gz")
            assert gzip.decompress(stored.read_bytes()) == plain.content
