"""The tags of all notes: requested only while they are shown, and rarely."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, Request, Route, expect

from tests.browser.notes import create_notes
from tests.browser.page import SECOND, Open, title, wait_until_saved
from tests.support.harness import Json, ServerProcess, eventually, note_in, rest_client


async def _collect_tag_requests(opened: Open, server: ServerProcess, *notes: Json) -> tuple[Page, list[Request]]:
    """Create notes, and return a page with the list of the requests for tags that it makes from now on."""
    await create_notes(server, *notes)
    page = await opened("/ping")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if "/tags/" in request.url else None)
    return page, sent


async def _write(server: ServerProcess, page: Page, *names: str) -> None:
    """Tag a note with one name after the other; return when the page has seen the last one."""
    async with rest_client(server.url) as rest:
        for name in names:
            answer = await rest.patch("/notes/1/", json={"title": f"Title {name}", "tags": [name]})
            assert answer.is_success
    await expect(page.locator(".row b").first).to_have_text(f"Title {names[-1]}")


async def test_closed_tags_panel_sends_no_requests(opened: Open, server: ServerProcess) -> None:
    page, sent = await _collect_tag_requests(opened, server, note_in("First", tags=["a"]))
    await page.goto("/n/1")
    await wait_until_saved(page)
    await page.clock.install()
    await _write(server, page, "b", "c")
    await page.clock.run_for(45_000)
    await _write(server, page, "d")
    assert sent == []


async def test_open_tags_panel_requests_at_most_every_30_seconds(opened: Open, server: ServerProcess) -> None:
    page, sent = await _collect_tag_requests(opened, server, note_in("First", tags=["a"]))
    await page.clock.install()
    await page.goto("/")
    panel, button = page.locator("fieldset.tags"), page.get_by_role("button", name="Tags")
    await button.click()
    await expect(panel.get_by_role("button")).to_have_text(["a 1"])
    await _write(server, page, "b", "c", "d")
    await expect(panel.get_by_role("button")).to_have_text(["d 1"])  # from the events
    await page.clock.run_for(20_000)
    await button.click()
    await button.click()  # the tags are less than 30 s old
    assert len(sent) == 1
    async with page.expect_request_finished(lambda request: "/tags/" in request.url):
        await page.clock.run_for(11_000)
    await page.clock.run_for(45_000)
    assert len(sent) == 2  # no tags have changed since

    await button.click()
    await page.clock.run_for(31_000)
    await _write(server, page, "e")
    assert len(sent) == 2
    async with page.expect_request_finished(lambda request: "/tags/" in request.url):
        await button.click()
    await expect(panel.get_by_role("button")).to_have_text(["e 1"])


async def test_repeated_tags_request_sends_the_entity_tag(opened: Open, server: ServerProcess) -> None:
    page, sent = await _collect_tag_requests(opened, server, note_in("First", tags=["a"]))
    answers = 0

    async def answer(route: Route) -> None:
        nonlocal answers
        answers += 1
        if route.request.headers.get("if-none-match") == '"t1"':
            await route.fulfill(status=304)
        else:
            body = '[{"tag": "of the server", "count": 7}]'
            await route.fulfill(body=body, content_type="application/json", headers={"ETag": '"t1"'})

    await page.route("**/tags/", answer)
    await page.clock.install()
    await page.goto("/")
    panel, button = page.locator("fieldset.tags"), page.get_by_role("button", name="Tags")
    await button.click()
    await expect(panel.get_by_role("button")).to_have_text(["of the server 7"])
    await button.click()
    await page.clock.run_for(31_000)
    await button.click()
    await eventually(lambda: answers == 2)
    await expect(panel.get_by_role("button")).to_have_text(["of the server 7"])
    assert [request.headers.get("if-none-match") for request in sent] == [None, '"t1"']


async def test_added_tag_is_shown_before_it_is_saved(opened: Open, server: ServerProcess) -> None:
    page, sent = await _collect_tag_requests(
        opened, server, note_in("First", tags=["a"]), note_in("Second", tags=["b"])
    )
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await (held.wait() if route.request.method == "PATCH" else asyncio.sleep(0))
        await route.continue_()

    await page.route("**/notes/1/**", hold)
    await page.goto("/n/1")
    await expect(title(page)).to_have_value("First")
    assert sent == []
    field = page.get_by_label("Add a tag")
    async with page.expect_response("**/tags/"):
        await field.focus()
    await expect(page.locator("datalist option")).to_have_count(2)
    await page.get_by_role("button", name="Tags").click()
    shown = page.locator("fieldset.tags").get_by_role("button")
    await field.fill("mine")
    await field.press("Enter")
    await expect(shown).to_have_text(["a 1", "b 1", "mine 1"], timeout=SECOND)  # before it is saved
    held.set()
    await wait_until_saved(page)
    await expect(shown).to_have_text(["a 1", "b 1", "mine 1"])
    assert len(sent) == 1
