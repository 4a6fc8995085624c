"""Navigation between views."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Page, expect

from tests.browser.notes import create_notes
from tests.browser.page import Open, editor, title
from tests.support.harness import ServerProcess, note_in, rest_client


async def test_history_of_a_missing_note_shows_a_message(opened: Open, server: ServerProcess) -> None:
    page = await opened("/n/7/history")
    await expect(page.get_by_text("This note is not there any more")).to_be_visible()


async def test_loaded_older_versions_stay_after_a_new_version(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in())
    async with rest_client(server.url) as rest:
        for number in range(60):
            await rest.patch("/notes/1/", json={"content": f"text {number}"})
        page = await opened("/n/1/history")
        versions = page.locator(".versions li button")
        await expect(versions).to_have_count(51)  # 50 versions and the button for older ones
        await page.get_by_role("button", name="Older versions").click()
        await expect(versions).to_have_count(61)
        await rest.patch("/notes/1/", json={"content": "newest"})
        await expect(page.get_by_role("button", name="Version 62")).to_be_visible()
        await expect(page.get_by_role("button", name="Version 1 made")).to_be_attached()
        await expect(versions).to_have_count(62)


async def test_restoring_from_history_or_trash_opens_the_note(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="first\n"), note_in("Doomed"))
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "second\n"})
        await rest.delete("/notes/2/")
    page = await opened("/n/1/history")
    await expect(page.locator("del")).to_contain_text("first")
    await page.get_by_role("button", name="Version 1").click()
    await page.get_by_role("button", name="Restore version 1").click()
    await expect(editor(page)).to_have_text("first")
    await page.goto("/deleted")
    await page.get_by_role("button", name="Restore Doomed").click()
    await expect(title(page)).to_have_value("Doomed")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.goto("/deleted")
    await page.get_by_role("button", name="Delete for good: Doomed").click()
    await page.get_by_role("button", name="Really delete for good?").click()
    await expect(page.get_by_text("The trash is empty")).to_be_visible()


async def test_back_and_forward_show_the_view_of_the_url(opened: Open, server: ServerProcess) -> None:
    await create_notes(
        server, note_in("First", content="apples\n"), note_in("Second", content="pears\n"), note_in("Doomed")
    )
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "plums\n"})
        await rest.delete("/notes/3/")
    page = await opened()
    views: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        ("/", lambda: expect(page.get_by_text("Choose a note")).to_be_visible()),
        ("/n/1", lambda: _expect_note(page, "First", "plums")),
        ("/n/1/history", lambda: expect(page.locator("ins")).to_have_text("plums")),
        ("/deleted", lambda: expect(page.get_by_role("button", name="Restore Doomed")).to_be_visible()),
        ("/n/2", lambda: _expect_note(page, "Second", "pears")),
    ]
    steps: list[Callable[[], Awaitable[Any]]] = [
        page.get_by_role("link", name="First").click,
        page.get_by_role("link", name="History").click,
        lambda: _select_menu_item(page, "Trash"),
        page.get_by_role("link", name="Second").click,
    ]
    await views[0][1]()
    for step, (path, shows) in zip(steps, views[1:], strict=True):
        await step()
        await expect(page).to_have_url(server.url + path)
        await shows()
    for path, shows in reversed(views[:-1]):
        await page.go_back()
        await expect(page).to_have_url(server.url + path)
        await shows()
    for path, shows in views[1:]:
        await page.go_forward()
        await expect(page).to_have_url(server.url + path)
        await shows()
    panes = page.locator("main > section")
    assert await panes.count() == 1
    await expect(page).to_have_title("Second – Notes")


async def _expect_note(page: Page, name: str, text: str) -> None:
    await expect(title(page)).to_have_value(name)
    await expect(editor(page)).to_have_text(text)


async def _select_menu_item(page: Page, name: str) -> None:
    await page.get_by_label("More").click()
    await page.get_by_role("link", name=name).click()
