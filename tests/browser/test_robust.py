"""The page withstands unusual texts, input methods and second clicks."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.page import SECOND, Open, editor, holds, make, read_note, saved, title
from tests.support.harness import ServerProcess, eventually, note_in, rest_client

WRITTEN = "This text cannot be shown as Markdown"
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
            "quotes", "quotes with blanks", "blanks", "half emphasis", "lists",
            "open tags", "open details", "table", "pictures",
        ],
    )  # fmt: skip
    async def test_text_that_takes_too_long_is_shown_as_it_is_written(
        self, opened: Open, server: ServerProcess, text: str
    ) -> None:
        await make(server, note_in("Hard", content=text), note_in("Easy", content="# A *heading*"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await expect(editor(page)).to_be_visible()
        await expect(page.locator(".preview").get_by_text(WRITTEN)).to_be_visible(timeout=20 * SECOND)
        await title(page).fill("Still in use")
        await saved(page)
        await page.get_by_role("link", name="Easy").click()
        await expect(page.locator(".preview h1")).to_have_text("A heading")

    async def test_line_of_another_person_leaves_the_open_note_alone(self, opened: Open, server: ServerProcess) -> None:
        """The renderer failed, and left two editors in the page, of which the first one wrote into another note."""
        await make(server, note_in("Mine", content="words\n"), note_in("Other", content="other\n"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await expect(page.locator(".preview")).to_contain_text("words")
        async with rest_client(server.url) as rest:
            line = {"op": "append", "text": "\n" + ">" * 5000 + " deep"}
            assert (await rest.post("/notes/1/content", json=[line])).status_code == 200
        await expect(page.locator(".preview").get_by_text(WRITTEN)).to_be_visible(timeout=20 * SECOND)
        await page.get_by_role("link", name="Other").click()
        await expect(editor(page)).to_have_count(1)
        await expect(editor(page)).to_contain_text("other")
        await editor(page).press("Control+Home")
        await editor(page).press_sequentially("here ")
        await holds(server, 2, "here other\n")
        assert (await read_note(server, 1))["content"].startswith("words\n")

    async def test_text_with_nothing_to_show_is_empty(self, opened: Open, server: ServerProcess) -> None:
        await make(server, note_in("Empty", content="\n\n"))
        page = await _with_preview(opened)
        await page.goto("/n/1")
        await editor(page).press("Control+End")
        await editor(page).press_sequentially("words")
        await expect(page.locator(".preview")).to_have_text("words")
        assert await page.get_by_text(WRITTEN).count() == 0


class TestPaste:
    async def test_text_with_nul_is_pasted_without_it_and_saving_goes_on(
        self, opened: Open, server: ServerProcess
    ) -> None:
        await make(server, note_in("Pasted", content="start\n"))
        page = await opened("/n/1")
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", "a\0b"])
        await expect(page.locator(".notice")).to_contain_text("cannot be stored")
        await editor(page).press_sequentially(" and on")
        await holds(server, 1, "start\nab and on")
        await saved(page)

    async def test_too_long_text_is_refused_and_what_fits_is_offered(self, opened: Open, server: ServerProcess) -> None:
        await make(server, note_in("Pasted", content="start\n"))
        page = await opened("/n/1")
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", ("y" * 79 + "\n") * 15_000])
        await expect(page.locator(".notice")).to_contain_text("at most 1 MiB")
        await editor(page).press_sequentially("important words")
        await holds(server, 1, "start\nimportant words")
        await saved(page)
        await editor(page).press("Control+End")
        await page.evaluate(PASTE, ["Text", ("z" * 79 + "\n") * 15_000])
        await page.get_by_role("button", name="Insert what fits").click()

        async def nearly_full() -> None:
            content = (await read_note(server, 1))["content"]
            assert content.startswith("start\nimportant wordszzz")
            assert 1_000_000 < len(content) <= 1024 * 1024

        await eventually(nearly_full, within=20)
        await saved(page)


class TestInputMethod:
    @pytest.mark.parametrize("label", ["Add a tag", "Search"])
    async def test_enter_that_confirms_a_word_does_nothing_else(
        self, opened: Open, server: ServerProcess, label: str
    ) -> None:
        await make(server, note_in("Input method", content="x"))
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


class TestDelete:
    async def test_second_click_deletes_no_other_note_and_leaves_the_way_back(
        self, opened: Open, server: ServerProcess
    ) -> None:
        await make(server, note_in("Neighbour one"), note_in("Neighbour two"), note_in("To delete"))
        page = await opened("/n/3")
        button = page.get_by_role("button", name="Delete", exact=True)
        await button.dblclick()
        await expect(page).not_to_have_url(f"{server.url}/n/3")
        await button.click()
        await expect(page.locator(".notice")).to_contain_text("Moved to the trash")
        async with rest_client(server.url) as rest:
            assert [note["id"] for note in (await rest.get("/trash/")).json()] == [3]
            await page.get_by_role("button", name="Undo").click()
            await expect(page).to_have_url(f"{server.url}/n/3")
            assert (await rest.get("/trash/")).json() == []
