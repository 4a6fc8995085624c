"""Unsaved text survives reloads, closed tabs, restarts, and deletions."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from tests.browser.chromium import ELSEWHERE
from tests.browser.notes import change_note, create_notes, delete_note, read_note, wait_for_content
from tests.browser.page import (
    BLOCK_DRAFTS,
    BLOCK_UPDATES,
    SECOND,
    UNSTORED_TEXT_KEYS,
    Cable,
    Open,
    append_text,
    editor,
    expect_saved_text,
    light,
    title,
    wait_until_saved,
)
from tests.support.harness import ServerProcess, eventually, note_in
from tests.support.http import Serve


async def test_text_typed_while_a_new_note_is_created_is_saved(opened: Open, server: ServerProcess) -> None:
    page = await opened("/ping")
    loaded, answered = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        await (loaded if "editor" in route.request.url else answered).wait()
        await route.continue_()

    await page.route(re.compile(r"/editor[^/]*\.js$"), hold)
    await page.goto("/")
    await expect(page.get_by_role("button", name="New note")).to_be_visible()
    await page.route("**/notes/", hold)
    await page.keyboard.press("n")
    async with page.expect_request(lambda request: request.method == "POST"):
        await page.keyboard.type("New note")
        for _ in range(3):
            await page.keyboard.press("Tab")
        await page.keyboard.type("typed before the editor is there, ")
        await page.keyboard.press("Control+Home")
        loaded.set()
        await expect(page.locator(".cm-content")).to_be_focused()
        await page.keyboard.type("Words ")
        await page.keyboard.press("Control+End")
        await page.keyboard.type("before it is sent, ")
    await page.keyboard.type("while it is on its way, ")
    answered.set()
    await page.keyboard.type("and while the answer comes", delay=20)
    words = (
        "Words typed before the editor is there, before it is sent, while it is on its way, and while the answer comes"
    )
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await wait_until_saved(page)
    await expect(editor(page)).to_be_focused()
    await wait_for_content(server, 1, words)
    await change_note(server, content=f"others {words}")
    await expect(editor(page)).to_have_text(f"others {words}")


async def test_discarded_draft_stays_deleted_after_immediate_navigation(opened: Open) -> None:
    page = await opened()
    await page.keyboard.press("n")
    await expect(title(page)).to_be_focused()
    await page.keyboard.type("No")
    await expect(page.get_by_role("alert")).to_contain_text("at least 3 characters")
    await page.evaluate(BLOCK_DRAFTS)
    await page.get_by_role("button", name="Discard").click()
    for _ in range(2):
        await page.goto("/")
        await expect(page.get_by_role("button", name="New note")).to_be_visible()
        await expect(page.get_by_text("No notes yet")).to_be_visible()
        await expect(page.locator(".row")).to_have_count(0)


async def test_remote_change_before_the_first_sync_is_merged(opened: Open, server: ServerProcess) -> None:
    page = await opened()
    reachable = asyncio.Event()

    async def join(socket: WebSocketRoute) -> None:
        if reachable.is_set():
            socket.connect_to_server()
        else:
            await socket.close(code=1001)

    await page.route_web_socket(re.compile("/sync/"), join)
    await page.keyboard.press("n")
    await editor(page).press_sequentially("mine")
    await title(page).fill("New note")  # now the note is created with its text
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await wait_until_saved(page)
    await editor(page).focus()
    await change_note(server, content="others and mine")
    await expect(editor(page)).to_have_text("others and mine")
    await page.keyboard.type(" and more")
    reachable.set()
    # The delay before the next attempt grows with each failed attempt.
    await wait_for_content(server, 1, "others and mine and more", within=25)
    await wait_until_saved(page)


async def test_unsent_text_survives_a_server_restart(browser: Browser, serve: Serve) -> None:
    server = serve()
    await create_notes(server, note_in("Title", content="before\n"))
    page = await browser.new_page(base_url=server.url)
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("before")
    server.kill()
    await append_text(page, "typed while it was away")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    server.start()
    await expect(light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    await wait_for_content(server, 1, "before\ntyped while it was away")


async def test_unsent_text_survives_a_reload_and_a_closed_tab(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="before\n"), note_in("Other"))
    page = await opened()
    await _check_unsent_text_survives(page, await Cable.install(page.context), server)


async def test_unsent_text_survives_without_a_secure_context(browser: Browser, serve: Serve) -> None:
    server = serve(allow_public=True)
    await create_notes(server, note_in("Title", content="before\n"), note_in("Other"))
    context = await browser.new_context(base_url=server.url.replace("127.0.0.1", ELSEWHERE))
    page = await context.new_page()
    await page.goto("/")
    assert await page.evaluate("[isSecureContext, typeof navigator.locks, typeof crypto.randomUUID]") == [
        *(False, "undefined", "undefined")
    ]
    await _check_unsent_text_survives(page, await Cable.install(context), server)


async def _check_unsent_text_survives(page: Page, cable: Cable, server: ServerProcess) -> None:
    await page.goto("/n/1")
    await expect_saved_text(page, "before")

    async def refuse(route: Route) -> None:
        await (route.abort() if route.request.method in ("PATCH", "POST") else route.continue_())

    context = page.context
    await context.route("**/notes/**", refuse)
    await cable.cut()
    await context.set_offline(False)  # pages can be loaded, but writes fail
    await append_text(page, "unsent")
    await title(page).fill("Unsent title")
    await expect(light(page, "offline")).to_have_text("Offline – 2 changes waiting")
    page.on("dialog", lambda dialog: dialog.accept())  # the page warns about unsent changes
    await page.reload()
    await expect(editor(page)).to_contain_text("unsent")
    await expect(title(page)).to_have_value("Unsent title")
    await page.close(run_before_unload=False)

    again = await context.new_page()
    # Without the Web Locks API, a tab counts as closed after a timeout.
    await again.add_init_script("const now = Date.now; Date.now = () => now() + 31_000")
    await again.goto("/n/2")
    await expect(light(again, "offline")).to_have_text("Offline – 2 changes waiting")
    await context.unroute("**/notes/**")
    await cable.restore()
    await expect(light(again, "saved")).to_be_visible(timeout=25 * SECOND)
    await wait_for_content(server, 1, "before\nunsent")
    assert (await read_note(server))["title"] == "Unsent title"


async def test_text_not_yet_in_indexeddb_survives_reload_and_close(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="before "), note_in("Other"))
    page = await opened()
    context = page.context
    cable = await Cable.install(context)
    await page.goto("/n/1")
    await expect_saved_text(page, "before ")
    await cable.cut()
    await context.set_offline(False)  # pages can be loaded
    page.on("dialog", lambda dialog: dialog.accept())
    text = "before "
    for word in ("reloaded ", "again "):
        await page.evaluate(BLOCK_UPDATES)
        await append_text(page, word)
        await page.reload()
        text += word
        await expect(editor(page)).to_have_text(text)
    await page.evaluate(BLOCK_UPDATES)
    await append_text(page, "closed ")
    await page.close()

    again = await context.new_page()
    await again.goto("/n/2")
    await expect(light(again, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.restore()
    await wait_until_saved(again)
    await wait_for_content(server, 1, text + "closed ")
    assert await again.evaluate(UNSTORED_TEXT_KEYS) == []


async def test_text_typed_immediately_before_reload_or_delete_is_saved(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("First"), note_in("Second"))
    page = await opened("/n/1")
    page.on("dialog", lambda dialog: dialog.accept())
    await editor(page).press_sequentially("typed before a reload")
    await page.reload()
    await expect(editor(page)).to_have_text("typed before a reload")
    await wait_until_saved(page)
    await page.get_by_role("link", name="Second").click()
    await expect(title(page)).to_have_value("Second")
    await editor(page).press_sequentially("typed before a deletion")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Undo").click()
    await expect(title(page)).to_have_value("Second")
    await expect(editor(page)).to_have_text("typed before a deletion")
    await wait_until_saved(page)
    await wait_for_content(server, 1, "typed before a reload")
    await wait_for_content(server, 2, "typed before a deletion")


async def test_note_deleted_while_open_keeps_the_typed_text(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Doomed"))
    page = await opened("/n/1")
    await editor(page).press_sequentially("before")
    await wait_until_saved(page)
    await delete_note(server, 1)
    await expect(page.get_by_role("alert")).to_contain_text("This note was deleted")
    await editor(page).press_sequentially(" and after")
    await page.get_by_role("button", name="Restore it").click()
    await wait_until_saved(page)
    await wait_for_content(server, 1, "before and after")


async def test_leaving_with_unsent_text_shows_a_warning(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in())
    page = await opened("/n/1")
    await expect(title(page)).to_have_value("title")
    await page.context.set_offline(True)
    await title(page).fill("unsent title")
    warned: list[str] = []

    async def stay(dialog: Any) -> None:
        warned.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)
    await page.close(run_before_unload=True)
    await eventually(lambda: warned == ["beforeunload"])


async def test_ten_tabs_with_different_notes_save_independently(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, *(note_in(f"Note {number}", content="") for number in range(1, 11)))
    first = await opened("/n/1")
    tabs = [first]
    for number in range(2, 11):
        tab = await first.context.new_page()
        await tab.goto(f"/n/{number}")
        tabs.append(tab)
    for number, tab in enumerate(tabs, 1):
        await editor(tab).fill(f"typed in tab {number}")
    for tab in tabs:
        await wait_until_saved(tab)
    for number in range(1, 11):
        await wait_for_content(server, number, f"typed in tab {number}")
