"""Several users edit a text in several browsers and tabs, some offline: each edit is applied exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from playwright.async_api import Browser, Page, Route, expect
from pymongo import MongoClient

from realtime.settings import Settings
from tests.browser.page import HOLD_UP, NOTED, SECOND, Cable, Open, editor, holds, light, make, read_note, saved
from tests.support.harness import Json, ServerProcess, eventually, note_in

STORED = """async () => {
  for (const { name } of await indexedDB.databases()) {
    if (!name.startsWith("text-")) continue;
    await new Promise((done) => {
      const opening = indexedDB.open(name);
      opening.onsuccess = () => {
        const last = opening.result.transaction("updates", "readwrite");  // begins when all before it have ended
        last.oncomplete = () => done(opening.result.close());
        last.objectStore("updates").count();
      };
    });
  }
}"""
"""Waits until the texts of the page are in the browser's database."""


async def _write(page: Page, key: str, words: list[str]) -> None:
    await editor(page).press(key)
    await editor(page).press_sequentially("".join(f"{word} " for word in words), delay=20)


async def _has(page: Page, text: str) -> None:
    """Whether a text is there to its last blank, which Playwright's own checks make nothing of."""
    assert await editor(page).text_content() == text


async def _ends(page: Page, text: str) -> None:
    """Whether a text ends so."""
    assert (await editor(page).text_content() or "").endswith(text)


async def test_two_browsers_type_in_one_note_and_one_is_offline_for_a_while(
    opened: Open, server: ServerProcess
) -> None:
    await make(server, note_in("Shared", content="start "))
    one, other = await opened(), await opened()
    cable = await Cable.lay(other.context)
    for page in (one, other):
        await page.goto("/n/1")
        await expect(editor(page)).to_contain_text("start")
        await saved(page)
    told = {person: [[f"{person}{part}{word}" for word in range(8)] for part in range(3)] for person in ("ann", "bob")}

    await asyncio.gather(_write(one, "Control+End", told["ann"][0]), _write(other, "Control+Home", told["bob"][0]))
    await eventually(partial(_ends, other, f"{told['ann'][0][-1]} "))  # a word that is cut in two would stay so
    await cable.cut()
    await asyncio.gather(_write(one, "Control+Home", told["ann"][1]), _write(other, "Control+End", told["bob"][1]))
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await saved(one)
    assert "bob1" not in (await read_note(server))["content"]
    await asyncio.gather(
        cable.mend(), _write(one, "Control+End", told["ann"][2]), _write(other, "Control+Home", told["bob"][2])
    )
    words = Counter(["start", *(word for parts in told.values() for part in parts for word in part)])

    async def same() -> None:
        content = (await read_note(server))["content"]
        assert Counter(content.split()) == words
        for page in (one, other):
            assert await editor(page).text_content() == content

    await eventually(same, within=25)
    for page in (one, other):
        await saved(page)


