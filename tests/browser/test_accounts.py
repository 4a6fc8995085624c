"""Accounts in the page: sign-up, sign-in, sign-out, sessions, tokens, and unsaved text of signed-out users."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Error, Page, expect
from pymongo.database import Database

from tests.browser.axe import AXE, serious
from tests.browser.notes import create_shared_note, wait_for_own_note
from tests.browser.page import Open, editor, light, title, wait_until_saved
from tests.browser.people import button, menu, server, sign_in, sign_up, signed_in_client
from tests.support.accounts import PASSWORD, bearer
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client

__all__ = ["server"]

STORED_TEXT = """async () => [
  ...Object.keys(localStorage).filter((key) => key.includes("/")),
  ...(await indexedDB.databases()).map(({ name }) => name).filter((name) => name.startsWith("text-")),
  ...await new Promise((done) => {
    const opening = indexedDB.open(`${localStorage.getItem("account") || "max"}/notes`, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("drafts", { keyPath: "key" });
    opening.onsuccess = () => {
      const all = opening.result.transaction("drafts").objectStore("drafts").getAllKeys();
      all.onsuccess = () => done(all.result);
    };
  }),
]"""
"""Returns the names of all stored text of the user in the browser."""


async def _cookies(page: Page) -> set[str]:
    """Return the names of the cookies of a browser."""
    return {cookie.get("name", "") for cookie in await page.context.cookies()}


async def _wait_until_nothing_is_stored(page: Page) -> None:
    """Wait until the browser keeps no text. The page says that the session ended before it has removed everything."""

    async def is_empty() -> bool:
        try:
            stored: list[str] = await page.evaluate(STORED_TEXT)
        except Error:  # the page is being loaded again
            return False
        return not stored

    await eventually(is_empty)


async def _write_note(page: Page, text: str) -> int:
    """Create a note with the keyboard, and return its id."""
    await page.get_by_role("button", name="New note").click()
    await title(page).fill("A note of mine")
    await page.wait_for_url("**/n/*")
    await editor(page).click()
    await page.keyboard.type(text)
    await wait_until_saved(page)
    return int(page.url.rpartition("/")[2])


async def test_sign_out_deletes_the_stored_text_of_the_user(opened: Open) -> None:
    page = await opened("/account")
    await page.get_by_role("button", name="Make an account").click()
    await page.get_by_label("Name", exact=True).fill("max")
    await page.get_by_label("Password", exact=True).fill("too short")
    await button(page, "Sign up").click()
    await expect(page.get_by_role("alert")).to_contain_text("at least 15 characters")
    field = page.get_by_label("Password", exact=True)
    await expect(field).to_have_attribute("autocomplete", "new-password")
    await button(page, "Show: Password").click()
    await expect(field).to_have_attribute("type", "text")
    await field.fill(PASSWORD)
    await field.press("Enter")
    await expect(page.get_by_role("heading", name="Your account: max")).to_be_visible()  # the requested page
    await _write_note(page, "words")
    assert await page.evaluate(STORED_TEXT) != []
    await menu(page, "Sign out")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.get_by_text("A note of mine")).to_have_count(0)
    await _wait_until_nothing_is_stored(page)
    await sign_in(page, "max", "wrong horse battery staple")
    await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong")
    await sign_in(page, "MAX")
    await expect(page.locator(".row", has_text="A note of mine")).to_be_visible()


async def test_unsent_text_is_kept_until_the_user_signs_in_again(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "ann")
    id = await _write_note(page, "before")
    other = await page.context.new_page()
    await other.goto("/")
    await expect(other.locator(".row")).to_have_count(1)
    async with signed_in_client(server, "ann") as rest:
        await page.route("**/notes/*/?base_version=*", lambda route: route.abort())
        await title(page).fill("A title that waits")
        await expect(light(page, "offline")).to_be_visible()
        await rest.delete("/auth/sessions")
        await expect(page.get_by_text("You are signed out here")).to_be_visible()
        await expect(page.get_by_text("What you typed is kept")).to_be_visible()
        await expect(page.get_by_text("A title that waits")).to_have_count(0)
        assert (await rest.get(f"/notes/{id}/")).json()["title"] == "A note of mine"
        # Another user in another tab of the same browser: no text of ann is shown or sent.
        async with signed_in_client(server, "ben"):
            pass
        await expect(other.get_by_text("You are signed out here")).to_be_visible()
        await sign_in(other, "ben")
        for tab in (other, page):
            await expect(tab.get_by_role("button", name="New note")).to_be_visible()
            await expect(tab.locator(".row")).to_have_count(0)
            await expect(tab.get_by_text("A title that waits")).to_have_count(0)
        await page.unroute("**/notes/*/?base_version=*")
        # Ben signs out: the links of the browser are deleted, but not the text stored for ann.
        link = (await create_shared_note(rest, note_in("By link"), link="viewer"))["link"]["token"]
        opened_link = await other.request.post("/auth/links", data={"token": link})
        assert opened_link.status == 200
        assert "realtime-links" in await _cookies(other)
        await menu(other, "Sign out")
        await expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        assert await _cookies(other) == {"realtime-device"}
        await sign_in(other, "ann")
        await expect(other.locator(".row", has_text="A title that waits")).to_be_visible()
        await wait_for_own_note(rest, id, title="A title that waits")


async def test_page_after_signing_in_again_continues_without_a_reload(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "eve")
    id = await _write_note(page, "one")
    await page.evaluate("globalThis.sameDocument = true")
    async with signed_in_client(server, "eve") as rest:
        await page.route("**/auth/me", lambda route: route.abort())  # the page cannot notice that the session has ended
        await rest.delete("/auth/sessions")
        await expect(light(page, "refused")).to_be_visible()
        await page.keyboard.type(" two")
        await page.unroute("**/auth/me")
        await title(page).fill("Other title")
        await expect(page.get_by_text("You are signed out here")).to_be_visible()
        await expect(page.get_by_label("Name", exact=True)).to_have_value("eve")
        await page.get_by_label("Password", exact=True).fill(PASSWORD)
        await page.keyboard.press("Enter")
        await wait_until_saved(page)
        assert await page.evaluate("globalThis.sameDocument")
        await expect(editor(page)).to_have_text("one two")
        note = (await rest.get(f"/notes/{id}/")).json()
        assert note["title"] == "Other title"


async def test_account_pages_manage_sessions_tokens_and_users(opened: Open, server: ServerProcess) -> None:
    page = await opened("/account")
    async with signed_in_client(server, "root") as rest:
        await sign_in(page, "root")
        sessions = page.get_by_role("region", name="Where you are signed in").get_by_role("listitem")
        await expect(sessions.get_by_text("this one")).to_have_count(1)
        await page.get_by_role("button", name="End all others").click()
        await expect(sessions).to_have_count(1)
        assert (await rest.get("/auth/sessions")).status_code == 401
    await page.get_by_label("What it is for").fill("<img src=x onerror=alert(1)>")
    await button(page, "Make a token").click()
    token = await page.get_by_label("The new token", exact=True).input_value()
    async with rest_client(server.url) as rest:
        assert (await rest.get("/auth/me", headers=bearer(token))).json()["user"]["name"] == "root"
        await page.get_by_role("button", name="Revoke <img").click()
        await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
        assert (await rest.get("/auth/me", headers=bearer(token))).status_code == 401
    async with signed_in_client(server, "moe") as moe:
        await menu(page, "People")
        await page.get_by_role("button", name="Disable moe").click()
        await expect(page.get_by_role("button", name="Enable moe")).to_be_visible()
        assert (await moe.get("/auth/me")).json()["user"] is None
    await page.get_by_role("button", name="Make an invite").click()
    address = page.get_by_label("The address of the invite", exact=True)
    await expect(address).to_have_value(re.compile(rf"{server.url}/invite#[\w-]{{20,}}"))
    await page.get_by_label("Only by").fill("moe")
    await page.get_by_role("button", name="Show", exact=True).click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await expect(page.locator("tbody tr")).to_contain_text("sign-up")


async def test_sensitive_request_is_repeated_after_password_confirmation(
    opened: Open, server: ServerProcess, module_database: Database[Json]
) -> None:
    page = await sign_up(opened, "pam")
    await menu(page, "Your account")
    module_database.sessions.update_many({"user": "pam"}, {"$unset": {"proven_date": ""}})
    await page.get_by_label("What it is for").fill("backup")
    await button(page, "Make a token").click()
    dialog = page.get_by_role("dialog", name="Confirm your password")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("alert")).to_have_text("Nothing was changed: the password was not confirmed")
    await button(page, "Make a token").click()
    await expect(dialog.get_by_label("Your password", exact=True)).to_be_focused()
    await page.keyboard.type("wrong horse battery staple")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("alert")).to_have_text("The password is wrong")
    await dialog.get_by_label("Your password", exact=True).fill(PASSWORD)
    await dialog.get_by_role("button", name="Confirm", exact=True).click()
    await expect(page.get_by_label("The new token", exact=True)).to_have_value(re.compile("rt_"))
    await expect(dialog).to_have_count(0)
    async with signed_in_client(server, "pia"):
        pass
    note = await (await page.request.post("/notes/", data=note_in("To give away"))).json()
    module_database.sessions.update_many({"user": "pam"}, {"$unset": {"proven_date": ""}})
    await page.goto(f"/n/{note['id']}")
    await page.get_by_role("button", name="Share").click()
    await page.get_by_text("Give it away").click()
    await page.get_by_label("Name of the new owner").fill("pia")
    await page.get_by_role("button", name="Give away", exact=True).click()
    await page.get_by_role("button", name="Really make pia the owner?").click()
    await dialog.get_by_label("Your password", exact=True).fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    access = await (await page.request.get(f"/notes/{note['id']}/access")).json()
    assert (access["owner"], access["role"]) == ("pia", "editor")


async def test_password_change_revokes_api_tokens_unless_unchecked(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "pat")
    await menu(page, "Your account")
    for number, kept in ((1, True), (2, False)):
        await page.get_by_label("What it is for").fill("backup")
        await button(page, "Make a token").click()
        token = await page.get_by_label("The new token", exact=True).input_value()
        password = page.get_by_role("region", name="Password")
        await password.get_by_label("The old password", exact=True).fill(PASSWORD + " again" * (number - 1))
        await password.get_by_label("The new password", exact=True).fill(PASSWORD + " again" * number)
        box = password.get_by_label("Revoke all API tokens, too")
        await expect(box).to_be_checked()
        await box.set_checked(not kept)
        await button(page, "Change it").click()
        message = "All other sessions have ended" + ("" if kept else ", and all API tokens are revoked")
        await expect(page.locator(".notice")).to_have_text(f"The password is changed. {message}")
        await expect(page.get_by_role("button", name="Revoke backup")).to_have_count(1 if kept else 0)
        async with rest_client(server.url) as rest:
            assert (await rest.get("/auth/me", headers=bearer(token))).status_code == (200 if kept else 401)
        await box.set_checked(True)


async def test_administrator_can_change_roles_invites_and_accounts(opened: Open, server: ServerProcess) -> None:
    root = await opened("/people")
    await sign_in(root, "root")
    quin = await sign_up(opened, "quin")
    note = await (await quin.request.post("/notes/", data=note_in("Of quin"))).json()
    await root.reload()
    await root.get_by_role("button", name="Make administrator quin").click()
    await expect(root.get_by_role("button", name="Take administrator role from quin")).to_be_visible()
    # The page of this user shows the new role immediately.
    await quin.get_by_label("More").click()
    await expect(quin.locator(".menu").get_by_text("People")).to_be_visible()
    await root.get_by_role("button", name="Take administrator role from quin").click()
    await expect(quin.locator(".menu").get_by_text("People")).to_have_count(0)
    await expect(light(quin, "saved")).to_be_visible()
    invites = root.get_by_role("region", name="Invites")
    before = len(await (await root.request.get("/invites")).json())
    await expect(invites.get_by_role("listitem")).to_have_count(before)
    await invites.get_by_role("button", name="Make an invite").click()
    await expect(invites.get_by_role("listitem")).to_have_count(before + 1)
    await invites.get_by_role("button", name="Revoke the invite by root").first.click()
    await expect(invites.get_by_role("listitem")).to_have_count(before)
    await expect(invites.get_by_label("The address of the invite", exact=True)).to_have_count(0)
    await root.get_by_role("button", name="Delete… quin").click()
    dialog = root.get_by_role("dialog", name="Delete the account quin")
    await dialog.get_by_label("Give all notes to (optional)").fill("quin")
    await dialog.get_by_role("button", name="Delete the account").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("quin cannot get the notes")
    await dialog.get_by_label("Give all notes to (optional)").fill("Root")
    await dialog.get_by_role("button", name="Delete the account").click()
    await expect(dialog).to_have_count(0)
    await expect(root.get_by_role("button", name="Delete… quin")).to_have_count(0)
    await expect(quin.get_by_text("You are signed out here")).to_be_visible()
    assert (await (await root.request.get(f"/notes/{note['id']}/access")).json())["owner"] == "root"


async def test_user_can_delete_their_own_account(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "rob")
    await _write_note(page, "words")
    await menu(page, "Your account")
    await page.get_by_role("button", name="Delete your account…").click()
    dialog = page.get_by_role("dialog", name="Delete your account")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await page.get_by_role("button", name="Delete your account…").click()
    await dialog.get_by_role("button", name="Delete the account").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await _wait_until_nothing_is_stored(page)
    await sign_in(page, "rob")
    await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong")


async def test_failed_sign_ins_are_shown_until_they_are_dismissed(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "fay")
    await menu(page, "Sign out")
    async with rest_client(server.url) as rest:
        for _ in range(2):
            wrong = {"name": "fay", "password": "wrong horse battery staple"}
            assert (await rest.post("/auth/sign-in", json=wrong)).status_code == 401
    await sign_in(page, "fay")
    line = page.locator(".attempts")
    await expect(line).to_contain_text("2 failed sign-in attempts since your last visit, the latest at")
    await page.reload()
    await expect(line).to_be_visible()
    await menu(page, "Your account")
    panel = page.get_by_role("region", name="Failed sign-in attempts")
    await expect(panel).to_contain_text("2 failed sign-in attempts")
    await line.get_by_role("button", name="Dismiss").click()
    await expect(line).to_have_count(0)
    await expect(panel).to_have_count(0)
    await page.reload()
    await expect(page.get_by_role("heading", name="Your account: fay")).to_be_visible()
    await expect(line).to_have_count(0)


async def test_account_views_have_no_serious_accessibility_violations(browser: Browser, server: ServerProcess) -> None:
    context = await browser.new_context(
        base_url=server.url, viewport={"width": 320, "height": 640}, reduced_motion="reduce", bypass_csp=True
    )
    await context.add_init_script(path=AXE)
    page = await context.new_page()

    async def check_accessibility() -> None:
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            assert await serious(page) == []
        assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")

    await page.goto("/account")
    await sign_in(page, "root", "wrong horse battery staple")
    await expect(page.get_by_role("alert")).to_be_visible()
    await check_accessibility()
    await sign_in(page, "root")
    await button(page, "Make a token").wait_for()
    await page.get_by_label("What it is for").fill("backup")
    await button(page, "Make a token").click()
    await page.get_by_label("The new token", exact=True).wait_for()
    await check_accessibility()
    await menu(page, "People")
    await page.locator("tbody tr").first.wait_for()
    await check_accessibility()
    async with signed_in_client(server, "vi") as vi:
        other = await create_shared_note(vi, note_in("Of vi"), members=[{"name": "root", "role": "viewer"}])
    note = await (await page.request.post("/notes/", data=note_in("Shared"))).json()
    access = {"members": [{"name": "vi", "role": "viewer"}], "link": "viewer"}
    await page.request.put(f"/notes/{note['id']}/access", data=access)
    await page.goto(f"/n/{note['id']}")
    await page.get_by_role("button", name="Share").click()
    await page.get_by_label("The link", exact=True).wait_for()
    await check_accessibility()
    await page.goto(f"/n/{other['id']}")
    await expect(page.get_by_text("Read only")).to_be_visible()
    await check_accessibility()
