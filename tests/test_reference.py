"""The reference pages: what the browser is told, and what a real one makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Route, expect
from starlette.testclient import TestClient

from realtime import page
from realtime.page import NONCE
from tests.harness import ServerProcess, rest_client

PATHS = ["/docs", "/docs/oauth2-redirect", "/redoc"]


@pytest.mark.parametrize("path", PATHS)
def test_policy_allows_nothing_inline_and_nothing_foreign(client: TestClient, path: str) -> None:
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
def test_every_file_is_ours_kept_for_ever_and_packed(client: TestClient, path: str) -> None:
    named = re.findall(r"""(?:src|href)=["']([^"']+)""", client.get(path).text)
    assets = [address for address in named if address.startswith("/assets/")]
    assert assets
    assert set(named) - set(assets) <= {"/icon.svg", "/openapi.json"}
    for address in assets:
        assert re.search(r"-[\w-]{8}\.(js|css)$", address)
        plain = client.get(address, headers={"Accept-Encoding": "identity"})
        assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        if len(plain.content) >= 1024:
            for encoding in ("br", "gzip"):
                packed = client.get(address, headers={"Accept-Encoding": encoding})
                assert packed.headers["Content-Encoding"] == encoding
            assert packed.content == plain.content


@pytest.mark.parametrize("path", PATHS)
def test_without_a_build_it_says_so(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(page, "STATIC", tmp_path)
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (503, {"detail": "The page is not built: install the package again"})


async def test_swagger_ui_shows_and_tries_out(opened: Callable[..., Any], server: ServerProcess) -> None:
    docs = await opened("/docs")
    async with rest_client(server.url) as rest:
        paths = (await rest.get("/openapi.json")).json()["paths"]
    await expect(docs.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
    making = docs.locator(".opblock-post", has=docs.locator('[data-path="/notes/"]'))
    await making.locator(".opblock-summary-control").click()
    await making.get_by_role("button", name="Try it out").click()
    await making.get_by_role("button", name="Execute").click()
    await expect(making.locator(".live-responses-table .response-col_status").last).to_contain_text("201")
    async with rest_client(server.url) as rest:
        assert (await rest.get("/notes/1/")).status_code == 200


async def test_swagger_ui_signs_in_with_a_password(opened: Callable[..., Any], server: ServerProcess) -> None:
    docs = await opened()
    asked: list[str | None] = []

    async def description(route: Route) -> None:
        answer = await route.fetch()
        described = await answer.json()
        flow = {"password": {"tokenUrl": "/auth/token", "scopes": {}}}
        described["components"]["securitySchemes"] = {"Password": {"type": "oauth2", "flows": flow}}
        described["security"] = [{"Password": []}]
        await route.fulfill(json=described)

    async def token(route: Route) -> None:
        asked.append(route.request.post_data)
        await route.fulfill(json={"access_token": "a-token", "token_type": "bearer"})

    await docs.route("**/openapi.json", description)
    await docs.route("**/auth/token", token)
    await docs.goto("/docs")
    await docs.locator(".auth-wrapper .authorize").first.click()
    await docs.get_by_label("username:").fill("ann")
    await docs.get_by_label("password:").fill("secret")
    await docs.locator(".auth-btn-wrapper .authorize").click()
    await expect(docs.locator(".auth-btn-wrapper")).to_contain_text("Logout")
    assert "username=ann&password=secret" in (asked[0] or "")
    await docs.locator(".btn-done").click()
    ping = docs.locator(".opblock-get", has=docs.locator('[data-path="/ping"]'))
    await ping.locator(".opblock-summary-control").click()
    await ping.get_by_role("button", name="Try it out").click()
    async with docs.expect_request("**/ping") as request:
        await ping.get_by_role("button", name="Execute").click()
    assert (await request.value).headers["authorization"] == "Bearer a-token"


async def test_redoc_shows_and_searches(opened: Callable[..., Any]) -> None:
    redoc = await opened("/redoc")
    for path in ("/notes/", "/notes/{id}/", "/changes"):
        await expect(redoc.locator("#reference").get_by_text(path, exact=True).first).to_be_attached()
    await redoc.get_by_role("searchbox").or_(redoc.get_by_placeholder("Search...")).first.fill("restore")
    await expect(redoc.locator("[data-role='search:results'] li").first).to_be_visible()


async def test_window_that_signed_in_hands_over_the_code(opened: Callable[..., Any]) -> None:
    docs = await opened("/docs")
    await expect(docs.locator(".opblock").first).to_be_visible()
    code = await docs.evaluate("""() => new Promise((resolve) => {
        const schema = { get: () => "authorizationCode" };
        const handed = (payload) => resolve(payload.auth.code);
        window.swaggerUIRedirectOauth2 = { auth: { schema }, state: "s", callback: handed, errCb: console.error };
        window.open("/docs/oauth2-redirect?code=the-code&state=s");
    })""")
    assert code == "the-code"
