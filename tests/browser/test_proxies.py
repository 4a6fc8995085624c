"""The page behind real reverse proxies, with documented and with common configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.notes import create_notes, wait_for_content, wait_for_note
from tests.browser.page import SECOND, append_text, editor, expect_saved_text, wait_until_saved
from tests.support.harness import ServerProcess, note_in
from tests.support.http import Serve
from tests.support.reverse_proxies import NAMES, documented, reverse_proxy

BARE = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }"
NO_LIVE_EDITING = "Live editing is not available here"


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    """Start a server without accounts that the proxy may expose."""
    return serve(allow_public=True)


async def _open(browser: Browser, url: str, path: str) -> Page:
    page = await browser.new_page()
    await page.goto(url + path)
    return page


@pytest.mark.parametrize("name", NAMES)
async def test_two_editors_behind_each_proxy_share_a_text(
    browser: Browser, server: ServerProcess, tmp_path: Path, name: str
) -> None:
    await create_notes(server, note_in("Proxied", content="start"))
    async with reverse_proxy(name, server, tmp_path / name) as url:
        one, other = [await _open(browser, url, "/n/1") for _ in range(2)]
        for page in (one, other):
            await expect_saved_text(page, "start")
        await append_text(one, ", and more")
        await expect(editor(other)).to_have_text("start, and more", timeout=5 * SECOND)
        await wait_for_content(server, 1, "start, and more")
        await create_notes(server, note_in("Another", "from elsewhere"))
        await expect(one.get_by_role("link", name="Another")).to_be_visible()
        assert await one.get_by_text(NO_LIVE_EDITING).count() == 0
        for page in (one, other):
            await page.context.close()


async def test_proxy_without_websocket_support_saves_text_over_rest(
    browser: Browser, server: ServerProcess, tmp_path: Path
) -> None:
    await create_notes(server, note_in("Proxied", content="start"))
    async with reverse_proxy("nginx", server, tmp_path / "nginx", BARE) as url:
        one, other = [await _open(browser, url, "/n/1") for _ in range(2)]
        for page in (one, other):
            await expect(page.get_by_text(NO_LIVE_EDITING)).to_be_visible(timeout=30 * SECOND)
        await append_text(one, ", and more")
        await wait_for_content(server, 1, "start, and more", within=15)
        await expect(editor(other)).to_have_text("start, and more", timeout=15 * SECOND)
        await wait_until_saved(one)
        for page in (one, other):
            await page.context.close()


@pytest.mark.parametrize("strip", [True, False])
async def test_page_below_a_prefix_equal_to_a_route_works(
    browser: Browser, serve: Serve, tmp_path: Path, strip: bool
) -> None:
    server = serve(root_path="/notes", allow_public=True)
    site = documented("nginx").replace("location / {", "location /notes/ {")
    if strip:
        site = site.replace("127.0.0.1:8000;", "127.0.0.1:8000/;")
    async with reverse_proxy("nginx", server, tmp_path / "nginx", site) as url:
        page = await _open(browser, url, "/notes/")
        await page.get_by_role("button", name="New note").click()
        await page.get_by_label("Title", exact=True).fill("Below a path")
        await editor(page).fill("words")
        await wait_until_saved(page)
        await expect(page).to_have_url(f"{url}/notes/n/1")
        await wait_for_note(server, 1, title="Below a path", content="words")
        await page.reload()
        await expect(editor(page)).to_have_text("words")
        await page.goto(f"{url}/notes/docs")
        await expect(page.get_by_text("Create a note")).to_be_visible()
        await page.context.close()
