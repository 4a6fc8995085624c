"""The page can be used without a mouse."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.browser.notes import create_notes, wait_for_content, wait_for_note
from tests.browser.page import Open, editor, title, wait_until_saved
from tests.support.harness import ServerProcess, note_in


async def test_notes_can_be_managed_by_keyboard_only(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("First note", content="apples"), note_in("Second note", content="pears"))
    page = await opened()
    await expect(page.locator(".row").first).to_be_visible()
    keys = page.keyboard
    await keys.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await keys.press("Escape")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    await keys.press("j")
    await expect(page).to_have_url(re.compile("/n/2$"))
    await keys.press("j")
    await expect(page).to_have_url(re.compile("/n/1$"))
    await keys.press("k")
    await expect(page).to_have_url(re.compile("/n/2$"))
    await keys.press("/")
    await keys.type("apples")
    await expect(page.locator(".row")).to_have_count(1)
    await keys.press("ArrowDown")
    await keys.press("Enter")
    await expect(page).to_have_url(re.compile("/n/1$"))
    await expect(editor(page)).to_have_text("apples")
    await keys.press("e")
    await expect(editor(page)).to_be_focused()
    await keys.press("Control+End")
    await keys.type(" and plums")
    await keys.press("Control+s")
    await wait_until_saved(page)
    await wait_for_content(server, 1, "apples and plums")
    await keys.press("Escape")
    await keys.press("h")
    await expect(page.get_by_role("heading", name="History of First note")).to_be_visible()
    await expect(page.locator("ins")).to_contain_text("apples and plums")
    await keys.press("Escape")
    await keys.press("n")
    await expect(title(page)).to_be_focused()
    await keys.type("By keyboard")
    await keys.press("Tab")
    await keys.press("Tab")
    await keys.type("tag,")
    await expect(page).to_have_url(re.compile("/n/3$"))
    await wait_for_note(server, 3, tags=["tag"])
    await page.go_back()
    await expect(page).to_have_url(re.compile("/n/1"))


async def test_key_pressed_while_the_dialog_closes_is_handled(opened: Open, server: ServerProcess) -> None:
    """A closed dialog keeps the focus until the next frame. Its checkbox must not consume the key."""
    await create_notes(server, note_in())
    page = await opened()
    await expect(page.locator(".row").first).to_be_visible()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    where = await page.evaluate(
        """() => {
            const box = document.querySelector("dialog[open] input");
            box.focus();
            box.closest("dialog").close();
            box.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
            return location.pathname;
        }"""
    )
    assert where == "/n/1"


async def test_single_key_shortcuts_can_be_disabled(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in())
    page = await opened()
    await expect(page.locator(".row").first).to_be_visible()
    await page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    await sheet.get_by_label("Keys without Ctrl").uncheck()
    await sheet.get_by_role("button", name="Close").click()
    await page.reload()
    await expect(page.locator(".row").first).to_be_visible()
    for key in ("n", "?", "j"):
        await page.keyboard.press(key)
    await expect(page).to_have_url(re.compile("/$"))
    await expect(sheet).to_be_hidden()
    await page.get_by_label("More").click()
    await page.get_by_role("button", name="Keys").click()
    await sheet.get_by_label("Keys without Ctrl").check()
    await sheet.get_by_role("button", name="Close").click()
    await page.keyboard.press("j")
    await expect(page).to_have_url(re.compile("/n/1$"))


async def test_focused_row_keeps_the_focus_while_scrolling(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, *(note_in(f"Note {number:02}") for number in range(80)))
    page = await opened()
    await expect(page.locator(".row").first).to_be_visible()
    await page.keyboard.press("/")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    row = page.locator(".row:focus")
    await expect(row).to_contain_text("Note 78")
    for place in (5000, 0, 5000):
        await page.locator(".rows").evaluate("(rows, place) => { rows.scrollTop = place }", place)
        await expect(page.locator(".row", has_text="Note 20" if place else "Note 79")).to_be_visible()
        await expect(row).to_contain_text("Note 78")
    await page.keyboard.press("ArrowDown")
    await expect(row).to_contain_text("Note 77")
    await expect(row).to_be_in_viewport()
