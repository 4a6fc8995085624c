"""Unsaved text: nothing that happens to a page loses it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from playwright.async_api import Browser, Page, Route, WebSocketRoute, expect

from tests.browser.chromium import ELSEWHERE
from tests.browser.page import (
    HOLD_UP,
    HOLD_UP_DRAFTS,
    NOTED,
    SECOND,
    Cable,
    Open,
    editor,
    holds,
    light,
    make,
    read_note,
    saved,
    title,
)
from tests.support.harness import ServerProcess, eventually, note_in, rest_client


async def test_new_note_is_typed_on_while_it_is_saved(opened: Open, server: ServerProcess) -> None:
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
    async with page.expect_request(lambda asked: asked.method == "POST"):
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
    await saved(page)
    await expect(editor(page)).to_be_focused()
    await holds(server, 1, words)
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": f"others {words}"})
    await expect(editor(page)).to_have_text(f"others {words}")


async def test_discarded_draft_stays_gone_when_the_page_goes_at_once(opened: Open) -> None:
    page = await opened()
    await page.keyboard.press("n")
    await expect(title(page)).to_be_focused()
    await page.keyboard.type("No")
    await expect(page.get_by_role("alert")).to_contain_text("at least 3 characters")
    await page.evaluate(HOLD_UP_DRAFTS)
    await page.get_by_role("button", name="Discard").click()
    for _ in range(2):
        await page.goto("/")
        await expect(page.get_by_role("button", name="New note")).to_be_visible()
        await expect(page.get_by_text("No notes yet")).to_be_visible()
        await expect(page.locator(".row")).to_have_count(0)


async def test_others_change_a_new_note_before_its_text_is_shared(opened: Open, server: ServerProcess) -> None:
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
    await title(page).fill("New note")  # now it is sent, with all of its text
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await saved(page)
    await editor(page).focus()
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "others and mine"})
    await expect(editor(page)).to_have_text("others and mine")
    await page.keyboard.type(" and more")
    reachable.set()
    # The longer it was out of reach, the longer until it is tried again.
    await holds(server, 1, "others and mine and more", within=25)
    await saved(page)


async def test_server_that_restarts_under_unsent_words_loses_none(
    browser: Browser, serve: Callable[..., ServerProcess]
) -> None:
    server = serve()
    await make(server, note_in("Title", content="before\n"))
    page = await browser.new_page(base_url=server.url)
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("before")
    server.kill()
    await editor(page).press("Control+End")
    await editor(page).press_sequentially("typed while it was away")
    await expect(light(page, "offline")).to_have_text("Offline – 1 change waiting")
    server.start()
    await expect(light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    await holds(server, 1, "before\ntyped while it was away")


async def test_unsent_words_survive_a_reload_and_a_closed_tab(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="before\n"), note_in("Other"))
    page = await opened()
    await _survives(page, await Cable.lay(page.context), server)


async def test_unsent_words_survive_without_a_secure_context(
    browser: Browser, serve: Callable[..., ServerProcess]
) -> None:
    server = serve(allow_public=True)
    await make(server, note_in("Title", content="before\n"), note_in("Other"))
    context = await browser.new_context(base_url=server.url.replace("127.0.0.1", ELSEWHERE))
    page = await context.new_page()
    await page.goto("/")
    assert await page.evaluate("[isSecureContext, typeof navigator.locks, typeof crypto.randomUUID]") == [
        *(False, "undefined", "undefined")
    ]
    await _survives(page, await Cable.lay(context), server)


async def _survives(page: Page, cable: Cable, server: ServerProcess) -> None:
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("before")
    await saved(page)

    async def refuse(route: Route) -> None:
        await (route.abort() if route.request.method in ("PATCH", "POST") else route.continue_())

    context = page.context
    await context.route("**/notes/**", refuse)
    await cable.cut()
    await context.set_offline(False)  # pages can be had, but nothing can be written
    await editor(page).press("Control+End")
    await editor(page).press_sequentially("unsent")
    await title(page).fill("Unsent title")
    await expect(light(page, "offline")).to_have_text("Offline – 2 changes waiting")
    page.on("dialog", lambda dialog: dialog.accept())  # the page warns of what is unsent
    await page.reload()
    await expect(editor(page)).to_contain_text("unsent")
    await expect(title(page)).to_have_value("Unsent title")
    await page.close(run_before_unload=False)

    again = await context.new_page()
    # Without locks only time tells that a tab is gone.
    await again.add_init_script("const now = Date.now; Date.now = () => now() + 31_000")
    await again.goto("/n/2")
    await expect(light(again, "offline")).to_have_text("Offline – 2 changes waiting")
    await context.unroute("**/notes/**")
    await cable.mend()
    await expect(light(again, "saved")).to_be_visible(timeout=25 * SECOND)
    await holds(server, 1, "before\nunsent")
    assert (await read_note(server))["title"] == "Unsent title"


async def test_last_letters_survive_though_the_browser_has_not_stored_them(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="before "), note_in("Other"))
    page = await opened()
    context = page.context
    cable = await Cable.lay(context)
    await page.goto("/n/1")
    await expect(editor(page)).to_have_text("before ")
    await saved(page)
    await cable.cut()
    await context.set_offline(False)  # pages can be had
    page.on("dialog", lambda dialog: dialog.accept())
    text = "before "
    for word in ("reloaded ", "again "):
        await page.evaluate(HOLD_UP)
        await editor(page).press("Control+End")
        await editor(page).press_sequentially(word)
        await page.reload()
        text += word
        await expect(editor(page)).to_have_text(text)
    await page.evaluate(HOLD_UP)
    await editor(page).press("Control+End")
    await editor(page).press_sequentially("closed ")
    await page.close()

    again = await context.new_page()
    await again.goto("/n/2")
    await expect(light(again, "offline")).to_have_text("Offline – 1 change waiting")
    await cable.mend()
    await saved(again)
    await holds(server, 1, text + "closed ")
    assert await again.evaluate(NOTED) == []


async def test_words_typed_right_before_they_could_go(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("First"), note_in("Second"))
    page = await opened("/n/1")
    page.on("dialog", lambda dialog: dialog.accept())
    await editor(page).press_sequentially("typed before a reload")
    await page.reload()
    await expect(editor(page)).to_have_text("typed before a reload")
    await saved(page)
    await page.get_by_role("link", name="Second").click()
    await expect(title(page)).to_have_value("Second")
    await editor(page).press_sequentially("typed before a deletion")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Undo").click()
    await expect(title(page)).to_have_value("Second")
    await expect(editor(page)).to_have_text("typed before a deletion")
    await saved(page)
    await holds(server, 1, "typed before a reload")
    await holds(server, 2, "typed before a deletion")


async def test_note_deleted_under_the_fingers_keeps_its_words(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Doomed"))
    page = await opened("/n/1")
    await editor(page).press_sequentially("before")
    await saved(page)
    async with rest_client(server.url) as rest:
        await rest.delete("/notes/1/")
    await expect(page.get_by_role("alert")).to_contain_text("This note was deleted")
    await editor(page).press_sequentially(" and after")
    await page.get_by_role("button", name="Restore it").click()
    await saved(page)
    await holds(server, 1, "before and after")


async def test_leaving_with_unsent_words_warns(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in())
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


async def test_ten_tabs_share_nothing_that_breaks(opened: Open, server: ServerProcess) -> None:
    await make(server, *(note_in(f"Note {number}", content="") for number in range(1, 11)))
    first = await opened("/n/1")
    tabs = [first]
    for number in range(2, 11):
        tab = await first.context.new_page()
        await tab.goto(f"/n/{number}")
        tabs.append(tab)
    for number, tab in enumerate(tabs, 1):
        await editor(tab).fill(f"typed in tab {number}")
    for tab in tabs:
        await saved(tab)
    for number in range(1, 11):
        await holds(server, number, f"typed in tab {number}")
