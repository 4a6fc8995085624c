"""If `/sync` does not work, the text is saved over REST. Switching loses and duplicates no text."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, WebSocketRoute, expect

from tests.browser.page import SECOND, editor, holds, light, make, read_note, saved, title
from tests.browser.proxy import Proxy, Sync, proxy
from tests.support.harness import ServerProcess, eventually, note_in, rest_client

LINE = "Live editing is not available here. Your changes are saved every few seconds."
SOON = 20 * SECOND


@pytest_asyncio.fixture(loop_scope="session")
async def between(server: ServerProcess) -> AsyncIterator[Proxy]:
    """A proxy in front of the server."""
    async with proxy(server.port) as running:
        yield running


def line(page: Page) -> Locator:
    """The line that says that the text is saved over REST."""
    return page.get_by_text(LINE)


async def _open(browser: Browser, url: str, path: str = "/n/1") -> Page:
    page = await (await browser.new_context(base_url=url)).new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    await page.goto(path)
    return page


async def _type(page: Page, words: str) -> None:
    await editor(page).press("Control+End")
    await page.keyboard.type(words, delay=15)


async def _unavailable(page: Page) -> None:
    await expect(line(page)).to_be_visible(timeout=SOON)
    await expect(editor(page)).to_have_attribute("contenteditable", "true")


async def _live(page: Page) -> None:
    await expect(line(page)).to_have_count(0, timeout=40 * SECOND)
    await expect(editor(page)).to_be_visible()


@pytest.mark.parametrize("sync", ["404", "403", "silent", "hang", "brief"])
async def test_sync_that_does_not_work_saves_over_rest(
    browser: Browser, server: ServerProcess, between: Proxy, sync: Sync
) -> None:
    await make(server, note_in("Title", content="one\ntwo\nthree\n"))
    between.set_sync(sync)
    page = await _open(browser, between.url)
    other = await _open(browser, server.url)
    await _unavailable(page)
    await _type(page, "typed over REST")
    await holds(server, 1, "one\ntwo\nthree\ntyped over REST")
    await expect(editor(other)).to_contain_text("typed over REST")
    await saved(page)

    # The text of others appears, and is merged with the text being typed.
    await editor(page).press("Control+End")
    await page.keyboard.type(", and ")
    await editor(other).press("Control+Home")
    await other.keyboard.type("Other ")
    await expect(editor(page)).to_contain_text("Other one")
    await page.keyboard.type("on")
    await holds(server, 1, "Other one\ntwo\nthree\ntyped over REST, and on")
    await saved(page)
    assert between.attempts > 0

    # Back to shared editing.
    between.set_sync("pass")
    await _type(page, ", on")
    await _live(page)
    await _type(page, ", live")
    await expect(editor(other)).to_contain_text("and on, on, live", timeout=2 * SECOND)
    await holds(server, 1, "Other one\ntwo\nthree\ntyped over REST, and on, on, live")
    await expect(editor(other)).to_have_text(re.compile(r"^Other onetwothreetyped over REST, and on, on, live$"))


async def test_proxy_without_websockets_still_shows_and_saves(
    browser: Browser, server: ServerProcess, between: Proxy
) -> None:
    await make(server, note_in("Title", content="start\n"))
    between.websockets = False
    page = await _open(browser, between.url)
    await _unavailable(page)
    await _type(page, "typed")
    await holds(server, 1, "start\ntyped")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "START\ntyped"})
    await expect(editor(page)).to_have_text("STARTtyped")
    await saved(page)


async def test_page_that_goes_while_words_are_moved_sends_them_once(
    browser: Browser, server: ServerProcess, between: Proxy
) -> None:
    await make(server, note_in("Title", content="start\n"))
    page = await _open(browser, between.url)
    await expect(editor(page)).to_contain_text("start")
    await saved(page)
    await page.context.set_offline(True)
    between.set_sync("404")
    await _type(page, "words")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await page.evaluate(MOVED, await read_note(server))
    between.set_sync("pass")
    await page.context.set_offline(False)
    await page.reload()
    await expect(editor(page)).to_contain_text("words")
    await saved(page)
    await _type(page, "!")
    await holds(server, 1, "start\nwords!")


MOVED = """async (note) => {
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
"""Leaves the draft of a page that has gone before the local copy was superseded."""


async def test_sync_that_dies_moves_unacknowledged_words_once(
    browser: Browser, server: ServerProcess, between: Proxy
) -> None:
    await make(server, note_in("Title", content="start\n"))
    page = await _open(browser, between.url)
    await expect(editor(page)).to_contain_text("start")
    await _type(page, "live ")
    await saved(page)
    between.set_sync("404")
    await _type(page, "in between ")
    await _unavailable(page)
    await expect(editor(page)).to_be_focused()
    await page.keyboard.type("and after")
    await holds(server, 1, "start\nlive in between and after")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "START\nlive in between and after"})
    await expect(editor(page)).to_contain_text("START")
    between.set_sync("pass")
    await _live(page)
    await holds(server, 1, "START\nlive in between and after")
    await _type(page, "!")
    await holds(server, 1, "START\nlive in between and after!")
    await page.reload()
    await expect(editor(page)).to_contain_text("and after!")
    await saved(page)
    await holds(server, 1, "START\nlive in between and after!")


