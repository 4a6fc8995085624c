"""If `/sync` does not work, the text is saved over REST. Switching loses and duplicates no text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, WebSocketRoute, expect

from tests.browser.notes import change_note, create_notes, delete_note, read_note, wait_for_content
from tests.browser.page import SECOND, editor, expect_saved_text, light, title, wait_until_saved
from tests.browser.proxy import Proxy, Sync, proxy
from tests.support.harness import ServerProcess, eventually, note_in

LINE = "Live editing is not available here. Your changes are saved every few seconds."
SOON = 20 * SECOND


@pytest_asyncio.fixture(loop_scope="session")
async def sync_proxy(server: ServerProcess) -> AsyncIterator[Proxy]:
    """Run a proxy in front of the server."""
    async with proxy(server.port) as running:
        yield running


def fallback_notice(page: Page) -> Locator:
    """Return the notice that the text is saved over REST."""
    return page.get_by_text(LINE)


async def _open(browser: Browser, url: str, path: str = "/n/1") -> Page:
    page = await (await browser.new_context(base_url=url)).new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    await page.goto(path)
    return page


async def _open_new(browser: Browser, server: ServerProcess, through: Proxy, content: str = "start\n") -> Page:
    """Create note 1, and open it through a proxy."""
    await create_notes(server, note_in("Title", content=content))
    return await _open(browser, through.url)


async def _type(page: Page, words: str) -> None:
    await editor(page).press("Control+End")
    await page.keyboard.type(words, delay=15)


async def _expect_fallback(page: Page) -> None:
    await expect(fallback_notice(page)).to_be_visible(timeout=SOON)
    await expect(editor(page)).to_have_attribute("contenteditable", "true")


async def _expect_live(page: Page) -> None:
    await expect(fallback_notice(page)).to_have_count(0, timeout=40 * SECOND)
    await expect(editor(page)).to_be_visible()


@pytest.mark.parametrize("sync", ["404", "403", "silent", "hang", "brief"])
async def test_unavailable_sync_saves_the_text_over_rest(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy, sync: Sync
) -> None:
    sync_proxy.set_sync(sync)
    page = await _open_new(browser, server, sync_proxy, "one\ntwo\nthree\n")
    other = await _open(browser, server.url)
    await _expect_fallback(page)
    await _type(page, "typed over REST")
    await wait_for_content(server, 1, "one\ntwo\nthree\ntyped over REST")
    await expect(editor(other)).to_contain_text("typed over REST")
    await wait_until_saved(page)

    # Text of other users appears, and is merged with the text being typed.
    await editor(page).press("Control+End")
    await page.keyboard.type(", and ")
    await editor(other).press("Control+Home")
    await other.keyboard.type("Other ")
    await expect(editor(page)).to_contain_text("Other one")
    await page.keyboard.type("on")
    await wait_for_content(server, 1, "Other one\ntwo\nthree\ntyped over REST, and on")
    await wait_until_saved(page)
    assert sync_proxy.attempts > 0

    # Back to shared editing.
    sync_proxy.set_sync("pass")
    await _type(page, ", on")
    await _expect_live(page)
    await _type(page, ", live")
    await expect(editor(other)).to_contain_text("and on, on, live", timeout=2 * SECOND)
    await wait_for_content(server, 1, "Other one\ntwo\nthree\ntyped over REST, and on, on, live")
    await expect(editor(other)).to_have_text(re.compile(r"^Other onetwothreetyped over REST, and on, on, live$"))


async def test_proxy_without_websockets_shows_and_saves_text(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    sync_proxy.websockets = False
    page = await _open_new(browser, server, sync_proxy)
    await _expect_fallback(page)
    await _type(page, "typed")
    await wait_for_content(server, 1, "start\ntyped")
    await change_note(server, content="START\ntyped")
    await expect(editor(page)).to_have_text("STARTtyped")
    await wait_until_saved(page)


async def test_reload_during_the_switch_to_rest_sends_text_once(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    page = await _open_new(browser, server, sync_proxy)
    await expect_saved_text(page, "start")
    await page.context.set_offline(True)
    sync_proxy.set_sync("404")
    await _type(page, "words")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await page.evaluate(STORE_MOVED_DRAFT, await read_note(server))
    sync_proxy.set_sync("pass")
    await page.context.set_offline(False)
    await page.reload()
    await expect(editor(page)).to_contain_text("words")
    await wait_until_saved(page)
    await _type(page, "!")
    await wait_for_content(server, 1, "start\nwords!")


STORE_MOVED_DRAFT = """async (note) => {
  const tab = sessionStorage.getItem("tab");
  const { version, created_date: created, title, description, tags, content } = note;
  const base = { title, description, tags, content };
  const draft = {
    key: `1-${tab}`, tab, id: 1, base: { ...base, version }, created, mine: { ...base, content: content + "words" },
    sending: null, conflict: null, error: null, touched: Date.now(), overRest: true, absorbed: `1@${created}`,
  };
  const opening = indexedDB.open("notes");
  await new Promise((done) => { opening.onsuccess = done; });
  const writing = opening.result.transaction("drafts", "readwrite");
  writing.objectStore("drafts").put(draft);
  await new Promise((done) => { writing.oncomplete = done; });
  opening.result.close();
}"""
"""Stores the draft of a page that was closed before it deleted its local copy of the shared text."""


async def test_interrupted_sync_saves_unacknowledged_text_once(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    page = await _open_new(browser, server, sync_proxy)
    await expect(editor(page)).to_contain_text("start")
    await _type(page, "live ")
    await wait_until_saved(page)
    sync_proxy.set_sync("404")
    await _type(page, "in between ")
    await _expect_fallback(page)
    await expect(editor(page)).to_be_focused()
    await page.keyboard.type("and after")
    await wait_for_content(server, 1, "start\nlive in between and after")
    await change_note(server, content="START\nlive in between and after")
    await expect(editor(page)).to_contain_text("START")
    sync_proxy.set_sync("pass")
    await _expect_live(page)
    await wait_for_content(server, 1, "START\nlive in between and after")
    await _type(page, "!")
    await wait_for_content(server, 1, "START\nlive in between and after!")
    await page.reload()
    await expect(editor(page)).to_contain_text("and after!")
    await wait_until_saved(page)
    await wait_for_content(server, 1, "START\nlive in between and after!")


async def test_sync_that_stops_responding_saves_the_text_over_rest(browser: Browser, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="start\n"))
    context = await browser.new_context(base_url=server.url)
    page = await context.new_page()
    silent = False

    def connect(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()
        socket.on_message(lambda message: None if silent else upstream.send(message))
        upstream.on_message(lambda message: None if silent else socket.send(message))

    await page.route_web_socket(re.compile("/sync/"), connect)
    await page.goto("/n/1")
    await expect_saved_text(page, "start")
    silent = True
    await _type(page, "unheard")
    await expect(fallback_notice(page)).to_be_visible(timeout=40 * SECOND)
    await wait_for_content(server, 1, "start\nunheard")
    silent = False
    await _expect_live(page)
    await _type(page, ", heard")
    await wait_for_content(server, 1, "start\nunheard, heard")


async def test_reload_in_rest_mode_keeps_text_and_mode(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    sync_proxy.set_sync("404")
    page = await _open_new(browser, server, sync_proxy)
    await _expect_fallback(page)
    await _type(page, "before a reload")
    await page.reload()
    await expect(editor(page)).to_contain_text("before a reload")
    await expect(fallback_notice(page)).to_be_visible(timeout=2 * SECOND)
    await _type(page, ", after it")
    await wait_for_content(server, 1, "start\nbefore a reload, after it")
    sync_proxy.set_sync("pass")
    await page.reload()
    await _expect_live(page)
    await _type(page, ", live")
    await wait_for_content(server, 1, "start\nbefore a reload, after it, live")


async def test_text_typed_offline_is_saved_over_rest_once(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    page = await _open_new(browser, server, sync_proxy)
    await expect_saved_text(page, "start")
    sync_proxy.set_sync("404")
    await page.context.set_offline(True)
    await _type(page, "offline ")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await change_note(server, content="START\n")
    await page.context.set_offline(False)
    await page.reload()  # the text is only in the local copy
    await _expect_fallback(page)
    await wait_for_content(server, 1, "START\noffline ")
    sync_proxy.set_sync("pass")
    await _expect_live(page)
    await wait_until_saved(page)
    await _type(page, "live")
    await wait_for_content(server, 1, "START\noffline live")


async def test_two_tabs_in_rest_mode_save_text_once(browser: Browser, server: ServerProcess, sync_proxy: Proxy) -> None:
    await create_notes(server, note_in("Title", content="start\n"))
    one = await _open(browser, sync_proxy.url)
    two = await one.context.new_page()
    await two.goto("/n/1")
    for page in (one, two):
        await expect_saved_text(page, "start")
    sync_proxy.set_sync("404")
    await _type(one, "words")
    for page in (one, two):
        await _expect_fallback(page)
    await wait_for_content(server, 1, "start\nwords")
    await expect(editor(two)).to_contain_text("words")
    sync_proxy.set_sync("pass")
    for page in (one, two):
        await _expect_live(page)
        await wait_until_saved(page)
    await _type(two, "!")
    await expect(editor(one)).to_contain_text("words!")
    await wait_for_content(server, 1, "start\nwords!")


async def test_live_tab_and_rest_tab_save_text_once(browser: Browser, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="start\n"))
    context = await browser.new_context(base_url=server.url)
    one, two = await context.new_page(), await context.new_page()
    await one.route_web_socket(re.compile("/sync/"), lambda socket: socket.close(code=1001))
    await two.goto("/n/1")
    await expect_saved_text(two, "start")
    await one.goto("/n/1")
    await expect(editor(one)).to_contain_text("start")
    await _type(one, "one ")
    await _expect_fallback(one)
    await editor(two).press("Control+Home")
    await two.keyboard.type("two ")
    await _type(one, "three")
    await wait_until_saved(one)
    await wait_until_saved(two)

    async def once() -> None:
        content = (await read_note(server))["content"]
        assert sorted(content.split()) == ["one", "start", "three", "two"]

    await eventually(once, within=10)


@pytest.mark.parametrize(("choice", "becomes"), [("Keep mine", "mine"), ("Take theirs", "theirs")])
async def test_text_conflict_in_rest_mode_applies_the_choice(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy, choice: str, becomes: str
) -> None:
    sync_proxy.set_sync("404")
    page = await _open_new(browser, server, sync_proxy, "first\nsame\nlast\n")
    await _expect_fallback(page)
    await page.context.set_offline(True)
    await editor(page).fill("first\nmine\nLAST\n")
    await change_note(server, content="FIRST\ntheirs\nlast\n")
    await page.context.set_offline(False)
    panel = page.get_by_role("region", name="Conflict")
    await expect(panel).to_be_visible(timeout=SOON)
    await expect(panel).to_contain_text("Yours (text)")
    await panel.get_by_role("button", name=choice).click()
    await wait_until_saved(page)
    content = (await read_note(server))["content"]
    assert becomes in content
    assert {"mine", "theirs"} - {becomes} - set(content.split()) == {"mine", "theirs"} - {becomes}


async def test_new_note_in_rest_mode_saves_all_text(browser: Browser, server: ServerProcess, sync_proxy: Proxy) -> None:
    sync_proxy.set_sync("404")
    page = await _open(browser, sync_proxy.url, "/")
    await page.get_by_role("button", name="New note").click()
    await title(page).fill("New note")
    await _type(page, "first words")
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await _type(page, ", more")
    await _expect_fallback(page)
    await _type(page, ", and more")
    await wait_for_content(server, 1, "first words, more, and more")
    await wait_until_saved(page)


async def test_note_deleted_in_rest_mode_keeps_the_typed_text(
    browser: Browser, server: ServerProcess, sync_proxy: Proxy
) -> None:
    sync_proxy.set_sync("404")
    page = await _open_new(browser, server, sync_proxy, "start ")
    await _expect_fallback(page)
    await delete_note(server, 1)
    await expect(page.get_by_role("alert")).to_contain_text("This note was deleted")
    await expect(fallback_notice(page)).to_have_count(0)
    await _type(page, "and after")
    await page.get_by_role("button", name="Restore it").click()
    await wait_until_saved(page)
    await wait_for_content(server, 1, "start and after")


async def test_offline_page_does_not_switch_to_rest(browser: Browser, server: ServerProcess, sync_proxy: Proxy) -> None:
    page = await _open_new(browser, server, sync_proxy, "start ")
    await expect_saved_text(page, "start ")
    await page.clock.install()
    await page.context.set_offline(True)
    sync_proxy.set_sync("pass")  # aborts the open connections
    await _type(page, "offline")
    await page.clock.run_for(30_000)
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await expect(fallback_notice(page)).to_have_count(0)
    await page.context.set_offline(False)
    await expect(light(page, "saved")).to_be_visible(timeout=40 * SECOND)
    await wait_for_content(server, 1, "start offline")
