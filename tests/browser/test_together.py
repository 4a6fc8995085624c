"""Several users edit a text in several browsers and tabs, some offline: each edit is applied exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

from playwright.async_api import Browser, Page, Route, expect
from pymongo import MongoClient

from realtime.settings import Settings
from tests.browser.notes import create_notes, read_note, wait_for_content
from tests.browser.page import (
    BLOCK_UPDATES,
    SECOND,
    UNSTORED_TEXT_KEYS,
    Cable,
    Open,
    append_text,
    editor,
    expect_saved_text,
    light,
    wait_until_saved,
)
from tests.support.harness import Json, ServerProcess, eventually, note_in
from tests.support.http import Serve

STORED = """async () => {
  for (const { name } of await indexedDB.databases()) {
    if (!name.startsWith("text-")) continue;
    await new Promise((done) => {
      const opening = indexedDB.open(name);
      opening.onsuccess = () => {
        const last = opening.result.transaction("updates", "readwrite");  // starts after all earlier transactions
        last.oncomplete = () => done(opening.result.close());
        last.objectStore("updates").count();
      };
    });
  }
}"""
"""Waits until the texts of the page are in IndexedDB."""


async def _write(page: Page, key: str, words: list[str]) -> None:
    await editor(page).press(key)
    await editor(page).press_sequentially("".join(f"{word} " for word in words), delay=20)


async def _expect_text(page: Page, text: str) -> None:
    """Check the text of the editor including its trailing space, which Playwright's checks ignore."""
    assert await editor(page).text_content() == text


async def _expect_end(page: Page, text: str) -> None:
    """Check the end of the text of the editor."""
    assert (await editor(page).text_content() or "").endswith(text)