async def test_sync_that_falls_silent_while_live_saves_over_rest(browser: Browser, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="start\n"))
    context = await browser.new_context(base_url=server.url)
    page = await context.new_page()
    silent = False

    def connect(socket: WebSocketRoute) -> None:
        upstream = socket.connect_to_server()
        socket.on_message(lambda message: None if silent else upstream.send(message))
        upstream.on_message(lambda message: None if silent else socket.send(message))

    await page.route_web_socket(re.compile("/sync/"), connect)
    await page.goto("/n/1")
    await expect(editor(page)).to_contain_text("start")
    await saved(page)
    silent = True
    await _type(page, "unheard")
    await expect(line(page)).to_be_visible(timeout=40 * SECOND)
    await holds(server, 1, "start\nunheard")
    silent = False
    await _live(page)
    await _type(page, ", heard")
    await holds(server, 1, "start\nunheard, heard")


async def test_reload_over_rest_keeps_words_and_mode(browser: Browser, server: ServerProcess, between: Proxy) -> None:
    await make(server, note_in("Title", content="start\n"))
    between.set_sync("404")
    page = await _open(browser, between.url)
    await _unavailable(page)
    await _type(page, "before a reload")
    await page.reload()
    await expect(editor(page)).to_contain_text("before a reload")
    await expect(line(page)).to_be_visible(timeout=2 * SECOND)
    await _type(page, ", after it")
    await holds(server, 1, "start\nbefore a reload, after it")
    between.set_sync("pass")
    await page.reload()
    await _live(page)
    await _type(page, ", live")
    await holds(server, 1, "start\nbefore a reload, after it, live")


async def test_words_typed_offline_are_saved_over_rest_once(
    browser: Browser, server: ServerProcess, between: Proxy
) -> None:
    await make(server, note_in("Title", content="start\n"))
    page = await _open(browser, between.url)
    await expect(editor(page)).to_contain_text("start")
    await saved(page)
    between.set_sync("404")
    await page.context.set_offline(True)
    await _type(page, "offline ")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "START\n"})
    await page.context.set_offline(False)
    await page.reload()  # the words are only in the local copy
    await _unavailable(page)
    await holds(server, 1, "START\noffline ")
    between.set_sync("pass")
    await _live(page)
    await saved(page)
    await _type(page, "live")
    await holds(server, 1, "START\noffline live")


async def test_tabs_of_one_browser_save_words_once(browser: Browser, server: ServerProcess, between: Proxy) -> None:
    await make(server, note_in("Title", content="start\n"))
    one = await _open(browser, between.url)
    two = await one.context.new_page()
    await two.goto("/n/1")
    for page in (one, two):
        await expect(editor(page)).to_contain_text("start")
        await saved(page)
    between.set_sync("404")
    await _type(one, "words")
    for page in (one, two):
        await _unavailable(page)
    await holds(server, 1, "start\nwords")
    await expect(editor(two)).to_contain_text("words")
    between.set_sync("pass")
    for page in (one, two):
        await _live(page)
        await saved(page)
    await _type(two, "!")
    await expect(editor(one)).to_contain_text("words!")
    await holds(server, 1, "start\nwords!")


