"""The reference pages in a real browser."""

from __future__ import annotations

from playwright.async_api import Browser, Page, expect

from realtime.settings import Settings
from tests.browser.page import Open
from tests.support.accounts import PASSWORD, add_user, with_accounts
from tests.support.harness import ServerProcess, rest_client
from tests.support.http import Serve


async def test_swagger_ui_lists_operations_and_sends_requests(opened: Open, server: ServerProcess) -> None:
    docs = await opened("/docs")
    async with rest_client(server.url) as rest:
        paths = (await rest.get("/openapi.json")).json()["paths"]
    await expect(docs.locator(".opblock")).to_have_count(sum(map(len, paths.values())))
    await _create_note(docs)
    async with rest_client(server.url) as rest:
        assert (await rest.get("/notes/1/")).status_code == 200


async def _create_note(docs: Page) -> None:
    """Create a note with Swagger UI."""
    making = docs.locator(".opblock-post", has=docs.locator('[data-path="/notes/"]'))
    await making.locator(".opblock-summary-control").click()
    await making.get_by_role("button", name="Try it out").click()
    await making.get_by_role("button", name="Execute").click()
    await expect(making.locator(".live-responses-table .response-col_status").last).to_contain_text("201")


async def test_swagger_ui_signs_in_with_a_password(browser: Browser, settings: Settings, serve: Serve) -> None:
    await add_user(with_accounts(settings), "ann")
    server = serve(auth="accounts", password_memory=8)
    docs = await (await browser.new_context(base_url=server.url)).new_page()
    await docs.goto("/docs")
    await docs.locator(".auth-wrapper .authorize").first.click()
    form = docs.locator(".auth-container", has_text="password").first
    await form.get_by_label("username:").fill("ann")
    await form.get_by_label("password:").fill(PASSWORD)
    await form.locator(".auth-btn-wrapper .authorize").click()
    await expect(form.locator(".auth-btn-wrapper")).to_contain_text("Logout")
    await docs.locator(".btn-done").first.click()
    await _create_note(docs)


async def test_redoc_shows_paths_and_search_results(opened: Open) -> None:
    redoc = await opened("/redoc")
    for path in ("/notes/", "/notes/{id}/", "/changes"):
        await expect(redoc.locator("#reference").get_by_text(path, exact=True).first).to_be_attached()
    await redoc.get_by_role("searchbox").or_(redoc.get_by_placeholder("Search...")).first.fill("restore")
    await expect(redoc.locator("[data-role='search:results'] li").first).to_be_visible()


async def test_oauth_redirect_window_returns_the_authorization_code(opened: Open) -> None:
    docs = await opened("/docs")
    await expect(docs.locator(".opblock").first).to_be_visible()
    code = await docs.evaluate("""() => new Promise((resolve) => {
        const schema = { get: () => "authorizationCode" };
        const handed = (payload) => resolve(payload.auth.code);
        window.swaggerUIRedirectOauth2 = { auth: { schema }, state: "s", callback: handed, errCb: console.error };
        window.open("/docs/oauth2-redirect?code=the-code&state=s");
    })""")
    assert code == "the-code"
