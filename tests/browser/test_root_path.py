"""The page below a path prefix, behind proxies that strip the prefix and proxies that do not."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.notes import create_notes, wait_for_content
from tests.browser.page import append_text, editor, title, wait_until_saved
from tests.browser.proxy import proxy
from tests.support.harness import ServerProcess, note_in, rest_client
from tests.support.http import Serve

PREFIX = "/team"


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    """Start a server that is mounted below a prefix."""
    return serve(root_path=PREFIX)


async def _open_page(browser: Browser, path: str) -> tuple[Page, list[str]]:
    """Open a page, and return it with the list of its errors and of its requests outside the prefix."""
    page = await (await browser.new_context()).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)

    def check_prefix(url: str) -> None:
        if not urlsplit(url).path.startswith(f"{PREFIX}/") and not url.startswith(("data:", "blob:")):
            problems.append(url)

    page.on("request", lambda request: check_prefix(request.url))
    page.on("websocket", lambda socket: check_prefix(socket.url))
    await page.goto(path)
    return page, problems


@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "kept"])
async def test_page_below_the_prefix_works_in_all_views(browser: Browser, server: ServerProcess, strip: bool) -> None:
    await create_notes(server, *(note_in(f"Note {number}", content="start ") for number in range(1, 121)))
    async with proxy(server.port, prefix=PREFIX, strip=strip) as between:
        page, problems = await _open_page(browser, f"{between.url}/n/120")
        async with page.expect_websocket(lambda socket: f"{PREFIX}/ws" in socket.url):
            await page.reload()
        await expect(editor(page)).to_have_text("start ")
        await page.locator(".rows").evaluate("rows => { rows.scrollTop = rows.scrollHeight }")
        await expect(page.locator("ol[aria-label='120 notes']")).to_be_attached()  # two pages of the list
        await append_text(page, "and live")
        await wait_until_saved(page)
        await wait_for_content(server, 120, "start and live")

        await page.get_by_role("link", name="History").click()
        await expect(page).to_have_url(f"{between.url}/n/120/history")
        await page.reload()
        await expect(page.locator(".versions button").first).to_be_visible()
        await page.get_by_role("link", name="Notes", exact=True).first.click()
        await expect(page).to_have_url(f"{between.url}/")
        await page.get_by_label("More").click()
        await expect(page.get_by_role("link", name="Export all notes")).to_have_attribute("href", f"{PREFIX}/export")
        await page.get_by_role("button", name="New note").click()
        await title(page).fill("A new note")
        await expect(page).to_have_url(f"{between.url}/n/121")
        await wait_until_saved(page)
        assert problems == []


@pytest.mark.parametrize("path", ["/events", "/changes"])
async def test_fallback_transports_of_the_feed_use_the_prefix(
    browser: Browser, server: ServerProcess, path: str
) -> None:
    await create_notes(server, note_in("First"))
    async with proxy(server.port, prefix=PREFIX) as between:
        context = await browser.new_context()
        await context.route_web_socket(re.compile("/ws"), lambda socket: socket.close(code=1001))
        if path == "/changes":
            await context.route("**/events?*", lambda route: route.abort())
        page = await context.new_page()
        await page.add_init_script("Math.random = () => 0.1")
        async with page.expect_response(re.compile(PREFIX + path), timeout=30_000) as answer:
            await page.goto(f"{between.url}/")
        assert (await answer.value).ok


@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "kept"])
async def test_reference_pages_below_the_prefix_load_without_errors(
    browser: Browser, server: ServerProcess, strip: bool
) -> None:
    async with proxy(server.port, prefix=PREFIX, strip=strip) as between:
        docs, problems = await _open_page(browser, f"{between.url}/docs")
        await expect(docs.locator(".opblock").first).to_be_visible()
        redoc, more = await _open_page(browser, f"{between.url}/redoc")
        await expect(redoc.locator("#reference").get_by_text("/changes", exact=True).first).to_be_attached()
        async with rest_client(f"http://127.0.0.1:{between.port}") as rest:
            icon = re.search(r'rel="icon" href="([^"]+)"', (await rest.get(f"{PREFIX}/n/1")).text)
            assert icon
            assert (await rest.get(icon[1])).headers["content-type"] == "image/svg+xml"
        assert problems + more == []


async def test_names_in_browser_storage_start_with_the_prefix(
    browser: Browser, serve: Serve, server: ServerProcess
) -> None:
    await create_notes(server, note_in("Below the prefix"))
    async with proxy(server.port, prefix=PREFIX) as between:
        page, _ = await _open_page(browser, f"{between.url}/n/1")
        await expect(title(page)).to_have_value("Below the prefix")
        await expect(editor(page)).to_be_visible()
        await wait_until_saved(page)
        await page.context.set_offline(True)
        await title(page).fill("Not saved yet")
        await editor(page).fill("not saved either")
        names = await page.evaluate(STORED)
        await page.context.set_offline(False)
    assert names
    assert [name for name in names if not name.startswith(f"{PREFIX}:")] == []


async def test_note_links_in_a_text_point_below_the_prefix(browser: Browser, server: ServerProcess) -> None:
    await create_notes(server, note_in("First", content="[other](/n/2) and [elsewhere](/wiki/n/2)"))
    async with proxy(server.port, prefix=PREFIX) as between:
        page = await (await browser.new_context()).new_page()
        await page.add_init_script("localStorage.setItem('mode', 'both')")
        await page.goto(f"{between.url}/n/1")
        links = page.locator(".preview a")
        await expect(links.nth(0)).to_have_attribute("href", f"{PREFIX}/n/2")
        await expect(links.nth(1)).to_have_attribute("href", "/wiki/n/2")


async def test_prefix_without_a_slash_opens_the_page(browser: Browser, server: ServerProcess) -> None:
    async with proxy(server.port, prefix=PREFIX, strip=True) as between:
        page, problems = await _open_page(browser, between.url)
        await expect(page.get_by_text("No notes yet")).to_be_visible()
        assert [problem for problem in problems if not problem.endswith(PREFIX)] == []


STORED = """async () => [
  ...Object.keys(localStorage).filter((key) => !["theme", "mode", "letters", "name"].includes(key)),
  ...Object.keys(sessionStorage),
  ...(await indexedDB.databases()).map(({ name }) => name),
  ...(await navigator.locks.query()).held.map(({ name }) => name),
]"""
