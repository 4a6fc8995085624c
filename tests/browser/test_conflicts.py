"""Two users edit a note: the text is merged by characters, and the page asks about conflicts in other fields."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.notes import change_note, create_notes, read_note, wait_for_content
from tests.browser.page import SECOND, Cable, Open, append_text, editor, light, title, wait_until_saved
from tests.support.harness import ServerProcess, note_in


async def test_offline_text_is_merged_with_remote_changes(opened: Open, server: ServerProcess) -> None:
    await create_notes(server, note_in("Title", content="one\ntwo\nthree\n"))
    page = await opened()
    cable = await Cable.install(page.context)
    await page.goto("/n/1")
    await expect(editor(page)).to_contain_text("three")
    await cable.cut()
    await append_text(page, "four")
    await expect(light(page, "offline")).to_be_visible()
    await change_note(server, content="ONE\ntwo\nthree\n", title="Other title")
    await cable.restore()
    await expect(light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    await expect(title(page)).to_have_value("Other title")
    await expect(editor(page)).to_contain_text("ONE")
    await wait_for_content(server, 1, "ONE\ntwo\nthree\nfour")


@pytest.mark.parametrize(("choice", "becomes"), [("Keep mine", "My title"), ("Take theirs", "Their title")])
async def test_title_conflict_shows_both_versions_and_applies_the_choice(
    opened: Open, server: ServerProcess, choice: str, becomes: str
) -> None:
    await create_notes(server, note_in("Old title", content="old words"))
    page = await opened("/n/1")
    await expect(title(page)).to_have_value("Old title")
    await page.context.set_offline(True)
    await title(page).fill("My title")
    await page.get_by_label("Description").fill("My description")
    await change_note(server, title="Their title", tags=["theirs"])
    await page.context.set_offline(False)
    panel = page.get_by_role("region", name="Conflict")
    await expect(panel).to_be_visible(timeout=25 * SECOND)
    await expect(light(page, "conflict")).to_be_visible()
    await expect(panel).to_contain_text("My title")
    await expect(panel).to_contain_text("Their title")
    assert (await read_note(server))["title"] == "Their title"
    await panel.get_by_role("button", name=choice).click()
    await wait_until_saved(page)
    note = await read_note(server)
    assert (note["title"], note["description"], note["tags"]) == (becomes, "My description", ["theirs"])