async def test_tab_that_is_live_beside_one_that_is_not_doubles_nothing(browser: Browser, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="start\n"))
    context = await browser.new_context(base_url=server.url)
    one, two = await context.new_page(), await context.new_page()
    await one.route_web_socket(re.compile("/sync/"), lambda socket: socket.close(code=1001))
    await two.goto("/n/1")
    await expect(editor(two)).to_contain_text("start")
    await saved(two)
    await one.goto("/n/1")
    await expect(editor(one)).to_contain_text("start")
    await _type(one, "one ")
    await _unavailable(one)
    await editor(two).press("Control+Home")
    await two.keyboard.type("two ")
    await _type(one, "three")
    await saved(one)
    await saved(two)

    async def once() -> None:
        content = (await read_note(server))["content"]
        assert sorted(content.split()) == ["one", "start", "three", "two"]

    await eventually(once, within=10)


@pytest.mark.parametrize(("choice", "becomes"), [("Keep mine", "mine"), ("Take theirs", "theirs")])
async def test_same_words_changed_on_both_sides_ask(
    browser: Browser, server: ServerProcess, between: Proxy, choice: str, becomes: str
) -> None:
    await make(server, note_in("Title", content="first\nsame\nlast\n"))
    between.set_sync("404")
    page = await _open(browser, between.url)
    await _unavailable(page)
    await page.context.set_offline(True)
    await editor(page).fill("first\nmine\nLAST\n")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "FIRST\ntheirs\nlast\n"})
    await page.context.set_offline(False)
    panel = page.get_by_role("region", name="Conflict")
    await expect(panel).to_be_visible(timeout=SOON)
    await expect(panel).to_contain_text("Yours (text)")
    await panel.get_by_role("button", name=choice).click()
    await saved(page)
    content = (await read_note(server))["content"]
    assert becomes in content
    assert {"mine", "theirs"} - {becomes} - set(content.split()) == {"mine", "theirs"} - {becomes}


async def test_new_note_over_rest(browser: Browser, server: ServerProcess, between: Proxy) -> None:
    between.set_sync("404")
    page = await _open(browser, between.url, "/")
    await page.get_by_role("button", name="New note").click()
    await title(page).fill("New note")
    await _type(page, "first words")
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await _type(page, ", more")
    await _unavailable(page)
    await _type(page, ", and more")
    await holds(server, 1, "first words, more, and more")
    await saved(page)


async def test_note_deleted_over_rest_keeps_its_words(browser: Browser, server: ServerProcess, between: Proxy) -> None:
    await make(server, note_in("Doomed", content="start "))
    between.set_sync("404")
    page = await _open(browser, between.url)
    await _unavailable(page)
    async with rest_client(server.url) as rest:
        await rest.delete("/notes/1/")
    await expect(page.get_by_role("alert")).to_contain_text("This note was deleted")
    await expect(line(page)).to_have_count(0)
    await _type(page, "and after")
    await page.get_by_role("button", name="Restore it").click()
    await saved(page)
    await holds(server, 1, "start and after")


async def test_offline_alone_is_no_reason(browser: Browser, server: ServerProcess, between: Proxy) -> None:
    await make(server, note_in("Title", content="start "))
    page = await _open(browser, between.url)
    await expect(editor(page)).to_have_text("start ")
    await saved(page)
    await page.clock.install()
    await page.context.set_offline(True)
    between.set_sync("pass")  # cuts what is open
    await _type(page, "offline")
    await page.clock.run_for(30_000)
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await expect(line(page)).to_have_count(0)
    await page.context.set_offline(False)
    await expect(light(page, "saved")).to_be_visible(timeout=40 * SECOND)
    await holds(server, 1, "start offline")
