"""The page in a real browser: live, lossless, safe, and usable by everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect
from pymongo import MongoClient
from redis import Redis

from realtime.settings import Settings
from tests.browser import own
from tests.harness import UNIT, Json, ServerProcess, eventually, note_in, rest_client

SECOND = 1000 * UNIT
AXE = Path(__file__).parent.parent / "frontend" / "node_modules" / "axe-core" / "axe.min.js"


async def _make(server: ServerProcess, *notes: Json) -> list[Json]:
    async with rest_client(server.url) as rest:
        return [(await rest.post("/notes/", json=note)).json() for note in notes]


async def _note(server: ServerProcess, id: int = 1) -> Json:
    async with rest_client(server.url) as rest:
        note: Json = (await rest.get(f"/notes/{id}/")).json()
        return note


def _editor(page: Page) -> Any:
    return page.get_by_role("textbox", name="Text", exact=True)


def _light(page: Page, state: str) -> Any:
    return page.locator(f'.light[data-state="{state}"]')


async def _saved(page: Page) -> None:
    await expect(_light(page, "saved")).to_be_visible()


async def test_two_browsers_see_each_other(opened: Callable[..., Any], server: ServerProcess) -> None:
    one, other = await opened(), await opened()
    await expect(one.get_by_text("No notes yet")).to_be_visible()
    await one.get_by_role("button", name="New note").click()
    await one.get_by_label("Title", exact=True).fill("Written by one")
    await _editor(one).fill("first words")
    await expect(other.get_by_role("link", name="Written by one")).to_be_visible()
    await expect(one).to_have_url(re.compile(r"/n/1$"))
    await _saved(one)

    await other.get_by_role("link", name="Written by one").click()
    await expect(_editor(other)).to_have_text("first words")
    await expect(one.locator(".people")).to_contain_text("Also here: Guest", timeout=SECOND)

    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"title": "Changed by a program"})
    for page in (one, other):
        await expect(page.get_by_label("Title", exact=True)).to_have_value("Changed by a program", timeout=SECOND)
        await expect(page.locator(".row b")).to_have_text("Changed by a program", timeout=SECOND)

    await one.get_by_role("button", name="Delete", exact=True).click()
    await expect(other.get_by_role("alert")).to_contain_text("This note was deleted", timeout=SECOND)
    await expect(other.locator(".row")).to_have_count(0)
    await one.get_by_role("button", name="Undo").click()
    await expect(other.get_by_label("Title", exact=True)).to_have_value("Changed by a program")


async def test_new_note_is_typed_on_while_it_is_saved(opened: Callable[..., Any], server: ServerProcess) -> None:
    page = await opened()
    await page.keyboard.press("n")
    await expect(page.get_by_label("Title", exact=True)).to_be_focused()
    await page.keyboard.type("New note")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    words = " ".join(f"word{number}" for number in range(60))
    await page.keyboard.type(words, delay=15)
    await expect(page).to_have_url(re.compile(r"/n/1$"))
    await _saved(page)
    await expect(_editor(page)).to_be_focused()
    note = await _note(server)
    assert note["content"] == words
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": f"others {words}"})
    await expect(_editor(page)).to_have_text(f"others {words}")


async def test_reset_fetches_in_place(opened: Callable[..., Any], server: ServerProcess, settings: Settings) -> None:
    await _make(server, note_in("Before"), note_in("Other"))
    page = await opened("/n/1")
    await expect(page.locator(".row b")).to_have_text(["Other", "Before"])
    with MongoClient[Json](settings.mongo_url) as mongo, Redis.from_url(settings.redis_url or "") as redis:
        # A change that no event tells of, and a log that begins anew.
        await eventually(lambda: mongo[settings.database].notes.count_documents({"dirty": True}) == 0)
        mongo[settings.database].notes.update_one({"_id": 1}, {"$set": {"title": "After"}, "$inc": {"version": 1}})
        redis.delete(*redis.keys(f"{{{settings.database}}}:*"))
    await expect(page.get_by_label("Title", exact=True)).to_have_value("After", timeout=10 * SECOND)
    await expect(page.locator(".row b", has_text="After")).to_be_visible()


async def test_server_that_restarts_under_unsent_words_loses_none(
    browser: Browser, serve: Callable[..., ServerProcess]
) -> None:
    server = serve()
    await _make(server, note_in("Title", content="before\n"))
    page = await browser.new_page(base_url=server.url)
    await page.goto("/n/1")
    await expect(_editor(page)).to_have_text("before")
    server.kill()
    await _editor(page).press("Control+End")
    await _editor(page).press_sequentially("typed while it was away")
    await expect(_light(page, "offline")).to_have_text("Offline – 1 change waiting")
    server.start()
    await expect(_light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    assert (await _note(server))["content"] == "before\ntyped while it was away"


async def test_unsent_words_survive_a_reload_and_a_closed_tab(
    opened: Callable[..., Any], server: ServerProcess
) -> None:
    await _make(server, note_in("Title", content="before\n"))
    page = await opened("/n/1")

    async def refuse(route: Route) -> None:
        await (route.abort() if route.request.method in ("PATCH", "POST") else route.continue_())

    await page.context.route("**/notes/**", refuse)
    await _editor(page).press("Control+End")
    await _editor(page).press_sequentially("unsent")
    await expect(_light(page, "offline")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())  # the page warns of what is unsent
    await page.reload()
    await expect(_editor(page)).to_contain_text("unsent")
    context = page.context
    await page.close(run_before_unload=False)

    again = await context.new_page()
    await again.goto("/")
    await expect(_light(again, "offline")).to_be_visible()
    await context.unroute("**/notes/**")
    await expect(_light(again, "saved")).to_be_visible(timeout=25 * SECOND)
    note = await _note(server)
    assert (note["content"], note["version"]) == ("before\nunsent", 2)


async def test_words_typed_right_before_they_could_go(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("First"), note_in("Second"))
    page = await opened("/n/1")
    page.on("dialog", lambda dialog: dialog.accept())
    await _editor(page).press_sequentially("typed before a reload")
    await page.reload()
    await expect(_editor(page)).to_have_text("typed before a reload")
    await _saved(page)
    await page.get_by_role("link", name="Second").click()
    await expect(page.get_by_label("Title", exact=True)).to_have_value("Second")
    await _editor(page).press_sequentially("typed before a deletion")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_label("Title", exact=True)).to_have_value("Second")
    await expect(_editor(page)).to_have_text("typed before a deletion")
    await _saved(page)
    assert (await _note(server, 1))["content"] == "typed before a reload"
    assert (await _note(server, 2))["content"] == "typed before a deletion"


async def test_note_deleted_under_the_fingers_keeps_its_words(
    opened: Callable[..., Any], server: ServerProcess
) -> None:
    await _make(server, note_in("Doomed"))
    page = await opened("/n/1")
    await _editor(page).press_sequentially("before")
    await _saved(page)
    async with rest_client(server.url) as rest:
        await rest.delete("/notes/1/")
    await expect(page.get_by_role("alert")).to_contain_text("This note was deleted")
    await _editor(page).press_sequentially(" and after")
    await page.get_by_role("button", name="Restore it").click()
    await _saved(page)
    assert (await _note(server))["content"] == "before and after"


async def test_one_socket_however_often_is_searched(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("Apples"))
    page = await opened("/n/1")
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    for text in ("a", "ap", "apples", ""):
        await page.get_by_label("Search").fill(text)
        await page.wait_for_timeout(200)
    await page.get_by_label("Order").select_option("title")
    await expect(page.locator(".row b")).to_have_text(["Apples"])
    assert len(sockets) <= 1


async def test_leaving_with_unsent_words_warns(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in())
    page = await opened("/n/1")
    await expect(page.get_by_label("Title", exact=True)).to_have_value("title")
    await page.context.set_offline(True)
    await page.get_by_label("Title", exact=True).fill("unsent title")
    warned: list[str] = []

    async def stay(dialog: Any) -> None:
        warned.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)
    await page.close(run_before_unload=True)
    await eventually(lambda: warned == ["beforeunload"])


async def test_offline_words_are_merged_with_those_of_others(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("Title", content="one\ntwo\nthree\n"))
    page = await opened("/n/1")
    await expect(_editor(page)).to_contain_text("three")
    await page.context.set_offline(True)
    await _editor(page).press("Control+End")
    await _editor(page).press_sequentially("four")
    await expect(_light(page, "offline")).to_be_visible()
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "ONE\ntwo\nthree\n", "title": "Other title"})
    await page.context.set_offline(False)
    await expect(_light(page, "saved")).to_be_visible(timeout=25 * SECOND)
    await expect(page.get_by_label("Title", exact=True)).to_have_value("Other title")
    await expect(_editor(page)).to_contain_text("ONE")
    assert (await _note(server))["content"] == "ONE\ntwo\nthree\nfour"


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [("Keep mine", "my words"), ("Take theirs", "their words"), ("Keep both", "their words\nmy words")],
)
async def test_conflict_shows_both_and_asks(
    opened: Callable[..., Any], server: ServerProcess, choice: str, becomes: str
) -> None:
    await _make(server, note_in("Title", content="first\n\nold words"))
    page = await opened("/n/1")
    await expect(_editor(page)).to_contain_text("old words")
    await page.context.set_offline(True)
    await _editor(page).fill("first\n\nmy words")
    await page.get_by_label("Description").fill("My description")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "FIRST\n\ntheir words", "tags": ["theirs"]})
    await page.context.set_offline(False)
    panel = page.get_by_role("region", name="Conflict")
    await expect(panel).to_be_visible(timeout=25 * SECOND)
    await expect(_light(page, "conflict")).to_be_visible()
    await expect(panel).to_contain_text("my words")
    await expect(panel).to_contain_text("their words")
    assert (await _note(server))["content"] == "FIRST\n\ntheir words"
    await panel.get_by_role("button", name=choice).click()
    await _saved(page)
    note = await _note(server)
    assert note["content"] == f"FIRST\n\n{becomes}"
    assert (note["description"], note["tags"]) == ("My description", ["theirs"])


async def test_others_changes_leave_scroll_focus_and_typing_alone(
    opened: Callable[..., Any], server: ServerProcess
) -> None:
    await _make(server, *(note_in(f"Note {number:02}") for number in range(60)))
    page = await opened("/n/1")
    rows = page.locator(".rows")
    await expect(page.locator(".row").first).to_be_visible()
    await rows.evaluate("element => { element.scrollTop = 2000 }")
    shown = page.locator(".row", has_text="Note 30")
    await expect(shown).to_be_visible()
    before = await shown.bounding_box()
    await page.get_by_label("Description").focus()
    await page.keyboard.press("End")
    await page.keyboard.type(" and")
    async with rest_client(server.url) as rest:
        for number in range(5):
            await rest.post("/notes/", json=note_in(f"New {number}"))
        await rest.patch("/notes/3/", json={"title": "Moved up"})
    await page.keyboard.type(" more")
    await expect(page.locator("ol[aria-label^='65']")).to_be_attached()
    await eventually(lambda: _same_place(shown, before))
    assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "Description"
    await expect(page.get_by_label("Description")).to_have_value("description and more")


async def _same_place(row: Any, before: Any) -> bool:
    now = await row.bounding_box()
    return bool(now) and abs(now["y"] - before["y"]) < 2


async def test_ten_thousand_notes_scroll(opened: Callable[..., Any], server: ServerProcess, settings: Settings) -> None:
    await _make(server, note_in(content="text"))
    with MongoClient[Json](settings.mongo_url) as mongo:
        collection = mongo[settings.database].notes
        await eventually(lambda: collection.count_documents({"dirty": True}) == 0)
        note = collection.find_one() or {}
        collection.insert_many(
            [{**note, "_id": id, "title": f"Note {id:05}", "title_key": f"note {id:05}"} for id in range(2, 10_001)]
        )
    page = await opened()
    await page.get_by_label("Order").select_option("title")
    await expect(page.locator(".row").first).to_contain_text("Note 00002")
    for _ in range(60):
        await page.locator(".rows").evaluate("element => { element.scrollTop = element.scrollHeight }")
        if await page.locator("ol[aria-label='10000 notes']").count():
            break
        await page.wait_for_timeout(100)
    await expect(page.locator("ol[aria-label='10000 notes']")).to_be_attached()
    assert await page.locator(".row").count() < 60
    frames = await page.evaluate(
        """async () => {
            const rows = document.querySelector(".rows"), gaps = [];
            let last = performance.now();
            for (let step = 0; step < 60; step++) {
                rows.scrollTop = (rows.scrollHeight - rows.clientHeight) * ((step * 7) % 60) / 60;
                await new Promise(requestAnimationFrame);
                gaps.push(performance.now() - last);
                last = performance.now();
            }
            return gaps.sort((a, b) => a - b);
        }"""
    )
    assert len(frames) == 60
    await page.locator(".rows").evaluate("element => { element.scrollTop = 84 * 5000 }")
    await expect(page.locator(".row", has_text="Note 05004")).to_be_visible()


NASTY = [
    "<img src=x onerror=pwned()>",
    "<script>pwned()</script>",
    '"><svg onload=pwned()>',
    "[a](javascript:pwned())",
    "<a href='javascript:pwned()'>a</a>",
    "<iframe srcdoc='<script>parent.pwned()</script>'></iframe>",
    "<math><mtext><table><mglyph><style><img src=x onerror=pwned()>",
    '![a](x" onerror="pwned())',
    "<form action=javascript:pwned()><button>x</button></form>",
    "<style>@import 'https://example.org'</style><link rel=stylesheet href=https://example.org>",
    "<img src=https://example.org/pixel.png>",
]


async def test_markup_in_notes_does_nothing(browser: Browser, server: ServerProcess) -> None:
    matter = "---\ntitle: <img src=x onerror=pwned()>\n---\n"
    await _make(
        server,
        note_in(NASTY[0], NASTY[1], content=matter + "\n\n".join(NASTY), tags=[nasty[:50] for nasty in NASTY[:6]]),
        *(note_in(nasty[:50], nasty[:50], tags=[nasty[:50]], content=nasty) for nasty in NASTY),
    )
    context = await browser.new_context(base_url=server.url)
    called: list[Any] = []
    foreign: list[str] = []
    await context.expose_function("pwned", lambda *args: called.append(args))
    page = await context.new_page()
    page.on("request", lambda asked: None if own(asked.url, server) else foreign.append(asked.url))
    await page.add_init_script("localStorage.setItem('mode', 'both')")
    for path in ("/n/1", "/n/2", "/n/7", "/n/1/history", "/?"):
        await page.goto(path)
        await expect(page.locator(".row").first).to_be_visible()
        await page.get_by_role("button", name="Tags").click()
        await page.get_by_label("Search").fill("pwned")
        await expect(page.locator(".row mark").first).to_be_visible()
        for link in await page.locator(".preview a").all():
            assert not (await link.get_attribute("href") or "").startswith("javascript")
    await page.goto("/n/1")
    await expect(page.locator(".preview")).to_be_visible()
    assert (
        await page.locator(
            ".preview :is(script, iframe, style, link, form, object, embed, [onerror], [onload])"
        ).count()
        == 0
    )
    await expect(page.get_by_label("Title", exact=True)).to_have_value(NASTY[0])
    assert called == []
    assert foreign == []


async def test_phone_shows_one_thing_at_a_time(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("On the phone", content="# Heading"))
    page = await opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    await page.get_by_role("link", name="On the phone").tap()
    await expect(page.locator(".sidebar")).to_be_hidden()
    await expect(_editor(page)).to_be_visible()
    await page.get_by_role("button", name="Read", exact=True).tap()
    await expect(page.get_by_role("heading", name="Heading")).to_be_visible()
    await expect(_editor(page)).to_be_hidden()
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not await page.evaluate(wide)
    await page.get_by_role("button", name="‹ Notes").tap()
    await expect(page.locator(".sidebar")).to_be_visible()
    assert not await page.evaluate(wide)


async def test_everything_by_keyboard(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("First note", content="apples"), note_in("Second note", content="pears"))
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
    await expect(_editor(page)).to_have_text("apples")
    await keys.press("e")
    await expect(_editor(page)).to_be_focused()
    await keys.press("Control+End")
    await keys.type(" and plums")
    await keys.press("Control+s")
    await _saved(page)
    assert (await _note(server))["content"] == "apples and plums"
    await keys.press("Escape")
    await keys.press("h")
    await expect(page.get_by_role("heading", name="History of First note")).to_be_visible()
    await expect(page.locator("ins")).to_contain_text("apples and plums")
    await keys.press("Escape")
    await keys.press("n")
    await expect(page.get_by_label("Title", exact=True)).to_be_focused()
    await keys.type("By keyboard")
    await keys.press("Tab")
    await keys.press("Tab")
    await keys.type("tag,")
    await expect(page).to_have_url(re.compile("/n/3$"))
    await eventually(lambda: _has_tags(server, 3, ["tag"]))
    await page.go_back()
    await expect(page).to_have_url(re.compile("/n/1"))


async def _has_tags(server: ServerProcess, id: int, tags: list[str]) -> bool:
    return bool((await _note(server, id))["tags"] == tags)


async def test_history_and_trash_lead_back(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, note_in("Title", content="first\n"), note_in("Doomed"))
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "second\n"})
        await rest.delete("/notes/2/")
    page = await opened("/n/1/history")
    await expect(page.locator("del")).to_contain_text("first")
    await page.get_by_role("button", name="Version 1").click()
    await page.get_by_role("button", name="Restore version 1").click()
    await expect(_editor(page)).to_have_text("first")
    await page.goto("/deleted")
    await page.get_by_role("button", name="Restore Doomed").click()
    await expect(page.get_by_label("Title", exact=True)).to_have_value("Doomed")
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.goto("/deleted")
    await page.get_by_role("button", name="Delete for good: Doomed").click()
    await page.get_by_role("button", name="Really delete for good?").click()
    await expect(page.get_by_text("The trash is empty")).to_be_visible()


async def test_search_tags_and_order(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(
        server,
        note_in("Bananas", content="yellow fruit", tags=["fruit"]),
        note_in("Apples", content="red fruit", tags=["fruit", "red"]),
        note_in("Carrots", content="a root", tags=["red"]),
    )
    page = await opened()
    titles = page.locator(".row b")
    await expect(titles).to_have_text(["Carrots", "Apples", "Bananas"])
    await page.get_by_label("Order").select_option("title")
    await expect(titles).to_have_text(["Apples", "Bananas", "Carrots"])
    await page.get_by_role("button", name="Tags").click()
    await page.get_by_role("button", name="fruit").click()
    await page.get_by_role("button", name="red 2").click()
    await expect(titles).to_have_text(["Apples"])
    await page.get_by_role("button", name="red 2").click()
    await page.get_by_label("Search").fill("banan")
    await expect(titles).to_have_text(["Bananas"])
    await page.get_by_label("Search").fill("yellow")
    await expect(page.locator(".row mark")).to_have_text("yellow")
    async with rest_client(server.url) as rest:
        await rest.post("/notes/", json=note_in("Lemons", content="yellow, too", tags=["fruit"]))
    await expect(titles).to_have_count(2)


@pytest.mark.parametrize("blocked", [["ws"], ["ws", "events"]])
async def test_other_ways_when_one_is_closed(browser: Browser, server: ServerProcess, blocked: list[str]) -> None:
    await _make(server, note_in("Title"))
    context = await browser.new_context(base_url=server.url)
    await context.route_web_socket(re.compile("/ws"), lambda socket: socket.close(code=1001))
    if "events" in blocked:
        await context.route("**/events?*", lambda route: route.abort())
    page = await context.new_page()
    await page.add_init_script("Math.random = () => 0.1")
    way = "/changes" if "events" in blocked else "/events"
    async with page.expect_request(re.compile(way), timeout=30 * SECOND):
        await page.goto("/")
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"title": "Changed"})
    await expect(page.locator(".row b")).to_have_text("Changed")


async def test_ten_tabs_share_nothing_that_breaks(opened: Callable[..., Any], server: ServerProcess) -> None:
    await _make(server, *(note_in(f"Note {number}", content="") for number in range(1, 11)))
    first = await opened("/n/1")
    tabs = [first]
    for number in range(2, 11):
        tab = await first.context.new_page()
        await tab.goto(f"/n/{number}")
        tabs.append(tab)
    for number, tab in enumerate(tabs, 1):
        await _editor(tab).fill(f"typed in tab {number}")
    for tab in tabs:
        await _saved(tab)
    for number in range(1, 11):
        note = await _note(server, number)
        assert (note["content"], note["version"]) == (f"typed in tab {number}", 2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
async def test_nothing_serious_is_in_anybodys_way(
    browser: Browser, server: ServerProcess, scheme: Any, width: int
) -> None:
    await _make(
        server,
        note_in("Title", content="# Heading\n\n[link](https://example.org) `code`", tags=["tag"]),
        note_in("Gone"),
    )
    async with rest_client(server.url) as rest:
        await rest.patch("/notes/1/", json={"content": "# Heading\n\nother"})
        await rest.delete("/notes/2/")
    context = await browser.new_context(
        base_url=server.url, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True
    )
    page = await context.new_page()
    for path in ("/", "/n/1", "/n/1/history", "/deleted", "/n/99", "help"):
        if path == "help":
            await page.goto("/")
            await page.keyboard.press("?")
        else:
            await page.goto(path)
        await expect(page.locator(".brand")).to_be_visible()
        await page.wait_for_load_state("networkidle")
        await page.add_script_tag(path=AXE)
        found = await page.evaluate("axe.run()")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        told = [(one["id"], [node["html"][:150] for node in one["nodes"]]) for one in serious]
        assert told == [], json.dumps(told, indent=2)
