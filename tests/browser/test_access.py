"""Accessibility of the page: contrast, names, roles, small screens, and motion."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.browser.axe import AXE, serious
from tests.browser.notes import create_notes
from tests.browser.page import Open, editor, light, title, wait_until_saved
from tests.support.harness import ServerProcess, note_in, rest_client


async def test_phone_layout_shows_one_pane_at_a_time(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("On the phone", content="# Heading"))
    page = await opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    await page.get_by_role("link", name="On the phone").tap()
    await expect(page.locator(".sidebar")).to_be_hidden()
    await expect(editor(page)).to_be_visible()
    await page.get_by_role("button", name="Read", exact=True).tap()
    await expect(page.get_by_role("heading", name="Heading")).to_be_visible()
    await expect(editor(page)).to_be_hidden()
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not await page.evaluate(wide)
    await page.get_by_role("button", name="‹ Notes").tap()
    await expect(page.locator(".sidebar")).to_be_visible()
    assert not await page.evaluate(wide)


@pytest.mark.parametrize("width", [1280, 380])
async def test_all_views_have_no_serious_accessibility_violations(
    browser: Browser, server: ServerProcess, width: int
) -> None:
    text = "# Heading\n\n[link](https://example.org) `code`\n\nold words"
    await create_notes(server, note_in("Title", content=text, tags=["tag"]), note_in("Gone"), note_in("Doomed"))
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": text.replace("link", "other link")})
        await rest.delete("/notes/2/")
        context = await browser.new_context(
            base_url=server.url, viewport={"width": width, "height": 800}, reduced_motion="reduce", bypass_csp=True
        )
        await context.add_init_script(path=AXE)
        await context.add_init_script("localStorage.setItem('mode', 'both')")
        page = await context.new_page()
        walked = []
        async for view in _visit_views(page, rest):
            walked.append(view)
            await page.emulate_media(color_scheme="light")
            assert await serious(page) == [], view
            # The dark theme can change only the contrast.
            await page.emulate_media(color_scheme="dark")
            assert await serious(page, runOnly=["color-contrast"]) == [], f"{view}, dark"
    assert len(walked) == len(set(walked)) == 17


async def _visit_views(page: Page, rest: httpx.AsyncClient) -> AsyncIterator[str]:
    """Open all views one after the other, and yield their names."""
    row = page.locator(".row", has_text="Title")
    await page.goto("/")
    await expect(row).to_be_visible()
    yield "list"
    await page.get_by_role("button", name="Tags").click()
    await page.get_by_role("button", name="tag 1").click()
    await expect(page.locator(".row")).to_have_count(1)
    yield "tags"
    await page.get_by_role("button", name="tag 1").click()
    await page.get_by_label("Search").fill("words")
    await expect(page.locator(".row mark")).to_have_text("words")
    yield "search results"
    await page.get_by_label("Search").fill("nowhere to be found")
    await expect(page.get_by_text("Nothing found")).to_be_visible()
    yield "nothing found"
    await page.get_by_label("Search").press("Escape")
    await page.get_by_label("More").click()
    await expect(page.get_by_role("button", name="Import…")).to_be_visible()
    yield "menu"
    await page.get_by_role("button", name="Keys").click()
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    yield "keys"
    await page.keyboard.press("Escape")
    await row.click()
    await expect(editor(page)).to_contain_text("other link")
    yield "note"
    await page.get_by_role("button", name="Read", exact=True).click()
    await expect(page.get_by_role("link", name="other link")).to_be_visible()
    yield "preview"
    await page.get_by_role("button", name="Write", exact=True).click()
    await page.get_by_role("link", name="History").click()
    await expect(page.locator("ins")).to_be_visible()
    yield "history"
    await page.get_by_label("More").click()
    await page.get_by_role("link", name="Trash").click()
    await expect(page.get_by_role("button", name="Restore Gone")).to_be_visible()
    yield "trash"
    await page.keyboard.press("n")
    await expect(title(page)).to_be_focused()
    yield "new note"
    await page.keyboard.type("No")
    await expect(page.get_by_role("alert")).to_contain_text("at least 3 characters")
    yield "refused"
    await page.get_by_role("button", name="Discard").click()

    await page.locator(".row", has_text="Doomed").click()
    await editor(page).press_sequentially("unsent")
    await wait_until_saved(page)
    await rest.delete("/notes/3/")
    await expect(page.get_by_role("button", name="Restore it")).to_be_visible()
    yield "note deleted while open"
    await page.goto("/n/99")
    await expect(page.get_by_text("This note is not there")).to_be_visible()
    yield "missing"

    async def overtake(route: Route) -> None:
        await rest.patch("/notes/1/", json={"title": "Their title"})
        await route.continue_()

    await page.goto("/n/1")
    await page.route("**/notes/1/?base_version=*", overtake)
    await title(page).fill("My title")
    await expect(page.get_by_role("region", name="Conflict")).to_be_visible()
    yield "conflict"
    await page.get_by_role("button", name="Keep mine").click()
    await wait_until_saved(page)
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.get_by_role("button", name="Undo")).to_be_visible()
    yield "notice"
    await page.context.set_offline(True)
    await expect(light(page, "offline")).to_be_visible()
    yield "offline"


MOVING = """() => {
    const moving = document.getAnimations().map((one) => one.animationName ?? one.transitionProperty ?? "?");
    for (const element of document.querySelectorAll("*"))
        for (const part of [null, "::before", "::after"]) {
            const { transitionDuration, animationName, animationDuration } = getComputedStyle(element, part);
            const long = [transitionDuration, animationName === "none" ? "0s" : animationDuration];
            if (long.some((times) => times.split(",").some((time) => parseFloat(time) > 0)))
                moving.push(`${element.className}${part ?? ""}: ${long}`);
        }
    return moving;
}"""
"""Returns the elements that move, or would move if they changed."""


async def test_reduced_motion_disables_animations_and_transitions(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, *(note_in(f"Note {number}") for number in range(5)))
    moving = await opened("/n/1")
    await expect(title(moving)).to_have_value("Note 0")
    await expect(moving.locator(".row")).to_have_count(5)
    assert any("::before" in element for element in await moving.evaluate(MOVING))  # the script detects motion

    still = await opened("/n/1", reduced_motion="reduce")
    await expect(title(still)).to_have_value("Note 0")
    await expect(still.locator(".row b")).to_have_text(["Note 4", "Note 3", "Note 2", "Note 1", "Note 0"])
    assert await still.evaluate(MOVING) == []
    await title(still).fill("Moves up")
    await expect(still.locator(".row b").first).to_have_text("Moves up")
    assert await still.evaluate(MOVING) == []
    await still.get_by_label("More").click()
    assert await still.evaluate(MOVING) == []
    await still.get_by_role("button", name="Keys").click()
    await expect(still.get_by_role("dialog", name="Keys")).to_be_visible()
    assert await still.evaluate(MOVING) == []
    await still.keyboard.press("Escape")
    await still.get_by_role("button", name="Delete", exact=True).click()
    await expect(still.get_by_role("button", name="Undo")).to_be_visible()
    assert await still.evaluate(MOVING) == []


async def test_reduced_motion_stops_the_cursor_from_blinking(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in())
    page = await opened("/n/1", reduced_motion="reduce")
    await editor(page).press_sequentially("words")
    await expect(page.locator(".cm-focused .cm-cursor")).to_be_visible()
    assert await page.evaluate(MOVING) == []
