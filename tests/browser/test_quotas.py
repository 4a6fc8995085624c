"""A user who reached the quota: the page says why it does not save, and saves again when there is space."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from tests.browser.notes import wait_for_own_note
from tests.browser.page import SECOND, editor
from tests.browser.people import server, signed_in_client
from tests.support.accounts import PASSWORD
from tests.support.harness import ServerProcess, note_in

SOON = 30 * SECOND
SIZE = 2000
CHANGES = {"user_bytes": SIZE}

__all__ = ["server"]


async def test_page_at_the_quota_shows_a_message_and_recovers(browser: Browser, server: ServerProcess) -> None:
    async with signed_in_client(server, "ann") as rest:
        full = note_in(content="x" * (SIZE - len("titledescription")))
        id = (await rest.post("/notes/", json=full)).json()["id"]
        context = await browser.new_context(base_url=server.url)
        signed_in = await context.request.post("/auth/sign-in", data={"name": "ann", "password": PASSWORD})
        assert signed_in.ok
        page = await context.new_page()
        await page.goto(f"/n/{id}")
        await expect(editor(page)).to_have_attribute("contenteditable", "true", timeout=SOON)
        await editor(page).press("Control+End")
        await page.keyboard.type(" more")
        await expect(page.get_by_text("has reached the limit").first).to_be_visible(timeout=SOON)
        assert (await rest.get(f"/notes/{id}/")).json()["content"] == full["content"]
        await editor(page).press("Control+a")
        await page.keyboard.type("short")
        await wait_for_own_note(rest, id, content="short")
        await context.close()