async def test_what_a_tab_typed_offline_another_takes_up(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Shared", content="start "), note_in("Other"))
    one = await opened()
    cable = await Cable.lay(one.context)
    other, elsewhere = await one.context.new_page(), await one.context.new_page()
    for page, path in ((one, "/n/1"), (other, "/n/1"), (elsewhere, "/n/2")):
        await page.goto(path)
        await expect(editor(page)).to_be_visible()
        await saved(page)
    await cable.cut()
    await _write(one, "Control+End", ["one"])
    await eventually(partial(_has, other, "start one "))
    await _write(other, "Control+End", ["two"])
    await expect(editor(one)).to_have_text("start one two ")
    for page in (one, other):
        await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    await expect(light(elsewhere, "offline")).to_have_text("Offline")  # those who have the text bring it
    await one.close(run_before_unload=False)
    await cable.mend()
    for page in (other, elsewhere):
        await saved(page)
    await holds(server, 1, "start one two ")
    await expect(editor(other)).to_have_text("start one two ")


async def test_what_a_tab_left_another_brings_to_the_server(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Shared", content="start "), note_in("Other"))
    one = await opened()
    cable = await Cable.lay(one.context)
    other = await one.context.new_page()
    for page, path in ((one, "/n/1"), (other, "/n/2")):
        await page.goto(path)
        await expect(editor(page)).to_be_visible()
        await saved(page)
    await cable.cut()
    await _leave(one, "left")
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.mend()
    await saved(other)
    await holds(server, 1, "start left ")


async def test_last_letters_of_a_tab_are_taken_up_by_the_others(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Shared", content="start "), note_in("Other"))
    one = await opened()
    cable = await Cable.lay(one.context)
    other, elsewhere = await one.context.new_page(), await one.context.new_page()
    for page, path in ((one, "/n/1"), (other, "/n/1"), (elsewhere, "/n/2")):
        await page.goto(path)
        await expect(editor(page)).to_be_visible()
        await saved(page)
    await cable.cut()
    await one.evaluate(HOLD_UP)
    await editor(one).press("Control+End")
    await editor(one).press_sequentially("last")
    await one.close()
    await expect(editor(other)).to_have_text("start last")
    await expect(light(other, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.mend()
    for page in (other, elsewhere):
        await saved(page)
        assert await page.evaluate(NOTED) == []
    await holds(server, 1, "start last")


async def _leave(page: Page, word: str) -> None:
    """Writes into a text that is cut off, and ends the tab once the browser has stored that."""
    await _write(page, "Control+End", [word])
    await page.evaluate(STORED)
    await page.close(run_before_unload=False)


async def _cut_off(browser: Browser, server: ServerProcess) -> tuple[Page, Cable]:
    """A page with the text of a new note, and no network any more."""
    await make(server, note_in("Before", content="start "))
    context = await browser.new_context(base_url=server.url)
    cable = await Cable.lay(context)
    page = await context.new_page()
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("start ")
    await saved(page)
    await cable.cut()
    return page, cable


async def test_words_of_a_note_that_had_the_id_before_do_not_get_into_another(
    browser: Browser, serve: Callable[..., ServerProcess], settings: Settings
) -> None:
    server = serve(database=_old(settings))
    page, cable = await _cut_off(browser, server)
    await _leave(page, "unsent")
    await _replace(server, serve, settings)
    await cable.mend()

    again = await page.context.new_page()
    await again.goto("/n/1")
    await expect(again.locator("pre")).to_have_text("start unsent ")
    await expect(light(again, "unsaved")).to_be_visible()
    await expect(again.get_by_role("button", name="Restore it")).to_have_count(0)
    await again.get_by_role("button", name="Save my words as a new note").click()
    await saved(again)
    await holds(server, 2, "start unsent ")
    await holds(server, 1, "another text")


async def test_page_that_is_open_while_all_notes_are_replaced_mixes_no_texts(
    browser: Browser, serve: Callable[..., ServerProcess], settings: Settings
) -> None:
    server = serve(database=_old(settings))
    page, cable = await _cut_off(browser, server)
    await _write(page, "Control+End", ["unsent"])
    await _replace(server, serve, settings)
    told = asyncio.Event()

    async def hold(route: Route) -> None:
        await told.wait()
        await route.continue_()

    await page.context.route("**/notes/**", hold)  # only the room reports another note
    await cable.mend()
    await expect(light(page, "unsaved")).to_be_visible(timeout=25 * SECOND)
    await holds(server, 1, "another text")

    told.set()
    await expect(page.locator("pre")).to_have_text("start unsent ", timeout=25 * SECOND)
    await page.get_by_role("button", name="Discard").click()
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("another text")
    await _write(page, "Control+End", [" and", "more"])
    await saved(page)
    await holds(server, 1, "another text and more ")


def _old(settings: Settings) -> str:
    return f"{settings.database}-old"


async def _replace(server: ServerProcess, serve: Callable[..., ServerProcess], settings: Settings) -> None:
    """Starts a server with other data at the address of one, in which another note has the id of the first."""
    server.kill()
    with MongoClient[Json](settings.mongo_url) as mongo:
        mongo.drop_database(_old(settings))
    await make(serve(port=server.port), note_in("Another", content="another text"))
