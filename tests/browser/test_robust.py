"""The page withstands unusual texts, input methods and second clicks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.notes import create_notes, read_note, wait_for_content
from tests.browser.page import SECOND, Open, append_text, editor, title, wait_until_saved
from tests.support.harness import ServerProcess, eventually, note_in, rest_client

NOT_RENDERED = "This text cannot be shown as Markdown"
PASTE = """([label, text]) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  document.querySelector(`[aria-label=${label}]`).dispatchEvent(event);
}"""


async def _with_preview(opened: Open) -> Page:
    page = await opened()
    await page.evaluate("localStorage.setItem('mode', 'both')")
    return page


class TestPreview:
    @pytest.mark.parametrize(
        "text",
        [
            ">" * 5000 + " deep", "> " * 5000 + "deep", "a" + " " * 500_000 + "b", "a**b" * 100_000, "- " * 3000 + "x",
            "<div>" * 200_000, "<details>" * 100_000, "|a|b|\n|-|-|\n" + "|x|y|\n" * 100_000, "![](/x) " * 100_000,
        ],
        ids=[
            "quotes", "quotes with spaces", "spaces", "unclosed emphasis", "lists",
            "unclosed tags", "unclosed details", "table", "images",
        ],
    )  # fmt: skip
    async def test_text_that_renders_too_slowly_is_shown_as_source(
        self, opened: Open, server: ServerProcess, text: str
    ) -> None:
        await create_notes(server, note_in("Hard", content=text), note_in("Easy", content="# A *heading*"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await expect(editor(page)).to_be_visible()
        await expect(page.locator(".preview").get_by_text(NOT_RENDERED)).to_be_visible(timeout=20 * SECOND)
        await title(page).fill("Still in use")
        await wait_until_saved(page)
        await page.get_by_role("link", name="Easy").click()
        await expect(page.locator(".preview h1")).to_have_text("A heading")

    async def test_remote_line_that_cannot_be_rendered_leaves_one_editor(
        self, opened: Open, server: ServerProcess
    ) -> None:
        """A failed rendering must not leave a second editor that writes to another note."""
        await create_notes(server, note_in("Mine", content="words\n"), note_in("Other", content="other\n"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await expect(page.locator(".preview")).to_contain_text("words")
        async with rest_client(server.url) as rest:
            line = {"op": "append", "text": "\n" + ">" * 5000 + " deep"}
            assert (await rest.post("/notes/1/content", json=[line])).status_code == 200
        await expect(page.locator(".preview").get_by_text(NOT_RENDERED)).to_be_visible(timeout=20 * SECOND)
        await page.get_by_role("link", name="Other").click()
        await expect(editor(page)).to_have_count(1)
        await expect(editor(page)).to_contain_text("other")
        await editor(page).press("Control+Home")
        await editor(page).press_sequentially("here ")
        await wait_for_content(server, 2, "here other\n")
        assert (await read_note(server, 1))["content"].startswith("words\n")

    async def test_blank_text_renders_as_an_empty_preview(self, opened: Open, server: ServerProcess) -> None:
        await create_notes(server, note_in("Empty", content="\n\n"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await append_text(page, "words")
        await expect(page.locator(".preview")).to_have_text("words")
        assert await page.get_by_text(NOT_RENDERED).count() == 0


class TestPaste:
    async def test_pasted_nul_is_removed_and_the_text_is_saved(self, opened: Open, server: ServerProcess) -> None:
        await create_notes(server, note_in("Pasted", content="start\n"))
        page = await opened("/n/1")
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", "a\0b"])
        await expect(page.locator(".notice")).to_contain_text("cannot be stored")
        await editor(page).press_sequentially(" and on")
        await wait_for_content(server, 1, "start\nab and on")
        await wait_until_saved(page)

    async def test_oversized_paste_is_refused_and_can_be_truncated(self, opened: Open, server: ServerProcess) -> None:
        await create_notes(server, note_in("Pasted", content="start\n"))
        page = await opened("/n/1")
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", ("y" * 79 + "\n") * 15_000])
        await expect(page.locator(".notice")).to_contain_text("at most 1 MiB")
        await editor(page).press_sequentially("important words")
        await wait_for_content(server, 1, "start\nimportant words")
        await wait_until_saved(page)
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", ("z" * 79 + "\n") * 15_000])
        await page.get_by_role("button", name="Insert what fits").click()

        async def nearly_full() -> None:
            content = (await read_note(server, 1))["content"]
            assert content.startswith("start\nimportant wordszzz")
            assert 1_000_000 < len(content) <= 1024 * 1024

        await eventually(nearly_full, within=20)
        await wait_until_saved(page)


class TestInputMethod:
    @pytest.mark.parametrize("label", ["Add a tag", "Search"])
    async def test_enter_that_confirms_a_composition_only_inserts_the_word(
        self, opened: Open, server: ServerProcess, label: str
    ) -> None:
        await create_notes(server, note_in("Input method", content="x"))
        page = await opened("/n/1")
        await expect(editor(page)).to_be_visible()
        field = page.get_by_label(label, exact=True)
        await field.click()
        session = await page.context.new_cdp_session(page)
        composition: dict[str, Any] = {"text": "かいぎ", "selectionStart": 3, "selectionEnd": 3}
        await session.send("Input.imeSetComposition", composition)
        enter = {"type": "rawKeyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
        await session.send("Input.dispatchKeyEvent", enter)
        await session.send("Input.insertText", {"text": "会議"})
        await expect(field).to_have_value("会議")
        await expect(field).to_be_focused()
        assert await page.locator(".tagfield .tag").count() == 0


CLICK_DELETE_OF_NEXT_NOTE = """() => new Promise((done) => {
  const deleted = location.pathname;
  const timer = setInterval(() => {
    const button = [...document.querySelectorAll("button")].find((one) => one.textContent.trim() === "Delete");
    if (location.pathname === deleted || !button) return;
    clearInterval(timer);
    button.click();
    done();
  }, 5);
})"""
"""Clicks Delete as soon as the page shows another note, whatever the delay between the page and the test."""


class TestDelete:
    async def test_repeated_delete_clicks_delete_one_note_and_allow_undo(
        self, opened: Open, server: ServerProcess
    ) -> None:
        await create_notes(server, note_in("Neighbour one"), note_in("Neighbour two"), note_in("To delete"))
        page = await opened("/n/3")
        await expect(page.locator("ol[aria-label='3 notes']")).to_be_attached()
        clicked = asyncio.create_task(page.evaluate(CLICK_DELETE_OF_NEXT_NOTE))
        await page.get_by_role("button", name="Delete", exact=True).dblclick()
        await clicked
        await expect(page.locator(".notice")).to_contain_text("Moved to the trash")
        async with rest_client(server.url) as rest:
            assert [note["id"] for note in (await rest.get("/trash/")).json()] == [3]
            await page.get_by_role("button", name="Undo").click()
            await expect(page).to_have_url(f"{server.url}/n/3")
            assert (await rest.get("/trash/")).json() == []
