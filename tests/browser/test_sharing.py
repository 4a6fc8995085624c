"""Sharing in the page: the dialog, read-only notes, and notes that appear or disappear with their access rights."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect

from tests.browser.notes import create_shared_note, wait_for_own_note
from tests.browser.page import Open, editor, light, title, wait_until_saved
from tests.browser.people import button, server, sign_in, sign_up, signed_in_client
from tests.support.harness import ServerProcess, note_in

__all__ = ["server"]


def _row(page: Page, name: str) -> Locator:
    return page.locator(".row", has_text=name)


async def _open(page: Page, name: str) -> None:
    await _row(page, name).click()
    await expect(editor(page)).to_be_visible()


async def test_share_dialog_changes_take_effect_immediately(opened: Open, server: ServerProcess) -> None:
    ann, ben = await sign_up(opened, "ann"), await sign_up(opened, "ben")
    async with signed_in_client(server, "ann") as rest:
        note = await create_shared_note(rest, note_in("Plans", content="of ann"))
    await _open(ann, "Plans")
    share = ann.get_by_role("button", name="Share")
    await share.focus()
    await ann.keyboard.press("Enter")
    sheet = ann.get_by_role("dialog", name="Share “Plans”")
    name = sheet.get_by_label("Name of somebody to share with")
    for invited in ("ben", "nobody"):
        await name.fill(invited)
        await name.press("Enter")
    save = sheet.get_by_role("button", name="Save")
    await save.click()
    await expect(sheet.get_by_role("listitem").filter(has_text="nobody")).to_contain_text("nobody with this name")
    await sheet.get_by_role("button", name="Remove nobody").click()
    await save.click()
    await expect(sheet.get_by_text("Saved")).to_be_visible()
    # A viewer can only read.
    await _open(ben, "Plans")
    await expect(ben.get_by_text("Read only")).to_be_visible()
    await expect(ben.get_by_text("Owner: ann")).to_be_visible()
    await expect(title(ben)).to_have_attribute("readonly", "")
    await editor(ben).click()
    await ben.keyboard.type("not mine")
    await expect(editor(ben)).to_have_text("of ann")
    for action in ("Delete", "Share"):
        await expect(ben.get_by_role("button", name=action)).to_have_count(0)
    # While the dialog is open, the note changes, and then its sharing settings. Only the latter is reported.
    async with signed_in_client(server, "ann") as rest:
        await rest.patch(f"/notes/{note['id']}/", json={"description": "a new one"})
    await sheet.get_by_label("What ben may do").select_option("editor")
    await save.click()
    await expect(sheet.get_by_text("Saved")).to_be_visible()
    await expect(ben.get_by_text("Read only")).to_have_count(0)
    await expect(ben.get_by_text("Also here: ann")).to_be_visible()
    await editor(ben).click()
    await ben.keyboard.press("End")
    await ben.keyboard.type(" and ben")
    async with signed_in_client(server, "ann") as rest:
        await wait_for_own_note(rest, note["id"], content="of ann and ben")
        await rest.put(f"/notes/{note['id']}/access", json={})
    await expect(ben.get_by_role("alert")).to_contain_text("not shared with you any more")
    await expect(_row(ben, "Plans")).to_have_count(0)
    await expect(ben.get_by_text("Also here")).to_have_count(0)
    await sheet.get_by_label("Everyone may read it").check()
    await save.click()
    await expect(sheet.get_by_text("shared it otherwise meanwhile")).to_be_visible()
    await expect(sheet.get_by_role("listitem")).to_have_count(0)
    # The note is given away.
    await sheet.get_by_text("Give it away").click()
    await sheet.get_by_label("Name of the new owner").fill("ben")
    await button(ann, "Give away").click()
    await button(ann, "Really make ben the owner?").click()
    await expect(ann.get_by_text("Owner: ben")).to_be_visible()
    await expect(share).to_have_count(0)
    await expect(_row(ben, "Plans")).to_be_visible()


async def test_unsaved_title_is_kept_after_losing_write_access(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "eve")
    async with signed_in_client(server, "owner") as rest:
        note = await create_shared_note(
            rest, note_in("Ours", content="text"), members=[{"name": "eve", "role": "editor"}]
        )
        await _open(page, "Ours")
        await page.route("**/notes/*/?base_version=*", lambda route: route.abort())
        await title(page).fill("A title of eve's")
        await rest.put(f"/notes/{note['id']}/access", json={"members": [{"name": "eve", "role": "viewer"}]})
        await expect(page.get_by_role("alert")).to_contain_text("You may only read this note now")
        await page.unroute("**/notes/*/?base_version=*")
        await page.get_by_role("button", name="Save my words as a new note").click()
        await expect(_row(page, "A title of eve's")).to_be_visible()
        assert (await rest.get(f"/notes/{note['id']}/")).json()["title"] == "Ours"


async def test_refused_text_is_saved_after_regaining_write_access(opened: Open, server: ServerProcess) -> None:
    page = await sign_up(opened, "tom")
    async with signed_in_client(server, "owner") as rest:
        note = await create_shared_note(
            rest, note_in("Ours too", content="text"), members=[{"name": "tom", "role": "editor"}]
        )
        path = f"/notes/{note['id']}/"
        await _open(page, "Ours too")
        await editor(page).click()
        await page.keyboard.press("End")
        await page.keyboard.type(" on")
        await wait_until_saved(page)
        await page.route("**/access", lambda route: route.abort())  # the page does not notice the new role yet
        await rest.put(f"{path}access", json={"members": [{"name": "tom", "role": "viewer"}]})
        await page.keyboard.type(" and on")
        await expect(light(page, "unsaved")).to_be_visible()
        await page.unroute("**/access")
        await expect(page.get_by_role("alert")).to_contain_text("does not have your last words")
        await wait_for_own_note(rest, note["id"], content="text on")
        await rest.put(f"{path}access", json={"members": [{"name": "tom", "role": "editor"}]})
        await wait_until_saved(page)
        await expect(page.get_by_role("alert")).to_have_count(0)
        await wait_for_own_note(rest, note["id"], content="text on and on")


async def test_link_opens_the_note_until_it_is_revoked(opened: Open, server: ServerProcess) -> None:
    async with signed_in_client(server, "lin") as rest:
        note = await create_shared_note(rest, note_in("Linked", content="for whoever has it"), link="viewer")
        address = f"/n/{note['id']}#link={note['link']['token']}"
        page = await opened(address)
        await expect(title(page)).to_have_value("Linked")
        await expect(page.get_by_text("Read only")).to_be_visible()
        assert page.url == f"{server.url}/n/{note['id']}"
        await expect(page.get_by_role("button", name="New note")).to_have_count(0)
        await rest.patch(f"/notes/{note['id']}/", json={"title": "Live"})
        await expect(title(page)).to_have_value("Live")
        await rest.put(f"/notes/{note['id']}/access", json={})
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        late = await opened(address)
        await expect(late.get_by_text("This link opens nothing any more")).to_be_visible()
        assert "#" not in late.url
        await sign_in(late, "lin")
        await expect(title(late)).to_have_value("Live")