async def test_text_of_two_browsers_is_applied_once_after_an_outage(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Shared", content="start "))
    one, other = await opened(), await opened()
    cable = await Cable.install(other.context)
    for page in (one, other):
        await page.goto("/n/1")
        await expect_saved_text(page, "start")
    typed = {person: [[f"{person}{part}{word}" for word in range(8)] for part in range(3)] for person in ("ann", "bob")}

    await asyncio.gather(_write(one, "Control+End", typed["ann"][0]), _write(other, "Control+Home", typed["bob"][0]))
    # Wait, so that the interruption splits no word.
    await eventually(partial(_expect_end, other, f"{typed['ann'][0][-1]} "))
    await cable.cut()
    await asyncio.gather(_write(one, "Control+Home", typed["ann"][1]), _write(other, "Control+End", typed["bob"][1]))
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await wait_until_saved(one)
    assert "bob1" not in (await read_note(server))["content"]
    await asyncio.gather(
        cable.restore(), _write(one, "Control+End", typed["ann"][2]), _write(other, "Control+Home", typed["bob"][2])
    )
    words = Counter(["start", *(word for parts in typed.values() for part in parts for word in part)])

    async def same() -> None:
        content = (await read_note(server))["content"]
        assert Counter(content.split()) == words
        for page in (one, other):
            assert await editor(page).text_content() == content

    await eventually(same, within=25)
    for page in (one, other):
        await wait_until_saved(page)


async def _open_tabs(opened: Open, server: ServerProcess, *ids: int) -> list[Any]:
    """Create two notes, and open some of them in tabs of one browser. Return its connection and the tabs."""
    await create_notes(server, note_in("Shared", content="start "), note_in("Other"))
    tabs = [await opened()]
    cable = await Cable.install(tabs[0].context)
    tabs += [await tabs[0].context.new_page() for _ in ids[1:]]
    for tab, id in zip(tabs, ids, strict=True):
        await tab.goto(f"/n/{id}")
        await expect(editor(tab)).to_be_visible()
        await wait_until_saved(tab)
    return [cable, *tabs]


async def test_text_typed_offline_is_shared_between_tabs(opened: Open, server: ServerProcess) -> None:
    cable, one, other, elsewhere = await _open_tabs(opened, server, 1, 1, 2)
    await cable.cut()
    await _write(one, "Control+End", ["one"])
    await eventually(partial(_expect_text, other, "start one "))
    await _write(other, "Control+End", ["two"])
    await expect(editor(one)).to_have_text("start one two ")
    for page in (one, other):
        await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await expect(light(elsewhere, "offline")).to_have_text("Offline")  # the tabs with this note send its text
    await one.close(run_before_unload=False)
    await cable.restore()
    for page in (other, elsewhere):
        await wait_until_saved(page)
    await wait_for_content(server, 1, "start one two ")
    await expect(editor(other)).to_have_text("start one two ")


async def test_unsent_text_of_a_closed_tab_is_sent_by_another(opened: Open, server: ServerProcess) -> None:
    cable, one, other = await _open_tabs(opened, server, 1, 2)
    await cable.cut()
    await _type_and_close(one, "left")
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.restore()
    await wait_until_saved(other)
    await wait_for_content(server, 1, "start left ")


async def test_text_not_stored_by_a_closed_tab_reaches_other_tabs(opened: Open, server: ServerProcess) -> None:
    cable, one, other, elsewhere = await _open_tabs(opened, server, 1, 1, 2)
    await cable.cut()
    await one.evaluate(BLOCK_UPDATES)
    await append_text(one, "last")
    await one.close()
    await expect(editor(other)).to_have_text("start last")
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.restore()
    for page in (other, elsewhere):
        await wait_until_saved(page)
        assert await page.evaluate(UNSTORED_TEXT_KEYS) == []
    await wait_for_content(server, 1, "start last")


async def _type_and_close(page: Page, word: str) -> None:
    """Type into a disconnected text, and close the tab after the browser has stored it."""
    await _write(page, "Control+End", [word])
    await page.evaluate(STORED)
    await page.close(run_before_unload=False)


async def _open_and_disconnect(browser: Browser, server: ServerProcess) -> tuple[Page, Cable]:
    """Open a new note, disconnect the network, and return the page and the connection."""
    await create_notes(server, note_in("Before", content="start "))
    context = await browser.new_context(base_url=server.url)
    cable = await Cable.install(context)
    page = await context.new_page()
    await page.goto("/n/1")
    await expect_saved_text(page, "start ")
    await cable.cut()
    return page, cable


async def test_unsent_text_of_a_replaced_note_is_not_merged(browser: Browser, serve: Serve, settings: Settings) -> None:
    server = serve(database=_old_database(settings))
    page, cable = await _open_and_disconnect(browser, server)
    await _type_and_close(page, "unsent")
    await _replace_server(server, serve, settings)
    await cable.restore()

    again = await page.context.new_page()
    await again.goto("/n/1")
    await expect(again.locator("pre")).to_have_text("start unsent ")
    await expect(light(again, "unsaved")).to_be_visible()
    await expect(again.get_by_role("button", name="Restore it")).to_have_count(0)
    await again.get_by_role("button", name="Save my words as a new note").click()
    await wait_until_saved(again)
    await wait_for_content(server, 2, "start unsent ")
    await wait_for_content(server, 1, "another text")


async def test_open_page_does_not_merge_text_of_a_replaced_note(
    browser: Browser, serve: Serve, settings: Settings
) -> None:
    server = serve(database=_old_database(settings))
    page, cable = await _open_and_disconnect(browser, server)
    await _write(page, "Control+End", ["unsent"])
    await _replace_server(server, serve, settings)
    release = asyncio.Event()

    async def hold(route: Route) -> None:
        await release.wait()
        await route.continue_()

    await page.context.route("**/notes/**", hold)  # only the room reports another note
    await cable.restore()
    await expect(light(page, "unsaved")).to_be_visible(timeout=25 * SECOND)
    await wait_for_content(server, 1, "another text")

    release.set()
    await expect(page.locator("pre")).to_have_text("start unsent ", timeout=25 * SECOND)
    await page.get_by_role("button", name="Discard").click()
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("another text")
    await _write(page, "Control+End", [" and", "more"])
    await wait_until_saved(page)
    await wait_for_content(server, 1, "another text and more ")


def _old_database(settings: Settings) -> str:
    return f"{settings.database}-old"


async def _replace_server(server: ServerProcess, serve: Serve, settings: Settings) -> None:
    """Replace a server by one with other data, in which another note has the same id."""
    server.kill()
    with MongoClient[Json](settings.mongo_url) as mongo:
        mongo.drop_database(_old_database(settings))
    await create_notes(serve(port=server.port), note_in("Another", content="another text"))
