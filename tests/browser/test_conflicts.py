"""Two who write on one note: what can be merged is, and else the page asks."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.page import SECOND, Open, editor, light, make, read_note, saved, title
from tests.harness import ServerProcess, note_in, rest_client


async def test_offline_words_are_merged_with_those_of_others(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="one\ntwo\nthree\n"))
    page = await opened("/n/1")
    await expect(editor(page)).to_contain_text("three")
    await page.context.set_offline(True)
    await editor(page).press("Control+End")
    await editor(page).press_sequentially("four")
    await expect(light(page, "offline")).to_be_visible()
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "ONE\ntwo\nthree\n", "title": "Other title"})
    await page.context.set_offline(False)
    await expect(light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    await expect(title(page)).to_have_value("Other title")
    await expect(editor(page)).to_contain_text("ONE")
    assert (await read_note(server))["content"] == "ONE\ntwo\nthree\nfour"


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [("Keep mine", "my words"), ("Take theirs", "their words"), ("Keep both", "their words\nmy words")],
)
async def test_conflict_shows_both_and_asks(opened: Open, server: ServerProcess, choice: str, becomes: str) -> None:
    await make(server, note_in("Title", content="first\n\nold words"))
    page = await opened("/n/1")
    await expect(editor(page)).to_contain_text("old words")
    await page.context.set_offline(True)
    await editor(page).fill("first\n\nmy words")
    await page.get_by_label("Description").fill("My description")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "FIRST\n\ntheir words", "tags": ["theirs"]})
    await page.context.set_offline(False)
    panel = page.get_by_role("region", name="Conflict")
    await expect(panel).to_be_visible(timeout=25 * SECOND)
    await expect(light(page, "conflict")).to_be_visible()
    await expect(panel).to_contain_text("my words")
    await expect(panel).to_contain_text("their words")
    assert (await read_note(server))["content"] == "FIRST\n\ntheir words"
    await panel.get_by_role("button", name=choice).click()
    await saved(page)
    note = await read_note(server)
    assert note["content"] == f"FIRST\n\n{becomes}"
    assert (note["description"], note["tags"]) == ("My description", ["theirs"])
