"""Changes of other users appear at once, and do not move the text that a user is reading."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect
from pymongo import MongoClient
from redis import Redis

from realtime.settings import Settings
from tests.browser.notes import change_note, create_notes, wait_for_content
from tests.browser.page import SECOND, Open, append_text, editor, title, wait_until_saved
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client


async def test_writes_of_another_browser_appear_within_a_second(opened: Open, server: ServerProcess) -> None:
    one, other = await opened(), await opened()
    for page in (one, other):
        await expect(page.get_by_text("No notes yet")).to_be_visible()
    async with _write_response(one, "POST"):
        await one.get_by_role("button", name="New note").click()
        await title(one).fill("Written by one")
        await editor(one).fill("first words")
    await expect(other.get_by_role("link", name="Written by one")).to_be_visible(timeout=SECOND)
    await expect(one).to_have_url(re.compile(r"/n/1$"))
    await wait_until_saved(one)

    await other.get_by_role("link", name="Written by one").click()
    await expect(editor(other)).to_have_text("first words")
    await append_text(other, ", and others")
    await expect(editor(one)).to_have_text("first words, and others", timeout=SECOND)
    async with _write_response(other, "PATCH"):
        await title(other).fill("Written by both")
    await expect(title(one)).to_have_value("Written by both", timeout=SECOND)
    await expect(one.locator(".row b")).to_have_text("Written by both", timeout=SECOND)

    await one.get_by_role("button", name="Delete", exact=True).click()
    await expect(other.get_by_role("alert")).to_contain_text("This note was deleted", timeout=SECOND)
    await expect(other.locator(".row")).to_have_count(0, timeout=SECOND)
    await one.get_by_role("button", name="Undo").click()
    await expect(other.get_by_role("alert")).to_have_count(0, timeout=SECOND)
    await expect(other.locator(".row b")).to_have_text("Written by both", timeout=SECOND)
    await expect(title(other)).to_have_value("Written by both")


def _write_response(page: Page, method: str) -> Any:
    """Wait until a write of the page is answered. The time limits start then."""
    return page.expect_response(lambda answer: answer.request.method == method and answer.ok)


async def test_presence_changes_appear_within_a_second(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Looked at"), note_in("Other"))
    one, two, three = await opened("/n/1"), await opened("/n/2"), await opened("/n/2")
    people = one.locator(".people")
    await wait_until_saved(one)
    for page in (two, three):
        await expect(title(page)).to_have_value("Other")
        await page.get_by_role("link", name="Looked at").click()
    await expect(people).to_have_text("Also here: Guest, Guest", timeout=SECOND)
    await two.get_by_role("link", name="Other").click()
    await expect(people).to_have_text("Also here: Guest", timeout=SECOND)
    await expect(one.locator(".row", has_text="Looked at")).to_contain_text("1 also here")
    await three.close()
    await expect(people).to_have_text("", timeout=SECOND)
    await expect(one.locator(".row", has_text="also here")).to_have_count(0)
    await two.get_by_role("link", name="Looked at").click()
    await expect(people).to_contain_text("Also here: Guest", timeout=SECOND)
    await two.keyboard.press("Escape")
    await expect(people).to_have_text("", timeout=SECOND)


async def test_caret_keeps_its_position_after_a_remote_title_change(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("The title"))
    page = await opened("/n/1")
    await expect(title(page)).to_have_value("The title")
    await title(page).focus()
    await page.keyboard.press("Home")
    for _ in "The":
        await page.keyboard.press("ArrowRight")
    await change_note(server, title="Now: The title!")
    await expect(title(page)).to_have_value("Now: The title!")
    await page.keyboard.type(" good")
    await expect(title(page)).to_have_value("Now: The good title!")


async def test_reset_fetches_the_changed_notes_again(opened: Open, server: ServerProcess, settings: Settings) -> None:
    await create_notes(server, note_in("Before"), note_in("Other"))
    page = await opened("/n/1")
    await expect(page.locator(".row b")).to_have_text(["Other", "Before"])
    with MongoClient[Json](settings.mongo_url) as mongo, Redis.from_url(settings.redis_url or "") as redis:
        # A change without an event, and a new event log.
        await eventually(lambda: mongo[settings.database].notes.count_documents({"dirty": True}) == 0)
        mongo[settings.database].notes.update_one({"_id": 1}, {"$set": {"title": "After"}, "$inc": {"version": 1}})
        redis.delete(*redis.keys(f"{{{settings.database}}}:*"))
    await expect(title(page)).to_have_value("After", timeout=10 * SECOND)
    await expect(page.locator(".row b", has_text="After")).to_be_visible()


async def test_repeated_searches_use_a_single_websocket(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Apples"))
    page = await opened("/n/1")
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    for text in ("a", "ap", "apples", ""):
        await page.get_by_label("Search").fill(text)
        await page.wait_for_timeout(200)
    await page.get_by_label("Order").select_option("title")
    await expect(page.locator(".row b")).to_have_text(["Apples"])
    assert len([url for url in sockets if "/ws" in url]) <= 1


async def test_remote_changes_preserve_scroll_focus_and_typing(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, *(note_in(f"Note {number:02}") for number in range(60)))
    page = await opened("/n/1")
    rows = page.locator(".rows")
    await expect(page.locator(".row").first).to_be_visible()
    await rows.evaluate("element => { element.scrollTop = 2000 }")
    shown = page.locator(".row", has_text="Note 30")
    await expect(shown).to_be_visible()
    before = await shown.bounding_box()
    await page.get_by_label("Description").focus()
    await page.keyboard.press("End")
    await page.keyboard.type(" and")
    async with rest_client(server.url) as rest:
        for number in range(5):
            await rest.post("/notes/", json=note_in(f"New {number}"))
        await rest.patch("/notes/3/", json={"title": "Moved up"})
    await page.keyboard.type(" more")
    await expect(page.locator("ol[aria-label^='65']")).to_be_attached()
    await eventually(lambda: _same_place(shown, before))
    assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "Description"
    await expect(page.get_by_label("Description")).to_have_value("description and more")


async def _same_place(row: Any, before: Any) -> bool:
    now = await row.bounding_box()
    return bool(now) and abs(now["y"] - before["y"]) < 2


@pytest.mark.parametrize("blocked", [["ws"], ["ws", "events"]])
async def test_blocked_transports_fall_back_to_the_next(
    browser: Browser, server: ServerProcess, blocked: list[str]
) -> None:
    await create_notes(server, note_in("Title"))
    context = await browser.new_context(base_url=server.url)
    await context.route_web_socket(re.compile("/ws"), lambda socket: socket.close(code=1001))
    if "events" in blocked:
        await context.route("**/events?*", lambda route: route.abort())
    page = await context.new_page()
    await page.add_init_script("Math.random = () => 0.1")
    path = "/changes" if "events" in blocked else "/events"
    async with page.expect_request(re.compile(path), timeout=30 * SECOND):
        await page.goto("/")
    await change_note(server, title="Changed")
    await expect(page.locator(".row b")).to_have_text("Changed")


async def test_two_editors_see_text_carets_and_selections(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Shared", content="start\n"))
    one, other = await opened(), await opened()
    for page, name in ((one, "Ann"), (other, "<b>Bob</b>")):
        await page.evaluate("name => localStorage.setItem('name', name)", name)
        await page.goto("/n/1")
        await expect(editor(page)).to_contain_text("start")
    await editor(one).press("Control+End")
    await editor(other).press("Control+Home")
    await asyncio.gather(
        editor(one).press_sequentially("typed by Ann", delay=30), editor(other).press_sequentially("by Bob: ", delay=30)
    )
    for page, name in ((one, "<b>Bob</b>"), (other, "Ann")):
        await expect(editor(page)).to_have_text("by Bob: starttyped by Ann", use_inner_text=False)
        await expect(page.locator(".caret")).to_have_attribute("data-name", name)
        await expect(page.locator(".caret b")).to_have_count(0)
    await wait_for_content(server, 1, "by Bob: start\ntyped by Ann")

    # Undo reverts only the text of the same user.
    await editor(one).press("Control+z")
    await expect(editor(other)).to_have_text("by Bob: start")
    await wait_for_content(server, 1, "by Bob: start\n")

    # A selection is shown, and removed when its user leaves.
    await editor(other).press("Control+a")
    await expect(one.locator(".selected").first).to_be_visible()
    await other.close()
    await expect(one.locator(".caret, .selected")).to_have_count(0, timeout=5 * SECOND)
    async with rest_client(server.url) as rest:
        (newest, *_) = (await rest.get("/notes/1/history/")).json()
    assert newest["action"] == "type"
    assert newest["authors"] == ["Ann"]


async def test_write_over_rest_is_merged_into_the_typed_text(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Shared", content="one\ntwo\nthree\n"))
    page = await opened("/n/1")
    await expect(editor(page)).to_contain_text("three")
    await editor(page).press("Control+End")
    async with rest_client(server.url) as rest:
        await editor(page).press_sequentially("typed ")
        await wait_for_content(server, 1, "one\ntwo\nthree\ntyped ")
        await rest.patch("/notes/1/", json={"content": "ONE\ntwo\nthree\ntyped "})
        await expect(editor(page)).to_contain_text("ONE")
        await editor(page).press_sequentially("on")
    await wait_for_content(server, 1, "ONE\ntwo\nthree\ntyped on")
