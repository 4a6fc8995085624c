"""From view to view, and back."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.page import Open, editor, make, title
from tests.harness import ServerProcess, note_in, rest_client


async def test_history_and_trash_lead_back(opened: Open, server: ServerProcess) -> None:
    await make(server, note_in("Title", content="first\n"), note_in("Doomed"))
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
